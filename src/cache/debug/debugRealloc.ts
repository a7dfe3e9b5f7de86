/** krealloc of an object whose requested size is kept: what was not asked for before is zeroed, or red zone. */
import { __GFP_ZERO, NUMA_NO_NODE } from '../../page/index.js';
import { origSize } from '../../slab/index.js';
import { INIT_ON_ALLOC } from '../../struct/index.js';
import type { Caches } from '../caches.js';
import type { DebugKmemCache } from './debugCache.js';

/** Returns the object, moved if the new size needs it, or 0 with the old one as it was. Kernel: `__do_krealloc`. */
export function reallocRequested(
  caches: Caches,
  cache: DebugKmemCache,
  p: number,
  size: number,
  gfp: number,
): number {
  const { desc } = cache;
  const { u8, m } = caches.views;
  const { checks } = caches.slabs;
  const before = origSize(m, desc, p);
  if (size > desc.objectSize) {
    const fresh = caches.kmallocs.alloc(size, gfp, NUMA_NO_NODE);
    if (fresh === 0) return 0;
    u8.copyWithin(fresh, p, p + before);
    cache.free(p);
    return fresh;
  }
  if ((gfp & __GFP_ZERO) !== 0 || (caches.geometry.init & INIT_ON_ALLOC) !== 0) {
    if (before < size) u8.fill(0, p + before, p + size);
  }
  checks.setOrigSize(desc, p, size);
  checks.initKmallocRedzone(desc, p);
  return p;
}
