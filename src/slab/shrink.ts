/** Giving memory back: empty slabs to the page allocator, the others ordered so that the fullest are used first. */
import { Page, type PagePtr } from '../page/index.js';
import { LockClass, loadAcquire } from '../sync/index.js';
import { DebugSlabs } from './debugSlabs.js';
import { type CacheDesc, KmemCacheNode, listLock, nodeOf } from './kmemCache.js';
import { addPartialHead, removePartial } from './partialList.js';
import { inuseOf } from './slabWord.js';

const { slabWord: SLAB_WORD, objects: OBJECTS, next: NEXT } = Page;
const { head: HEAD, nrSlabs: NR_SLABS } = KmemCacheNode;

/** Slabs with at most this many free objects are sorted to the front. */
const SHRINK_PROMOTE_MAX = 32;

export class SlabAllocator extends DebugSlabs {
  private readonly buckets = new Int32Array(SHRINK_PROMOTE_MAX + 1);

  /**
   * Frees the node's empty slabs and sorts its partial list. Returns the number of slabs that remain on the node.
   * Kernel: `__kmem_cache_do_shrink`.
   */
  shrinkNode(s: CacheDesc, node: number): number {
    const { m, cpu } = this;
    const n = nodeOf(m, s, node);
    let empty = 0;
    cpu.locks.lock(listLock(n), LockClass.ListLock);
    try {
      empty = this.sortPartial(s, node);
    } finally {
      cpu.locks.unlock(listLock(n), LockClass.ListLock);
    }
    this.discardSlabs(s, empty);
    this.freeRipeSlabs(s, node);
    return m[n + NR_SLABS]!;
  }

  /** list_lock held. Returns the empty slabs, off the list, linked through NEXT. */
  private sortPartial(s: CacheDesc, node: number): number {
    const { m, buckets } = this;
    const n = nodeOf(m, s, node);
    let empty = 0;
    buckets.fill(0);
    for (let page = m[n + HEAD]!; page !== 0; ) {
      const next = m[page + NEXT]!;
      const objects = m[page + OBJECTS]!;
      // Pairs with the last push: an empty slab is discarded, all its objects must be seen as free.
      const free = objects - inuseOf(loadAcquire(m, page + SLAB_WORD));
      if (free === objects) {
        removePartial(m, n, page as PagePtr);
        this.forgetSlab(n, page as PagePtr);
        m[page + NEXT] = empty;
        empty = page;
      } else if (free <= SHRINK_PROMOTE_MAX) {
        removePartial(m, n, page as PagePtr);
        m[page + NEXT] = buckets[free]!;
        buckets[free] = page;
      }
      page = next;
    }
    for (let free = SHRINK_PROMOTE_MAX; free > 0; free--) {
      for (let page = buckets[free]!; page !== 0; ) {
        const next = m[page + NEXT]!;
        addPartialHead(m, n, page as PagePtr);
        page = next;
      }
    }
    return empty;
  }
}
