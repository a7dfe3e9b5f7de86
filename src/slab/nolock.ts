/**
 * Slabs for restricted contexts, which may run while this very thread holds any lock, or is about to take one: list_lock
 * and zone->lock are only tried. Scratch memory of the other methods is not used here: whom we interrupt may be using it.
 */
import { Stat } from '../cpu/index.js';
import { ALLOC_TRYLOCK, orderOf, Page, type PagePtr, PG_SLAB } from '../page/index.js';
import { LockClass, loadAcquire, storeRelease } from '../sync/index.js';
import { CpuSlabs } from './cpuSlabs.js';
import { type CacheDesc, KmemCacheNode, listLock, nodeOf } from './kmemCache.js';
import { addPartialHead, removePartial } from './partialList.js';
import { FROZEN, freelistOf, packSlabWord } from './slabWord.js';

const { flags: FLAGS, cache: CACHE, slabWord: SLAB_WORD, objects: OBJECTS, SIZEOF: PAGE_WORDS } = Page;
const { head: HEAD, nrPartial: NR_PARTIAL, nrSlabs: NR_SLABS, totalObjects: TOTAL_OBJECTS } = KmemCacheNode;

export class NolockSlabs extends CpuSlabs {
  private readonly nolockScratch = new Int32Array(1);

  /** One object from a partial slab or a new one; 0 when out of memory, or when a lock that it takes is not free. */
  allocNolock(s: CacheDesc): number {
    this.count(s, Stat.ALLOC_SLOWPATH);
    const { node } = this.cpu;
    const p = this.getPartialNode(s, node, true) || this.getRemoteNolock(s, node);
    return p !== 0 ? p : this.allocFromNewSlabNolock(s, node);
  }

  private getRemoteNolock(s: CacheDesc, node: number): number {
    if (!this.mayDefragment(s)) return 0;
    for (let distance = 1; distance < s.nodes; distance++) {
      const remote = (node + distance) % s.nodes;
      if (!this.hasSurplus(s, remote)) continue;
      const p = this.getPartialNode(s, remote, true);
      if (p !== 0) return p;
    }
    return 0;
  }

  /**
   * In the layer cpu-slab a slab leaves the list before an object is popped off it: the last one makes it a full slab,
   * and then whoever frees into it takes it at once, by its word alone. What that CPU has frozen is not ours to list.
   */
  protected override getPartialNode(s: CacheDesc, node: number, tryOnly = false): number {
    if (s.layer !== 'cpu-slab') return super.getPartialNode(s, node, tryOnly);
    const { m } = this;
    const { locks } = this.cpu;
    const n = nodeOf(m, s, node);
    // data race, intended: a slab that arrives now is found next time.
    if (m[n + NR_PARTIAL] === 0) return 0;
    if (!tryOnly) locks.lock(listLock(n), LockClass.ListLock);
    else if (!locks.tryLock(listLock(n), LockClass.ListLock)) return 0;
    try {
      const page = this.firstAllowed(m[n + HEAD] as PagePtr);
      if (page === 0) return 0;
      removePartial(m, n, page);
      const p = this.popObject(s, page);
      const word = loadAcquire(m, page + SLAB_WORD);
      // Frozen slabs get back to a list under this lock only, and free objects can only become more.
      if (freelistOf(word) !== 0 && word < FROZEN) addPartialHead(m, n, page);
      return p;
    } finally {
      locks.unlock(listLock(n), LockClass.ListLock);
    }
  }

  /** The node counts a slab under list_lock, so that is needed even for a slab of one object; else it goes back. */
  private allocFromNewSlabNolock(s: CacheDesc, node: number): number {
    const { m } = this;
    const { locks } = this.cpu;
    const page = this.newSlab(s, ALLOC_TRYLOCK, node);
    if (page === 0) return 0;
    const n = nodeOf(m, s, this.pages.nodeOf(page));
    if (!locks.tryLock(listLock(n), LockClass.ListLock)) {
      this.undoNewSlab(page);
      return 0;
    }
    try {
      return this.allocFirstNolock(s, page);
    } finally {
      locks.unlock(listLock(n), LockClass.ListLock);
    }
  }

  /** list_lock held. Hands out the first object of a slab that nobody knows yet, and lists the slab. */
  protected allocFirstNolock(s: CacheDesc, page: PagePtr): number {
    const { m } = this;
    const n = nodeOf(m, s, this.pages.nodeOf(page));
    const objects = m[page + OBJECTS]!;
    const one = this.nolockScratch;
    const head = this.dealObjects(s, this.slabAddress(page), objects, one, 0, 1);
    // Pairs with loadAcquire of whoever frees into the slab or pops from it.
    storeRelease(m, page + SLAB_WORD, packSlabWord(head, 1));
    m[n + NR_SLABS] = m[n + NR_SLABS]! + 1;
    m[n + TOTAL_OBJECTS] = m[n + TOTAL_OBJECTS]! + objects;
    if (objects > 1) addPartialHead(m, n, page);
    return one[0]!;
  }

  /** Makes a slab that nobody knows a block of pages again and gives it back. Kernel: `free_new_slab_nolock`. */
  private undoNewSlab(page: PagePtr): void {
    const { m } = this;
    const order = orderOf(m[page + FLAGS]!);
    for (let i = 0; i < 1 << order; i++) {
      const each = page + i * PAGE_WORDS;
      m[each + FLAGS] = m[each + FLAGS]! & ~PG_SLAB;
      m[each + CACHE] = 0;
    }
    this.pages.freeNolock(page, order);
  }

  /** Frees one object: a push without a lock, or, where that would change the slab's place, later. */
  freeNolock(s: CacheDesc, p: number): void {
    if (this.pushChain(s, this.slabOf(p), p, p, 1)) this.count(s, Stat.FREE_SLOWPATH);
    else this.cpu.defer(p, (p + s.offset) >> 2);
  }
}
