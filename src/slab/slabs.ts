/** Slabs of a cache, for the calling CPU: making them, a pop under list_lock and a push without. */
import { layerStats, pcsOf, Stat, type ThisCpu } from '../cpu/index.js';
import {
  __GFP_NOFAIL,
  __GFP_NOWARN,
  __GFP_THISNODE,
  __GFP_ZERO,
  NUMA_NO_NODE,
  nodeOnlyGfp,
  Page,
  type PageAllocator,
  type PagePtr,
  PG_PARTIAL,
  PG_SLAB,
  preferredOrderGfp,
} from '../page/index.js';
import { hasRefinement, PAGE_SHIFT, PAGE_SIZE } from '../struct/index.js';
import { cmpxchg, LockClass, loadAcquire, storeRelease } from '../sync/index.js';
import { SLAB_CTOR } from './flags.js';
import {
  type CacheDesc,
  hasMinPartial,
  KmemCacheNode,
  type KmemCacheNodePtr,
  KmemCacheStruct,
  listLock,
  nodeOf,
  RECIPROCAL_SHIFT,
} from './kmemCache.js';
import { oomReport } from './oomReport.js';
import { addPartialHead, addPartialTail, removePartial } from './partialList.js';
import { ReserveSlabs } from './reserve.js';
import { FROZEN, freelistOf, inuseOf, packSlabWord } from './slabWord.js';

const {
  flags: FLAGS,
  cache: CACHE,
  slabWord: SLAB_WORD,
  objects: OBJECTS,
  head: HEAD_PAGE,
  SIZEOF: PAGE_WORDS,
} = Page;
const { nrPartial: NR_PARTIAL, head: HEAD, nrSlabs: NR_SLABS, totalObjects: TOTAL_OBJECTS } = KmemCacheNode;

const { FREE_FROZEN } = layerStats('cpu-slab');
const LIST_LOCK_CLASS = LockClass.ListLock;
// Imported names are looked up at each use; module-local constants are folded.
const P_SHIFT = PAGE_SHIFT;
const R_SHIFT = RECIPROCAL_SHIFT;
const FROZEN_BIT = FROZEN;
const PAGE_WORDS_SHIFT = Math.log2(PAGE_WORDS);

/** Objects of a slab of that order. */
const objectsIn = (s: CacheDesc, order: number): number =>
  order === s.order ? s.objects : Math.floor((PAGE_SIZE << order) / s.size);

export class Slabs extends ReserveSlabs {
  /** Off: a new slab's freelist is built in full before its first object is handed out. */
  private readonly lazyFreelist: boolean;
  private defragClock = 0;

  constructor(cpu: ThisCpu, pages: PageAllocator) {
    super(cpu, pages);
    this.lazyFreelist = hasRefinement(cpu.geometry, 'lazyFreelist');
  }

  slabAddress(page: PagePtr): number {
    return ((page - this.memmap) >> PAGE_WORDS_SHIFT) << P_SHIFT;
  }

  count(s: CacheDesc, item: number, n = 1): void {
    this.cpu.count(pcsOf(this.cpu.geometry, this.cpu.id, s.slot), item, n);
  }

  /**
   * The slow path for one object: partial list, then a new slab; the wanted node first, then any.
   * Kernel: `___slab_alloc`. Returns 0 when out of memory, and then leaves a report.
   */
  allocSlow(s: CacheDesc, gfp: number, node: number): number {
    this.count(s, Stat.ALLOC_SLOWPATH);
    const preferred = node === NUMA_NO_NODE ? this.cpu.node : node;
    let narrow = node !== NUMA_NO_NODE && (gfp & __GFP_THISNODE) === 0;
    for (;;) {
      const flags = narrow ? nodeOnlyGfp(gfp) : gfp;
      const p = this.getFromPartial(s, preferred, flags) || this.allocFromFreshSlab(s, flags, preferred);
      if (p !== 0) return p;
      if (!narrow) return this.allocLast(s, gfp, preferred, node);
      narrow = false;
    }
  }

  /** There are no pages. What reclaim took out of sheaves lies on partial lists now, whoever's they are. */
  private allocLast(s: CacheDesc, gfp: number, preferred: number, node: number): number {
    const p = this.getFromAnyPartial(s, preferred, gfp);
    if (p !== 0) return p;
    if ((gfp & __GFP_NOFAIL) !== 0) {
      const again = (): number => {
        const fresh = this.allocFromFreshSlab(s, gfp & ~__GFP_NOFAIL, preferred);
        if (fresh !== 0) return fresh;
        const { failure } = this.callbacks; // a constructor that throws is no matter of waiting
        const found = this.getFromAnyPartial(s, preferred, gfp);
        if (found === 0 && failure?.cause !== undefined) throw failure;
        return found;
      };
      return this.pages.insist(again, `an object of ${s.name}`);
    }
    if ((gfp & __GFP_NOWARN) === 0) {
      const why = this.callbacks.failure?.message;
      this.pages.oom.report(() => why ?? oomReport(this.cpu, this.pages, s, gfp, node));
    }
    return 0;
  }

  /** The last resort looks at every node that the caller allows, without the gate for other nodes. */
  protected getFromAnyPartial(s: CacheDesc, node: number, gfp: number): number {
    const last = (gfp & __GFP_THISNODE) !== 0 ? 1 : s.nodes;
    for (let distance = 0; distance < last; distance++) {
      const p = this.getPartialNode(s, (node + distance) % s.nodes);
      if (p !== 0) return p;
    }
    return 0;
  }

  protected getFromPartial(s: CacheDesc, node: number, gfp: number): number {
    const p = this.getPartialNode(s, node);
    if (p !== 0 || (gfp & __GFP_THISNODE) !== 0) return p;
    if (!this.mayDefragment(s)) return 0;
    for (let distance = 1; distance < s.nodes; distance++) {
      const remote = (node + distance) % s.nodes;
      if (!this.hasSurplus(s, remote)) continue;
      const found = this.getPartialNode(s, remote);
      if (found !== 0) return found;
    }
    return 0;
  }

  protected allocFromFreshSlab(s: CacheDesc, gfp: number, node: number): number {
    const page = this.newSlab(s, gfp, node);
    if (page === 0) return 0;
    const one = this.scratch;
    return this.allocFromNewSlab(s, page, 1, one, 0) === 1 ? one[0]! : 0;
  }
  protected readonly scratch = new Int32Array(1);

  /** The gate before other nodes' partial slabs are looked at; the kernel uses the cycle counter, we count. */
  protected mayDefragment(s: CacheDesc): boolean {
    if (s.nodes === 1) return false;
    this.defragClock = (this.defragClock + 1) & 1023;
    const ratio = this.m[s.ptr + KmemCacheStruct.defragRatio]!;
    return ratio !== 0 && this.defragClock <= ratio;
  }

  /** data race, intended: whether another node has partial slabs to spare is a hint. */
  protected hasSurplus(s: CacheDesc, node: number): boolean {
    return this.m[nodeOf(this.m, s, node) + NR_PARTIAL]! > this.m[s.ptr + KmemCacheStruct.minPartial]!;
  }

  /** Pops one object off the node's first partial slab. Kernel: `get_from_partial_node`. */
  protected getPartialNode(s: CacheDesc, node: number, tryOnly = false): number {
    const { m, cpu } = this;
    const n = nodeOf(m, s, node);
    // data race, intended: a slab that arrives now is found next time.
    if (m[n + NR_PARTIAL] === 0) return 0;
    if (!tryOnly) cpu.locks.lock(listLock(n), LIST_LOCK_CLASS);
    else if (!cpu.locks.tryLock(listLock(n), LIST_LOCK_CLASS)) return 0;
    try {
      const page = this.firstAllowed(m[n + HEAD] as PagePtr);
      if (page === 0) return 0;
      const p = this.popObject(s, page);
      if (freelistOf(loadAcquire(m, page + SLAB_WORD)) === 0) removePartial(m, n, page);
      return p;
    } finally {
      cpu.locks.unlock(listLock(n), LIST_LOCK_CLASS);
    }
  }

  /** Pops one object; list_lock held, freelist not empty (it only grows while we hold the lock). */
  protected popObject(s: CacheDesc, page: PagePtr): number {
    const m = this.m;
    for (;;) {
      const word = loadAcquire(m, page + SLAB_WORD);
      const head = freelistOf(word);
      const p = this.slabAddress(page) + (head - 1) * s.size;
      const link = this.getFreepointer(s, p); // stable: only a popper could change it, and we are the popper (F1)
      const next = link === 0 ? 0 : this.indexOf(s, page, link) + 1;
      if (cmpxchg(m, page + SLAB_WORD, word, packSlabWord(next, inuseOf(word) + 1)) === word) return p;
      this.count(s, Stat.CMPXCHG_DOUBLE_FAIL);
    }
  }

  /**
   * Pages for a slab: the preferred order without effort, or else the smallest that holds one object, with all the
   * effort that `gfp` allows. Returns 0 if none, also with __GFP_NOFAIL: who waits must look at partial lists too.
   */
  newSlab(s: CacheDesc, gfp: number, node: number): PagePtr {
    const flags = (gfp & ~(__GFP_ZERO | __GFP_NOFAIL)) | __GFP_NOWARN;
    this.callbacks.failure = undefined;
    this.freeRipeSlabs(s, this.cpu.node);
    let order = s.order;
    let page = this.pages.alloc(order, preferredOrderGfp(flags, order === s.minOrder), node);
    if (page === 0) {
      order = s.minOrder;
      page = this.pages.alloc(order, flags, node);
      if (page === 0) return page;
      this.count(s, Stat.ORDER_FALLBACK);
    }
    this.prepareBytes(s, page);
    if ((s.flags & SLAB_CTOR) !== 0 && !this.callbacks.construct(s, page, objectsIn(s, order), gfp)) {
      return 0 as PagePtr;
    }
    this.initSlab(s, page, order);
    if (!this.lazyFreelist) this.buildFreelist(s, page);
    this.count(s, Stat.ALLOC_SLAB);
    return page;
  }

  /** Before a constructor sees the pages of a new slab. */
  protected prepareBytes(_s: CacheDesc, _page: PagePtr): void {}

  initSlab(s: CacheDesc, page: PagePtr, order: number): void {
    const m = this.m;
    m[page + SLAB_WORD] = packSlabWord(0, 0);
    m[page + OBJECTS] = objectsIn(s, order);
    for (let i = 0; i < 1 << order; i++) {
      const each = page + i * PAGE_WORDS;
      m[each + FLAGS] = m[each + FLAGS]! | PG_SLAB;
      m[each + CACHE] = s.ptr;
      m[each + HEAD_PAGE] = page;
    }
  }

  private buildFreelist(s: CacheDesc, page: PagePtr): void {
    const { m } = this;
    const head = this.dealObjects(s, this.slabAddress(page), m[page + OBJECTS]!, this.scratch, 0, 0);
    m[page + SLAB_WORD] = packSlabWord(head, 0);
  }

  /** What dealObjects does, for a slab whose freelist is built. */
  private takeLinked(s: CacheDesc, page: PagePtr, out: Int32Array, at: number, handed: number): number {
    let p = this.firstFree(s, page, this.m[page + SLAB_WORD]!);
    for (let i = 0; i < handed; i++) {
      out[at + i] = p;
      p = this.getFreepointer(s, p);
    }
    return p === 0 ? 0 : this.indexOf(s, page, p) + 1;
  }

  /**
   * Hands out the first `count` objects of a slab that nobody else knows yet, into `out[at..]`; the rest becomes its
   * freelist and the slab goes to the head of the partial list. Returns how many were handed out. Kernel:
   * `alloc_from_new_slab`.
   */
  allocFromNewSlab(s: CacheDesc, page: PagePtr, count: number, out: Int32Array, at: number): number {
    const m = this.m;
    const objects = m[page + OBJECTS]!;
    const handed = Math.min(count, objects);
    const head = this.lazyFreelist
      ? this.dealObjects(s, this.slabAddress(page), objects, out, at, handed)
      : this.takeLinked(s, page, out, at, handed);
    // Pairs with loadAcquire of whoever frees into the slab or pops from it.
    storeRelease(m, page + SLAB_WORD, packSlabWord(head, handed));
    const n = nodeOf(m, s, this.pages.nodeOf(page));
    this.cpu.locks.lock(listLock(n), LIST_LOCK_CLASS);
    try {
      m[n + NR_SLABS] = m[n + NR_SLABS]! + 1;
      m[n + TOTAL_OBJECTS] = m[n + TOTAL_OBJECTS]! + objects;
      if (handed < objects) addPartialHead(m, n, page);
    } finally {
      this.cpu.locks.unlock(listLock(n), LIST_LOCK_CLASS);
    }
    return handed;
  }

  /** Frees one object to its slab. Counts nothing: the caller knows which path this was. */
  freeOne(s: CacheDesc, p: number): void {
    this.freeChain(s, this.slabOf(p), p, p, 1);
  }

  indexOf(s: CacheDesc, page: PagePtr, p: number): number {
    const at = p - this.slabAddress(page);
    return s.reciprocal !== 0 ? Math.imul(at, s.reciprocal) >>> R_SHIFT : (at / s.size) | 0;
  }

  /** The address that the first object's successor must hold when `word` is the slab's: 0 for an empty freelist. */
  protected firstFree(s: CacheDesc, page: PagePtr, word: number): number {
    const head = freelistOf(word);
    return head === 0 ? 0 : this.slabAddress(page) + (head - 1) * s.size;
  }

  /**
   * Puts a chain of `cnt` objects of one slab, from address `head` to address `tail`, in front of its freelist.
   * Takes list_lock only when the slab was full or becomes empty. Kernel: `__slab_free`.
   */
  freeChain(s: CacheDesc, page: PagePtr, head: number, tail: number, cnt: number): void {
    const n = nodeOf(this.m, s, this.pages.nodeOf(page));
    if (this.pushChain(s, page, head, tail, cnt)) return;
    let discard = false;
    this.cpu.locks.lock(listLock(n), LIST_LOCK_CLASS);
    try {
      discard = this.pushUnderListLock(s, n, page, head, tail, cnt);
    } finally {
      this.cpu.locks.unlock(listLock(n), LIST_LOCK_CLASS);
    }
    if (discard) this.discardSlab(s, page);
  }

  /**
   * The push without a lock. Returns false, with nothing changed, when the slab was full or becomes empty: then its
   * place on the partial list changes too.
   */
  pushChain(s: CacheDesc, page: PagePtr, head: number, tail: number, cnt: number): boolean {
    const m = this.m;
    const first = this.indexOf(s, page, head) + 1;
    // A plain read: a stale word makes the compare-exchange fail, which returns the current one.
    let word = m[page + SLAB_WORD]!;
    for (;;) {
      const inuse = inuseOf(word) - cnt;
      // A frozen slab has its place with a CPU, full or empty.
      if ((inuse === 0 || freelistOf(word) === 0) && word < FROZEN_BIT) return false;
      this.setFreepointer(s, tail, this.firstFree(s, page, word)); // ours until it is published (F3)
      const seen = cmpxchg(m, page + SLAB_WORD, word, packSlabWord(first, inuse) | (word & FROZEN_BIT));
      if (seen === word) {
        if (word >= FROZEN_BIT) this.count(s, FREE_FROZEN);
        return true;
      }
      word = seen;
      this.count(s, Stat.CMPXCHG_DOUBLE_FAIL);
    }
  }

  /**
   * The push with the node's list_lock held, which gives the slab its new place: others may still push, nobody may
   * link or unlink. Returns true when the slab is empty and off the list, for the caller to discard it unlocked.
   */
  protected pushUnderListLock(
    s: CacheDesc,
    n: KmemCacheNodePtr,
    page: PagePtr,
    head: number,
    tail: number,
    cnt: number,
  ): boolean {
    const m = this.m;
    const first = this.indexOf(s, page, head) + 1;
    let word = m[page + SLAB_WORD]!;
    for (;;) {
      this.setFreepointer(s, tail, this.firstFree(s, page, word)); // ours until it is published (F3)
      const next = packSlabWord(first, inuseOf(word) - cnt) | (word & FROZEN_BIT);
      const seen = cmpxchg(m, page + SLAB_WORD, word, next);
      if (seen === word) break;
      word = seen;
      this.count(s, Stat.CMPXCHG_DOUBLE_FAIL);
    }
    if (word >= FROZEN_BIT) {
      this.count(s, FREE_FROZEN);
      return false; // a CPU has frozen it since we looked
    }
    return this.placeAfterFree(s, n, page, freelistOf(word) === 0, inuseOf(word) === cnt);
  }

  /** list_lock held. What a free changes about a slab's place; true when it is to be discarded. */
  private placeAfterFree(
    s: CacheDesc,
    n: KmemCacheNodePtr,
    page: PagePtr,
    wasFull: boolean,
    isEmpty: boolean,
  ): boolean {
    const m = this.m;
    const onPartial = (m[page + FLAGS]! & PG_PARTIAL) !== 0;
    const surplus = isEmpty && hasMinPartial(m, s, n);
    if (wasFull ? surplus : onPartial && surplus) {
      if (onPartial) {
        removePartial(m, n, page);
        this.count(s, Stat.FREE_REMOVE_PARTIAL);
      }
      this.forgetSlab(n, page);
      this.count(s, Stat.FREE_SLAB);
      return true;
    }
    if (wasFull) {
      addPartialTail(m, n, page);
      this.count(s, Stat.FREE_ADD_PARTIAL);
    } // else: it stays where it is, on the list or with the refiller that holds it
    return false;
  }

  /** list_lock held. The node no longer counts the slab; the caller discards it once it has given the lock up. */
  protected forgetSlab(n: KmemCacheNodePtr, page: PagePtr): void {
    const m = this.m;
    m[n + NR_SLABS] = m[n + NR_SLABS]! - 1;
    m[n + TOTAL_OBJECTS] = m[n + TOTAL_OBJECTS]! - m[page + OBJECTS]!;
  }
}
