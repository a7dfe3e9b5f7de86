/**
 * Slabs that belong to one CPU, as kernels from 2.6.23 to 6.19 had them: a CPU freezes a slab, takes its freelist over
 * and works on that alone, and it keeps a list of further frozen slabs, so that it seldom needs list_lock.
 *
 * | state of a slab        | FROZEN | freelist            | `next`           | how it got here                        |
 * |------------------------|--------|---------------------|------------------|----------------------------------------|
 * | cpu slab               | 1      | what others freed   | 0                | loaded from a list, or new              |
 * | on a cpu partial list  | 1      | not empty           | the CPU's list   | first free into it; or with a cpu slab  |
 * | full, on no list       | 0      | empty               | 0                | its CPU found nothing more in it        |
 * | on the partial list    | 0      | not empty           | the node's list  | deactivated, drained, flushed           |
 *
 * `inuse` of a cpu slab counts the objects on the CPU's freelist as in use. A slab becomes frozen in two ways only: it
 * is taken off a partial list under list_lock, or somebody's free finds it full and not frozen, which means that nobody
 * else holds it. That is why nobody may empty the freelist of a slab that is still on the partial list: another CPU's
 * free would put it on a second list. Single objects are therefore not popped off listed slabs here (allocSlow).
 *
 * The kernel guards freelist and slab of a CPU with a double-width compare-exchange on (freelist, transaction id). Here
 * the pcs lock does it: whoever calls one of these with a `c` holds its lock. Without the lock, slabs are used as in
 * the other layers.
 */
import { CpuSlab, layerStats, type PcsPtr, Stat } from '../cpu/index.js';
import { __GFP_THISNODE, NUMA_NO_NODE, Page, type PagePtr } from '../page/index.js';
import { PAGE_SIZE } from '../struct/index.js';
import { cmpxchg, exchange, fetchOr, LockClass, loadAcquire, storeRelease } from '../sync/index.js';
import { CpuPartialSlabs } from './cpuPartial.js';
import { type CacheDesc, hasMinPartial, KmemCacheNode, listLock, nodeOf } from './kmemCache.js';
import { addPartialHead, addPartialTail, removePartial } from './partialList.js';
import { FROZEN, freelistOf, inuseOf, packSlabWord } from './slabWord.js';

const { slabWord: SLAB_WORD, objects: OBJECTS, next: NEXT } = Page;
const { nrPartial: NR_PARTIAL, head: HEAD, nrSlabs: NR_SLABS, totalObjects: TOTAL_OBJECTS } = KmemCacheNode;
const { freelist: FREELIST, slabStart: SLAB_START, slabBytes: SLAB_BYTES } = CpuSlab;
const { partial: CPU_PARTIAL, nrPartial: NR_CPU_PARTIAL } = CpuSlab;
const { ALLOC_SLOWPATH, ALLOC_NODE_MISMATCH, FREE_SLAB, CMPXCHG_DOUBLE_FAIL } = Stat;
const ITEMS = layerStats('cpu-slab');

const LIST_LOCK_CLASS = LockClass.ListLock;

/** What was taken out of a CPU's block and is to be given back to the nodes. */
export interface DetachedCpuSlab {
  /** The cpu slab, or 0. */
  slab: PagePtr;
  /** First object of the freelist that the CPU had taken over. */
  freelist: number;
  /** First slab of the partial list. */
  partial: PagePtr;
}

export class CpuSlabs extends CpuPartialSlabs {
  /**
   * The part of the slow path that needs no memory and no node list: what others freed into the cpu slab, then the next
   * cpu partial slab. True when `c` has a freelist of a slab on `node`. Kernel: `___slab_alloc`, up to `new_objects`.
   */
  refillFromCpu(s: CacheDesc, c: PcsPtr, node: number): boolean {
    const { m } = this;
    if (m[c + SLAB_START] !== 0) {
      if (!this.matches(this.slabOf(m[c + SLAB_START]!), node)) {
        this.count(s, ALLOC_NODE_MISMATCH);
        this.deactivateCpuSlab(s, c);
      } else {
        if (m[c + FREELIST] !== 0) return true;
        if (this.takeRemoteFrees(s, c)) return true;
      }
    }
    return this.takeCpuPartial(s, c, node);
  }

  private matches(page: PagePtr, node: number): boolean {
    return node === NUMA_NO_NODE || this.pages.nodeOf(page) === node;
  }

  /** The CPU's freelist is used up: take over what was freed meanwhile, or let the slab go. Kernel: `get_freelist`. */
  private takeRemoteFrees(s: CacheDesc, c: PcsPtr): boolean {
    const { m } = this;
    const page = this.slabOf(m[c + SLAB_START]!);
    const all = packSlabWord(0, m[page + OBJECTS]!);
    let word = m[page + SLAB_WORD]!;
    for (;;) {
      const empty = freelistOf(word) === 0;
      // Pairs with the compare-exchange of every push: the links that it published are visible.
      const seen = cmpxchg(m, page + SLAB_WORD, word, empty ? all : all | FROZEN);
      if (seen === word) break;
      word = seen;
      this.count(s, CMPXCHG_DOUBLE_FAIL);
    }
    if (freelistOf(word) === 0) {
      this.forgetCpuSlab(c); // full, on no list: the next free into it freezes it for the CPU that frees
      this.count(s, ITEMS.DEACTIVATE_BYPASS);
      return false;
    }
    m[c + FREELIST] = this.firstFree(s, page, word);
    this.count(s, ITEMS.ALLOC_REFILL);
    return true;
  }

  /** The first cpu partial slab on `node` becomes the cpu slab; those before it go to their nodes. */
  private takeCpuPartial(s: CacheDesc, c: PcsPtr, node: number): boolean {
    const { m } = this;
    for (let page = m[c + CPU_PARTIAL] as PagePtr; page !== 0; page = m[c + CPU_PARTIAL] as PagePtr) {
      m[c + CPU_PARTIAL] = m[page + NEXT]!;
      m[c + NR_CPU_PARTIAL] = m[c + NR_CPU_PARTIAL]! - 1;
      m[page + NEXT] = 0;
      if (this.matches(page, node)) {
        this.loadCpuSlab(s, c, page);
        this.count(s, ITEMS.CPU_PARTIAL_ALLOC);
        return true;
      }
      this.unfreezeList(s, page);
    }
    return false;
  }

  /** Takes a slab that is off every list, frozen or not, with all free objects. Kernel: `freeze_slab`. */
  private loadCpuSlab(s: CacheDesc, c: PcsPtr, page: PagePtr): void {
    const { m } = this;
    // Take-all (F2). Pairs with the compare-exchange of every push.
    const word = exchange(m, page + SLAB_WORD, packSlabWord(0, m[page + OBJECTS]!) | FROZEN);
    this.setCpuSlab(c, page, this.firstFree(s, page, word));
  }

  private setCpuSlab(c: PcsPtr, page: PagePtr, freelist: number): void {
    const { m } = this;
    m[c + SLAB_START] = this.slabAddress(page);
    m[c + SLAB_BYTES] = PAGE_SIZE << this.slabOrder(page);
    m[c + FREELIST] = freelist;
  }

  private forgetCpuSlab(c: PcsPtr): void {
    const { m } = this;
    m[c + SLAB_START] = 0;
    m[c + SLAB_BYTES] = 0;
    m[c + FREELIST] = 0;
  }

  /**
   * A cpu slab from the nodes' partial lists, and further slabs for the cpu partial list. There is none now.
   * Kernel: `get_partial`.
   */
  freezePartial(s: CacheDesc, c: PcsPtr, gfp: number, node: number): boolean {
    const near = node === NUMA_NO_NODE ? this.cpu.node : node;
    if (this.freezeFromNode(s, c, near)) return true;
    if ((gfp & __GFP_THISNODE) !== 0 || !this.mayDefragment(s)) return false;
    for (let distance = 1; distance < s.nodes; distance++) {
      const remote = (near + distance) % s.nodes;
      if (this.hasSurplus(s, remote) && this.freezeFromNode(s, c, remote)) return true;
    }
    return false;
  }

  /** list_lock held. The first slab from `page` on that is not of the reserve: those never become a CPU's. */
  private firstOrdinary(page: PagePtr): PagePtr {
    const { m } = this;
    let ordinary: number = page;
    while (ordinary !== 0 && this.isReserve(ordinary as PagePtr)) ordinary = m[ordinary + NEXT]!;
    return ordinary as PagePtr;
  }

  /** The first slab becomes the cpu slab, and half a cpu partial list comes along. Kernel: `get_partial_node`. */
  private freezeFromNode(s: CacheDesc, c: PcsPtr, node: number): boolean {
    const { m, cpu } = this;
    const n = nodeOf(m, s, node);
    // data race, intended: a slab that arrives now is found next time.
    if (m[n + NR_PARTIAL] === 0) return false;
    cpu.locks.lock(listLock(n), LIST_LOCK_CLASS);
    try {
      let page = this.firstOrdinary(m[n + HEAD] as PagePtr);
      if (page === 0) return false;
      let next = this.firstOrdinary(m[page + NEXT] as PagePtr);
      removePartial(m, n, page);
      this.loadCpuSlab(s, c, page);
      this.count(s, ITEMS.ALLOC_FROM_PARTIAL);
      const most = s.cpuPartialSlabs >> 1;
      for (let moved = 0; moved <= most && next !== 0; moved++) {
        page = next;
        next = this.firstOrdinary(m[page + NEXT] as PagePtr);
        removePartial(m, n, page);
        fetchOr(m, page + SLAB_WORD, FROZEN); // others may push meanwhile, nobody may take
        this.putCpuPartial(s, c, page, false);
        this.count(s, ITEMS.CPU_PARTIAL_NODE);
      }
      return true;
    } finally {
      cpu.locks.unlock(listLock(n), LIST_LOCK_CLASS);
    }
  }

  /** Pages for a slab that a CPU is to have, or 0; nobody else knows of it, and no lock is held. */
  newFrozenSlab(s: CacheDesc, gfp: number, node: number): PagePtr {
    const { m } = this;
    const page = this.newSlab(s, gfp, node);
    if (page !== 0) m[page + SLAB_WORD] = packSlabWord(0, m[page + OBJECTS]!) | FROZEN;
    return page;
  }

  /** A new slab, of which nobody knows yet, becomes the cpu slab; one that `c` got meanwhile is deactivated. */
  installNewSlab(s: CacheDesc, c: PcsPtr, page: PagePtr): void {
    const { m } = this;
    if (m[c + SLAB_START] !== 0) {
      this.deactivateCpuSlab(s, c);
      this.count(s, ITEMS.CPUSLAB_FLUSH);
    }
    const objects = m[page + OBJECTS]!;
    const base = this.slabAddress(page);
    const head = this.dealObjects(s, base, objects, this.scratch, 0, 0);
    // Pairs with loadAcquire and compare-exchange of whoever frees into the slab.
    storeRelease(m, page + SLAB_WORD, packSlabWord(0, objects) | FROZEN);
    const n = nodeOf(m, s, this.pages.nodeOf(page));
    this.cpu.locks.lock(listLock(n), LIST_LOCK_CLASS);
    m[n + NR_SLABS] = m[n + NR_SLABS]! + 1;
    m[n + TOTAL_OBJECTS] = m[n + TOTAL_OBJECTS]! + objects;
    this.cpu.locks.unlock(listLock(n), LIST_LOCK_CLASS);
    this.setCpuSlab(c, page, base + (head - 1) * s.size);
  }

  /** Gives the cpu slab up, if there is one. */
  private deactivateCpuSlab(s: CacheDesc, c: PcsPtr): void {
    const { m } = this;
    const page = this.slabOf(m[c + SLAB_START]!);
    const freelist = m[c + FREELIST]!;
    this.forgetCpuSlab(c);
    this.deactivate(s, page, freelist);
  }

  /**
   * Puts what is left of a CPU's freelist in front of the slab's own and unfreezes it: to the head of the partial list,
   * or to its tail when others have begun to give its objects back. Kernel: `deactivate_slab`.
   */
  private deactivate(s: CacheDesc, page: PagePtr, freelist: number): void {
    const { m } = this;
    let tail = 0;
    let cnt = 0;
    for (let p = freelist; p !== 0; p = this.getFreepointer(s, p)) {
      tail = p;
      cnt++;
    }
    let word = loadAcquire(m, page + SLAB_WORD);
    const toTail = freelistOf(word) !== 0;
    if (toTail) this.count(s, ITEMS.DEACTIVATE_REMOTE_FREES);
    const first = cnt === 0 ? 0 : this.indexOf(s, page, freelist) + 1;
    let left = 0;
    for (;;) {
      if (cnt !== 0) this.setFreepointer(s, tail, this.firstFree(s, page, word)); // ours until it is published (F3)
      left = packSlabWord(cnt === 0 ? freelistOf(word) : first, inuseOf(word) - cnt);
      const seen = cmpxchg(m, page + SLAB_WORD, word, left);
      if (seen === word) break;
      word = seen;
      this.count(s, CMPXCHG_DOUBLE_FAIL);
    }
    this.placeDeactivated(s, page, left, toTail);
  }

  /** The slab is on no list and ours to place: a free by others changes no list unless the slab was full. */
  private placeDeactivated(s: CacheDesc, page: PagePtr, left: number, toTail: boolean): void {
    const { m, cpu } = this;
    if (freelistOf(left) === 0) {
      this.count(s, ITEMS.DEACTIVATE_FULL);
      return;
    }
    const n = nodeOf(m, s, this.pages.nodeOf(page));
    let discard = false;
    cpu.locks.lock(listLock(n), LIST_LOCK_CLASS);
    try {
      discard = inuseOf(left) === 0 && hasMinPartial(m, s, n);
      if (discard) this.forgetSlab(n, page);
      else if (toTail) addPartialTail(m, n, page);
      else addPartialHead(m, n, page);
    } finally {
      cpu.locks.unlock(listLock(n), LIST_LOCK_CLASS);
    }
    if (!discard) {
      this.count(s, toTail ? ITEMS.DEACTIVATE_TO_TAIL : ITEMS.DEACTIVATE_TO_HEAD);
      return;
    }
    this.count(s, ITEMS.DEACTIVATE_EMPTY);
    this.count(s, FREE_SLAB);
    this.discardSlab(s, page);
  }

  /** Takes everything out of a CPU's block, with plain stores alone. */
  detachCpuSlab(c: PcsPtr): DetachedCpuSlab {
    const { m } = this;
    const start = m[c + SLAB_START]!;
    const detached: DetachedCpuSlab = {
      slab: start === 0 ? (0 as PagePtr) : this.slabOf(start),
      freelist: m[c + FREELIST]!,
      partial: m[c + CPU_PARTIAL] as PagePtr,
    };
    this.forgetCpuSlab(c);
    m[c + CPU_PARTIAL] = 0;
    m[c + NR_CPU_PARTIAL] = 0;
    return detached;
  }

  /** Gives it back to the nodes; needs no pcs lock. Kernel: `__flush_cpu_slab`. */
  flushCpuSlab(s: CacheDesc, { slab, freelist, partial }: DetachedCpuSlab): void {
    if (slab !== 0) {
      this.deactivate(s, slab, freelist);
      this.count(s, ITEMS.CPUSLAB_FLUSH);
    }
    this.unfreezeList(s, partial);
  }

  /** One object without the CPU's lock: off a partial list, or from a new slab, neither of which is frozen. */
  override allocSlow(s: CacheDesc, gfp: number, node: number): number {
    if (s.layer !== 'cpu-slab') return super.allocSlow(s, gfp, node);
    this.count(s, ALLOC_SLOWPATH);
    return this.allocUnfrozen(s, gfp, node);
  }

  /** One object of a new slab that nobody knows yet; the others go to the partial list. */
  allocFirst(s: CacheDesc, page: PagePtr): number {
    this.allocFromNewSlab(s, page, 1, this.scratch, 0);
    return this.scratch[0]!;
  }

  /** Takes a slab off the list for one object and gives it back, which is dearer than a pop, and safe: see above. */
  allocUnfrozen(s: CacheDesc, gfp: number, node: number): number {
    const near = node === NUMA_NO_NODE ? this.cpu.node : node;
    const narrow = gfp | (node === NUMA_NO_NODE ? 0 : __GFP_THISNODE);
    if (this.refillFromNode(s, near, this.scratch, 0, 1, 1, false) === 1) return this.scratch[0]!;
    const p = this.allocFromFreshSlab(s, narrow, near);
    return p === 0 && narrow !== gfp ? this.allocFromFreshSlab(s, gfp, near) : p;
  }
}
