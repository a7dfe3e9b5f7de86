/**
 * The end of a slab: it is empty, on no list and in no count, and its pages go back to the page allocator. At once, or,
 * with SLAB_TYPESAFE_BY_RCU, when all read sections are over in which somebody may still look at its objects.
 *
 * Until then it waits on a list of its node's kmem_cache_node, under list_lock, with the number of its grace period in
 * `prev`. The list lies in the arena, so none is lost with a thread, and nothing depends on a timer: whoever discards the
 * next slab of the node, needs pages for one, shrinks or reclaims frees those that are ripe, and so does a callback of
 * the thread that discarded it. destroy waits.
 */
import type { ThisCpu } from '../cpu/index.js';
import { orderOf, Page, type PageAllocator, type PagePtr } from '../page/index.js';
import { GracePeriods } from '../rcu/index.js';
import { LockClass } from '../sync/index.js';
import { SLAB_DTOR, SLAB_TYPESAFE_BY_RCU } from './flags.js';
import { FreePointers } from './freePointer.js';
import { type CacheDesc, KmemCacheNode, type KmemCacheNodePtr, listLock, nodeOf } from './kmemCache.js';
import { SlabCallbacks } from './slabCallbacks.js';

const { flags: FLAGS, next: NEXT, prev: GRACE_PERIOD } = Page;
const { rcuHead: HEAD, rcuTail: TAIL } = KmemCacheNode;

export class SlabPages extends FreePointers {
  readonly pages: PageAllocator;
  /** Runs the constructors and destructors of this thread's caches. */
  readonly callbacks: SlabCallbacks;
  private readonly gracePeriods: GracePeriods;
  /** A slab waits now; the layer above sees to it that this thread looks again. */
  slabWaits: (s: CacheDesc) => void = () => {};

  constructor(cpu: ThisCpu, pages: PageAllocator) {
    super(cpu);
    this.pages = pages;
    this.callbacks = new SlabCallbacks(cpu, pages);
    this.gracePeriods = new GracePeriods(cpu.m, cpu.geometry);
  }

  /** Ends an empty slab that is on no list and in no count. list_lock is not held. Kernel: `discard_slab`. */
  protected discardSlab(s: CacheDesc, page: PagePtr): void {
    if ((s.flags & SLAB_TYPESAFE_BY_RCU) === 0) return this.freeSlab(s, page);
    const node = this.pages.nodeOf(page);
    this.putWaiting(nodeOf(this.m, s, node), page);
    this.freeRipeSlabs(s, node); // where nobody reads, this one too
    if (this.slabsWait(s, node)) this.slabWaits(s);
  }

  /** The same for slabs linked through NEXT. */
  protected discardSlabs(s: CacheDesc, first: number): void {
    for (let page = first; page !== 0; ) {
      const next = this.m[page + NEXT]!;
      this.m[page + NEXT] = 0;
      this.discardSlab(s, page as PagePtr);
      page = next;
    }
  }

  /**
   * Nobody can have an object of this slab any more: what objects still own is given up here, and the pages go back. All
   * slabs of all caches end in this method, but for new ones that nobody got to see. Kernel: `__free_slab`.
   */
  private freeSlab(s: CacheDesc, page: PagePtr): void {
    if ((s.flags & SLAB_DTOR) !== 0) this.callbacks.putOff(s, page);
    else this.pages.free(page, this.slabOrder(page));
  }

  protected slabOrder(page: PagePtr): number {
    return orderOf(this.m[page + FLAGS]!);
  }

  /** Frees the slabs of a node whose grace period is over. */
  freeRipeSlabs(s: CacheDesc, node: number): void {
    for (let page = this.takeRipe(s, node); page !== 0; page = this.takeRipe(s, node)) this.freeSlab(s, page);
  }

  /** The same for all nodes. Returns whether others still wait. */
  freeAllRipeSlabs(s: CacheDesc): boolean {
    let waiting = false;
    for (let node = 0; node < s.nodes; node++) {
      this.freeRipeSlabs(s, node);
      waiting ||= this.slabsWait(s, node);
    }
    return waiting;
  }

  /** data race, intended: whether slabs of a node wait is a hint; one that comes now has somebody who looks. */
  slabsWait(s: CacheDesc, node: number): boolean {
    return this.m[nodeOf(this.m, s, node) + HEAD] !== 0;
  }

  private putWaiting(n: KmemCacheNodePtr, page: PagePtr): void {
    const { m, cpu } = this;
    cpu.locks.lock(listLock(n), LockClass.ListLock);
    try {
      m[page + NEXT] = 0;
      m[page + GRACE_PERIOD] = this.gracePeriods.request();
      if (m[n + HEAD] === 0) m[n + HEAD] = page;
      else m[m[n + TAIL]! + NEXT] = page;
      m[n + TAIL] = page;
    } finally {
      cpu.locks.unlock(listLock(n), LockClass.ListLock);
    }
  }

  /** Takes the slab that waits longest off the list, if its grace period is over; else 0. */
  private takeRipe(s: CacheDesc, node: number): PagePtr {
    const { m, cpu } = this;
    const n = nodeOf(m, s, node);
    if (!this.slabsWait(s, node)) return 0 as PagePtr;
    cpu.locks.lock(listLock(n), LockClass.ListLock);
    try {
      const page = m[n + HEAD] as PagePtr;
      if (page === 0 || !this.gracePeriods.poll(m[page + GRACE_PERIOD]!)) return 0 as PagePtr;
      m[n + HEAD] = m[page + NEXT]!;
      if (m[n + HEAD] === 0) m[n + TAIL] = 0;
      m[page + NEXT] = 0;
      m[page + GRACE_PERIOD] = 0;
      return page;
    } finally {
      cpu.locks.unlock(listLock(n), LockClass.ListLock);
    }
  }
}
