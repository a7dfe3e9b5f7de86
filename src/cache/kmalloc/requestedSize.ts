/**
 * Caches of kmalloc that keep requested sizes. kmalloc notes the size once it has an object; an object that is taken
 * straight from such a cache was asked for whole, and must not keep what kmalloc's last user of it asked for.
 */
import { GFP_KERNEL, NUMA_NO_NODE } from '../../page/index.js';
import { SHEAF_OBJECTS } from '../../sheaf/index.js';
import type { BulkKmemCache } from '../bulk.js';
import type { KmemCacheClass } from '../kmemCache.js';
import type { PrefilledSheaf } from '../prefilledSheaf.js';

/** Call once per thread and arena, as for the classes that it extends. Kernel: the size that `slab_alloc_node` is given. */
export function trackingClass(base: KmemCacheClass): KmemCacheClass {
  // Every layer's class is one of these; KmemCacheClass says less than that.
  const Base = base as new (...args: ConstructorParameters<KmemCacheClass>) => BulkKmemCache;
  return class TrackingKmemCache extends Base {
    override alloc(gfp: number = GFP_KERNEL): number {
      return this.whole(super.alloc(gfp));
    }

    override allocNode(node: number, gfp: number = GFP_KERNEL): number {
      return node === NUMA_NO_NODE ? this.alloc(gfp) : this.whole(super.allocNode(node, gfp));
    }

    override allocNolock(gfp: number): number {
      return this.whole(super.allocNolock(gfp));
    }

    override allocBulk(out: Int32Array, n: number, gfp: number = GFP_KERNEL): boolean {
      if (!super.allocBulk(out, n, gfp)) return false;
      for (let i = 0; i < n; i++) this.whole(out[i]!);
      return true;
    }

    override prefill(n: number, gfp: number = GFP_KERNEL): PrefilledSheaf | null {
      return this.wholeSheaf(super.prefill(n, gfp));
    }

    override refill(sheaf: PrefilledSheaf, n: number, gfp: number = GFP_KERNEL): PrefilledSheaf | null {
      return this.wholeSheaf(super.refill(sheaf, n, gfp));
    }

    private whole(p: number): number {
      if (p !== 0) this.m[(p + this.desc.origSize) >> 2] = this.desc.objectSize;
      return p;
    }

    /** Before they are handed out: a borrowed sheaf's alloc knows nothing but the sheaf. */
    private wholeSheaf(sheaf: PrefilledSheaf | null): PrefilledSheaf | null {
      if (sheaf !== null)
        for (let i = 0; i < sheaf.size; i++) this.whole(this.m[sheaf.at + SHEAF_OBJECTS + i]!);
      return sheaf;
    }
  };
}
