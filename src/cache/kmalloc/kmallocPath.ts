/**
 * The fast paths of kmalloc and kfree, made once per thread and arena for the same reason as those in fastPath.ts. They
 * find the cache by one load each: by the size, and by the mark that the object has in the shadow, which is its cache's.
 * What is not found there goes the way of all sizes and addresses.
 */
import type { Views } from '../../cpu/index.js';
import { GFP_KERNEL, NUMA_NO_NODE } from '../../page/index.js';
import type { Geometry } from '../../struct/index.js';
import type { KmemCache } from '../kmemCache.js';
import { KMALLOC_MAX_CACHE_SIZE, Kmallocs, type KmallocTable, kmallocIndex } from './kmalloc.js';
import { GFP_TYPE_MASK, GFP_TYPE_SHIFT, KMALLOC_SIZES, kmallocFamilies } from './kmallocTypes.js';

/** Marks are bytes. */
const MARKS = 256;

/**
 * The class of kmalloc in an arena that checks frees, and keeps no requested sizes. Call once per thread and arena; of its
 * instances the last that was bound is in use.
 */
export function hotKmallocs({ shadow }: Views, geometry: Geometry): typeof Kmallocs {
  const BYTES = geometry.bytes;
  const TYPED = kmallocFamilies(geometry).length > 1;
  const TYPE_SHIFT = GFP_TYPE_SHIFT;
  const TYPE_MASK = GFP_TYPE_MASK;
  const indexOf = kmallocIndex;
  const NO_NODE = NUMA_NO_NODE;
  const SIZE_MAX = KMALLOC_MAX_CACHE_SIZE;
  /** The normal ones by (size - 1) / 8. */
  const bySize: KmemCache[] = [];
  const byMark: Array<KmemCache | undefined> = [];

  return class HotKmallocs extends Kmallocs {
    override bind(firstSlot: number): void {
      super.bind(firstSlot);
      bySize.length = 0;
      byMark.length = 0;
      for (let mark = 0; mark < MARKS; mark++) byMark.push(undefined);
      for (const size of KMALLOC_SIZES) while (bySize.length < size / 8) bySize.push(this.bucket(size));
      for (const table of this.families) {
        for (const size of KMALLOC_SIZES) {
          const cache = table[indexOf(size)]!;
          byMark[cache.desc.tag] = cache;
        }
      }
    }

    override alloc(size: number, gfp: number = GFP_KERNEL, node: number = NUMA_NO_NODE): number {
      if (TYPED && ((gfp >> TYPE_SHIFT) & TYPE_MASK) !== 0) return this.allocFrom(this.rows, size, gfp, node);
      if (size > 0 && size <= SIZE_MAX && size === (size | 0) && node === NO_NODE) {
        return bySize[(size - 1) >> 3]!.alloc(gfp);
      }
      return super.alloc(size, gfp, node);
    }

    override allocFrom(rows: readonly KmallocTable[], size: number, gfp: number, node: number): number {
      if (size > 0 && size <= SIZE_MAX && size === (size | 0) && node === NO_NODE) {
        return rows[(gfp >> TYPE_SHIFT) & TYPE_MASK]![indexOf(size)]!.alloc(gfp);
      }
      return super.allocFrom(rows, size, gfp, node);
    }

    /** Whether the mark is right is for the cache to find out: an address within the object has none, or not this one. */
    override free(p: number): void {
      const cache = p === (p | 0) && p > 0 && p < BYTES ? byMark[shadow[p >> 3]!] : undefined;
      if (cache !== undefined) cache.free(p);
      else super.free(p);
    }
  };
}
