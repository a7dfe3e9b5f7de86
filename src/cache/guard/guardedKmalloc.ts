/**
 * kmalloc of an arena with guarded objects: one of so many calls for each size gets a block that lies alone in a page, with
 * canary from the last byte that was asked for on. Kernel: KFENCE, which is given the size of the request.
 */
import { __GFP_ZERO, checkGfp, GFP_KERNEL, NUMA_NO_NODE } from '../../page/index.js';
import { SLAB_GUARD } from '../../slab/index.js';
import { INIT_ON_ALLOC, requireInteger } from '../../struct/index.js';
import {
  cacheFor,
  KMALLOC_MAX_CACHE_SIZE,
  KMALLOC_MAX_SIZE,
  type Kmallocs,
  type KmallocTable,
  ZERO_SIZE_PTR,
} from '../kmalloc/kmalloc.js';
import type { KmemCache } from '../kmemCache.js';

/** The same kind of kmalloc with guarded blocks. */
export function withGuards(Base: typeof Kmallocs): typeof Kmallocs {
  return class GuardedKmallocs extends Base {
    override alloc(size: number, gfp: number = GFP_KERNEL, node: number = NUMA_NO_NODE): number {
      return this.allocFrom(this.rows, size, gfp, node);
    }

    override allocOwn(size: number, gfp: number = GFP_KERNEL, node: number = NUMA_NO_NODE): number {
      return super.allocFrom(this.rows, size, gfp, node);
    }

    override allocFrom(rows: readonly KmallocTable[], size: number, gfp: number, node: number): number {
      if (size > 0 && size <= KMALLOC_MAX_CACHE_SIZE && size === (size | 0)) {
        const cache = cacheFor(rows, size, gfp);
        if ((cache.desc.flags & SLAB_GUARD) !== 0) {
          const p = cache.allocRequested(size, gfp, node);
          this.setRequested(cache, p, size);
          return p;
        }
      }
      return super.allocFrom(rows, size, gfp, node);
    }

    /** Of a guarded block its slot knows it. */
    override setRequested(cache: KmemCache, p: number, size: number): void {
      if (!this.caches.guards.owns(p)) super.setRequested(cache, p, size);
    }

    /** A guarded block stays where it is up to the size of its cache's objects, and what guards it moves. */
    override realloc(p: number, size: number, gfp: number = GFP_KERNEL): number {
      const { guards, geometry, views } = this.caches;
      const cache = guards.owns(p) ? this.cacheOf(p) : undefined;
      if (cache === undefined) return super.realloc(p, size, gfp);
      requireInteger('size', size, 0, KMALLOC_MAX_SIZE);
      checkGfp(gfp);
      cache.assertAllocated(p);
      if (size === 0) {
        cache.free(p);
        return ZERO_SIZE_PTR;
      }
      if (size <= cache.objectSize) {
        const zero = (gfp & __GFP_ZERO) !== 0 || (geometry.init & INIT_ON_ALLOC) !== 0;
        guards.resize(cache.desc, p, size, zero);
        return p;
      }
      const fresh = this.alloc(size, gfp);
      if (fresh === 0) return 0;
      views.u8.copyWithin(fresh, p, p + guards.bytesOf(p));
      cache.free(p);
      return fresh;
    }
  };
}
