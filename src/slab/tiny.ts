/**
 * Slabs of a tiny arena, as kernels with CONFIG_SLUB_TINY have them: no speed is bought with memory or code. Objects come
 * and go one at a time under list_lock, and with minPartial 0 a slab goes back to the page allocator with its last object.
 */
import type { CacheDesc } from './kmemCache.js';
import { SlabAllocator } from './shrink.js';

export class TinySlabAllocator extends SlabAllocator {
  /** No push goes without list_lock, which the callers take now; in a restricted context they defer the free. */
  override pushChain(): boolean {
    return false;
  }

  /** Exactly `min`, one after the other. Kernel: `__kmem_cache_alloc_bulk`, and `alloc_single_from_partial` for each. */
  override refillObjects(
    s: CacheDesc,
    out: Int32Array,
    at: number,
    min: number,
    _max: number,
    gfp: number,
  ): number {
    const { node } = this.cpu;
    for (let got = 0; got < min; got++) {
      const p =
        this.getPartialNode(s, node) ||
        this.allocFromFreshSlab(s, gfp, node) ||
        this.getFromAnyPartial(s, node, gfp);
      if (p === 0) return got;
      out[at + got] = p;
    }
    return min;
  }
}
