/**
 * Partial slabs in batches: off the list for a refiller, and those it did not need back on it.
 *
 * | `batchDetach` | off the list                                     | the unused ones                                   |
 * |---------------|--------------------------------------------------|---------------------------------------------------|
 * | on            | one cut; they are used in list order             | one splice to the tail, empty ones too            |
 * | off           | one by one to the head of the private list, which | one by one to the head; empty ones go back to the |
 * |               | reverses them                                    | page allocator while the node has enough slabs    |
 */
import type { ThisCpu } from '../cpu/index.js';
import { Page, type PageAllocator, type PagePtr, PG_PARTIAL } from '../page/index.js';
import { hasRefinement, type Words } from '../struct/index.js';
import { LockClass, loadAcquire } from '../sync/index.js';
import {
  type CacheDesc,
  hasMinPartial,
  KmemCacheNode,
  type KmemCacheNodePtr,
  listLock,
  nodeOf,
} from './kmemCache.js';
import {
  addPartialHead,
  addPartialTail,
  cutPartialHead,
  removePartial,
  splicePartialTail,
} from './partialList.js';
import { Slabs } from './slabs.js';
import { inuseOf } from './slabWord.js';

const { flags: FLAGS, slabWord: SLAB_WORD, objects: OBJECTS, next: NEXT } = Page;
const { nrPartial: NR_PARTIAL, head: HEAD } = KmemCacheNode;
const LIST_LOCK_CLASS = LockClass.ListLock;

export class PartialBatches extends Slabs {
  private readonly batchDetach: boolean;

  constructor(cpu: ThisCpu, pages: PageAllocator) {
    super(cpu, pages);
    this.batchDetach = hasRefinement(cpu.geometry, 'batchDetach');
  }

  /**
   * Detaches partial slabs that together hold `min` to `max` free objects, as a private list through their NEXT words.
   * The counts are lower bounds, since frees go on without the lock. Kernel: `get_partial_node_bulk`.
   */
  protected getPartialBulk(s: CacheDesc, node: number, min: number, max: number, tryOnly: boolean): PagePtr {
    const { m, cpu } = this;
    const n = nodeOf(m, s, node);
    // data race, intended: a slab that arrives now is found next time.
    if (m[n + NR_PARTIAL] === 0) return 0 as PagePtr;
    if (!tryOnly) cpu.locks.lock(listLock(n), LIST_LOCK_CLASS);
    else if (!cpu.locks.tryLock(listLock(n), LIST_LOCK_CLASS)) return 0 as PagePtr;
    try {
      return this.batchDetach && !this.meetsReserve(n, max)
        ? this.cutBatch(n, min, max)
        : this.moveOneByOne(n, min, max);
    } finally {
      cpu.locks.unlock(listLock(n), LIST_LOCK_CLASS);
    }
  }

  /** list_lock held. Whether one of the slabs that a batch may take is of the reserve, and must stay. */
  private meetsReserve(n: KmemCacheNodePtr, max: number): boolean {
    const { m } = this;
    if (!this.hasReserve) return false;
    let nr = 0;
    for (let page = m[n + HEAD]!; page !== 0 && nr < max; page = m[page + NEXT]!, nr++) {
      if (this.isReserve(page as PagePtr)) return true;
    }
    return false;
  }

  private cutBatch(n: KmemCacheNodePtr, min: number, max: number): PagePtr {
    const { m } = this;
    const first = m[n + HEAD]!;
    let last = 0;
    let nr = 0;
    let total = 0;
    for (let page = first; page !== 0 && total < max; page = m[page + NEXT]!) {
      const free = m[page + OBJECTS]! - inuseOf(m[page + SLAB_WORD]!);
      if (total >= min && total + free > max) break;
      m[page + FLAGS] = m[page + FLAGS]! & ~PG_PARTIAL;
      last = page;
      nr++;
      total += free;
    }
    if (last === 0) return 0 as PagePtr;
    cutPartialHead(m, n, last as PagePtr, nr);
    return first as PagePtr;
  }

  private moveOneByOne(n: KmemCacheNodePtr, min: number, max: number): PagePtr {
    const { m } = this;
    let first = 0;
    let total = 0;
    for (let page = m[n + HEAD]!; page !== 0 && total < max; ) {
      const next = m[page + NEXT]!;
      const free = m[page + OBJECTS]! - inuseOf(m[page + SLAB_WORD]!);
      if (total >= min && total + free > max) break;
      if (this.isReserve(page as PagePtr)) {
        page = next; // nothing of the reserve gets into a sheaf
        continue;
      }
      removePartial(m, n, page as PagePtr);
      m[page + NEXT] = first;
      first = page;
      total += free;
      page = next;
    }
    return first as PagePtr;
  }

  /** list_lock held: where a slab goes that keeps a part of what was taken from it. */
  protected putBackOne(m: Words, n: KmemCacheNodePtr, page: PagePtr): void {
    if (this.batchDetach) addPartialTail(m, n, page);
    else addPartialHead(m, n, page);
  }

  /** Frees made the first slabs hold more than they showed: the others go back as they are. */
  protected putBackUnused(s: CacheDesc, node: number, first: PagePtr): void {
    const { m, cpu } = this;
    const n = nodeOf(m, s, node);
    let empty = 0;
    cpu.locks.lock(listLock(n), LIST_LOCK_CLASS);
    try {
      if (this.batchDetach) splicePartialTail(m, n, first);
      else empty = this.putBackOneByOne(s, n, first);
    } finally {
      cpu.locks.unlock(listLock(n), LIST_LOCK_CLASS);
    }
    this.discardSlabs(s, empty);
  }

  /** list_lock held. Returns the empty slabs that the node has no use for, linked through NEXT. */
  private putBackOneByOne(s: CacheDesc, n: KmemCacheNodePtr, first: PagePtr): number {
    const { m } = this;
    let empty = 0;
    for (let page: number = first; page !== 0; ) {
      const next = m[page + NEXT]!;
      // Pairs with the last push: an empty slab is discarded, all its objects must be seen as free.
      const inuse = inuseOf(loadAcquire(m, page + SLAB_WORD));
      if (inuse === 0 && hasMinPartial(m, s, n)) {
        this.forgetSlab(n, page as PagePtr);
        m[page + NEXT] = empty;
        empty = page;
      } else {
        addPartialHead(m, n, page as PagePtr);
      }
      page = next;
    }
    return empty;
  }
}
