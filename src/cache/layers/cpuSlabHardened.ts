/**
 * Layer 'cpu-slab' in an arena with `freelistHardened`. The paths are those of cpuSlabPath.ts and cpuSlabCache.ts, but that
 * links are encoded and checked; batches go object by object.
 */
import { CpuSlab, type Views } from '../../cpu/index.js';
import { __GFP_ZERO, GFP_KERNEL } from '../../page/index.js';
import type { CheckLevel } from '../../struct/index.js';
import { cmpxchgByte } from '../../sync/index.js';
import type { KmemCacheClass } from '../kmemCache.js';
import { CpuSlabKmemCache } from './cpuSlabCache.js';

class HardenedCpuSlabKmemCache extends CpuSlabKmemCache {
  protected override nextFree(p: number): number {
    return this.slabs.getFreepointer(this.desc, p);
  }

  /** Throws SlabBugError when the object is the head of the freelist already. */
  protected override linkFree(p: number, next: number): void {
    this.slabs.setFreepointer(this.desc, p, next);
  }
}

export function hardenedCpuSlabClass(views: Views, turn: boolean, check: CheckLevel): KmemCacheClass {
  if (!turn) return HardenedCpuSlabKmemCache;
  const { m, shadow } = views;
  const CHECKED = check !== 'none';
  const EXACT = check === 'full';
  const { freelist: FREELIST, slabStart: START, slabBytes: BYTES, allocs: ALLOCS, frees: FREES } = CpuSlab;

  // C1 to C4 of cpuSlabPath.ts.
  return class TurnHardenedCpuSlabKmemCache extends HardenedCpuSlabKmemCache {
    override alloc(gfp: number = GFP_KERNEL): number {
      const zero = gfp & __GFP_ZERO; // before anything is read: its conversion may throw, or allocate itself
      const c = this.hot;
      const p = m[c + FREELIST]!;
      const allocs = (m[c + ALLOCS]! + 1) | 0;
      if (p === 0 || (allocs | m[this.request]!) < 0) return this.allocSlow(gfp);
      m[c + FREELIST] = this.nextFree(p);
      m[c + ALLOCS] = allocs;
      if (CHECKED) shadow[p >> 3] = this.tag;
      if (zero !== 0) this.zero(p);
      return p;
    }

    override free(p: number): void {
      const c = this.hot;
      const state = p >> 3;
      if ((p - m[c + START]!) >>> 0 >= m[c + BYTES]!) return this.freeSlow(p);
      if (CHECKED && ((shadow[state]! ^ this.tag) | (p & 7)) !== 0) return this.freeSlow(p);
      if (CHECKED && p !== (p | 0)) return this.freeSlow(p);
      if (EXACT && cmpxchgByte(shadow, state, this.tag, 0) !== this.tag) return this.freeSlow(p);
      this.linkFree(p, m[c + FREELIST]!);
      m[c + FREELIST] = p;
      m[c + FREES] = (m[c + FREES]! + 1) | 0;
      if (CHECKED && !EXACT) shadow[state] = 0;
    }
  };
}
