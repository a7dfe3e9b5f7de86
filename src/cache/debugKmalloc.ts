/** kmalloc in an arena with slabDebug: caches that keep the requested size are told it. */
import { GFP_KERNEL, NUMA_NO_NODE } from '../page/index.js';
import { tracksOrigSize } from '../slab/index.js';
import type { DebugKmemCache } from './debugCache.js';
import { KMALLOC_MAX_CACHE_SIZE, Kmallocs } from './kmalloc.js';

export class DebugKmallocs extends Kmallocs {
  override alloc(size: number, gfp: number = GFP_KERNEL, node: number = NUMA_NO_NODE): number {
    if (size > 0 && size <= KMALLOC_MAX_CACHE_SIZE && size === (size | 0)) {
      const cache = this.bucket(size);
      if (tracksOrigSize(cache.desc.flags)) return (cache as DebugKmemCache).allocRequested(size, gfp, node);
    }
    return super.alloc(size, gfp, node);
  }
}
