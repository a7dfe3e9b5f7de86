/** kmalloc in an arena with slabDebug: caches that keep the requested size are told it. */
import { GFP_KERNEL, NUMA_NO_NODE } from '../../page/index.js';
import { isDebug, tracksOrigSize } from '../../slab/index.js';
import { cacheFor, KMALLOC_MAX_CACHE_SIZE, Kmallocs, type KmallocTable } from '../kmalloc/kmalloc.js';
import type { KmemCache } from '../kmemCache.js';
import type { DebugKmemCache } from './debugCache.js';

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

  /** Who asks may use all of it: what was red zone is the object's from now on. Kernel: `skip_orig_size_check`. */
  override ksize(p: number): number {
    const bytes = super.ksize(p);
    const cache = this.cacheOf(p);
    if (cache !== undefined && tracksOrigSize(cache.desc.flags)) {
      this.caches.slabs.checks.setOrigSize(cache.desc, p, bytes);
    }
    return bytes;
  }

  /** Behind it the object is red zone: for who could not say beforehand how much it wants. */
  override setRequested(cache: KmemCache, p: number, size: number): void {
    super.setRequested(cache, p, size);
    if (p !== 0 && cache.desc.origSize !== 0 && isDebug(cache.desc)) {
      this.caches.slabs.checks.initKmallocRedzone(cache.desc, p);
    }
  }
}
