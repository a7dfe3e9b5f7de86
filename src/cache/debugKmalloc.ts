/** kmalloc in an arena with slabDebug: caches that keep the requested size are told it. */
import { GFP_KERNEL, NUMA_NO_NODE } from '../page/index.js';
import { tracksOrigSize } from '../slab/index.js';
import type { DebugKmemCache } from './debugCache.js';
import { cacheFor, KMALLOC_MAX_CACHE_SIZE, Kmallocs, type KmallocTable } from './kmalloc.js';

export class DebugKmallocs extends Kmallocs {
  override alloc(size: number, gfp: number = GFP_KERNEL, node: number = NUMA_NO_NODE): number {
    return this.allocFrom(this.rows, size, gfp, node);
  }

  override allocFrom(rows: readonly KmallocTable[], size: number, gfp: number, node: number): number {
    if (size > 0 && size <= KMALLOC_MAX_CACHE_SIZE && size === (size | 0)) {
      const cache = cacheFor(rows, size, gfp);
      if (tracksOrigSize(cache.desc.flags)) return (cache as DebugKmemCache).allocRequested(size, gfp, node);
    }
    return super.allocFrom(rows, size, gfp, node);
  }
}
