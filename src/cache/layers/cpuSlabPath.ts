/**
 * The fast paths of layer 'cpu-slab', in a class that is made once per thread and arena, for the reasons that
 * fastPath.ts gives. They are plain loads and stores on this CPU's line and on free objects, under its pcs lock:
 *
 *  C1  While the lock is not ours, `hot` is a line of zeros: no freelist, and a slab of 0 bytes. Both paths miss.
 *  C2  alloc: the sign of the allocation count is a full count, the sign of the request word another CPU's wish.
 *  C3  free: one unsigned comparison with the cpu slab's range; then the shadow byte, as for sheaves.
 *  C4  A free is on the freelist before its shadow is cleared: a thread that dies between the two leaves an object that
 *      is free and marked, which the reaper clears. With `check: 'full'` it is lost, as P4 says.
 */
import { CpuSlab, type Views } from '../../cpu/index.js';
import { __GFP_ZERO, GFP_KERNEL } from '../../page/index.js';
import type { CheckLevel } from '../../struct/index.js';
import { cmpxchgByte } from '../../sync/index.js';
import type { KmemCacheClass } from '../kmemCache.js';
import { CpuSlabKmemCache } from './cpuSlabCache.js';

export function turnCpuSlabClass(views: Views, check: CheckLevel): KmemCacheClass {
  const m = views.m;
  const shadow = views.shadow;
  const CHECKED = check !== 'none';
  const EXACT = check === 'full';
  const FREELIST = CpuSlab.freelist;
  const START = CpuSlab.slabStart;
  const BYTES = CpuSlab.slabBytes;
  const ALLOCS = CpuSlab.allocs;
  const FREES = CpuSlab.frees;
  const ZERO = __GFP_ZERO;

  return class TurnCpuSlabKmemCache extends CpuSlabKmemCache {
    override alloc(gfp: number = GFP_KERNEL): number {
      const zero = gfp & ZERO; // before anything is read: its conversion may throw, or allocate itself
      const c = this.hot;
      const p = m[c + FREELIST]!;
      const allocs = (m[c + ALLOCS]! + 1) | 0;
      if (p === 0 || (allocs | m[this.request]!) < 0) return this.allocSlow(gfp);
      m[c + FREELIST] = m[(p + this.linkAt) >> 2]!;
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
      // Folded when p is a small integer; a fraction or a string would pass the line above.
      if (CHECKED && p !== (p | 0)) return this.freeSlow(p);
      if (EXACT && cmpxchgByte(shadow, state, this.tag, 0) !== this.tag) return this.freeSlow(p);
      m[(p + this.linkAt) >> 2] = m[c + FREELIST]!;
      m[c + FREELIST] = p;
      m[c + FREES] = (m[c + FREES]! + 1) | 0;
      if (CHECKED && !EXACT) shadow[state] = 0;
    }

    override allocBulk(out: Int32Array, n: number, gfp: number = GFP_KERNEL): boolean {
      const zero = gfp & ZERO; // before anything is read: its conversion may throw, or allocate itself
      const c = this.hot;
      const typed = out instanceof Int32Array;
      const fits = typed && n === (n | 0) && n > 0 && n <= out.length;
      const allocs = (m[c + ALLOCS]! + n) | 0;
      if (!fits || (allocs | m[this.request]!) < 0) return this.allocBulkSlow(out, n, gfp);
      const link = this.linkAt | 0;
      const tag = this.tag | 0;
      let p = m[c + FREELIST]!;
      for (let i = 0; i < n; i = (i + 1) | 0) {
        if (p === 0) return this.allocBulkSlow(out, n, gfp); // nothing has changed yet
        out[i] = p;
        p = m[(p + link) >> 2]!;
      }
      m[c + FREELIST] = p;
      m[c + ALLOCS] = allocs;
      if (CHECKED) for (let i = 0; i < n; i = (i + 1) | 0) shadow[out[i]! >> 3] = tag;
      if (zero !== 0) this.zeroAll(out, n);
      return true;
    }

    override freeBulk(list: Int32Array, n: number): void {
      const c = this.hot;
      const typed = list instanceof Int32Array;
      const fits = typed && n === (n | 0) && n > 0 && n <= list.length;
      if (!fits || EXACT) return this.freeBulkSlow(list, n);
      const start = m[c + START]!;
      const bytes = m[c + BYTES]!;
      const link = this.linkAt | 0;
      const tag = this.tag | 0;
      for (let i = 0; i < n; i = (i + 1) | 0) {
        const p = list[i]!;
        const own = (p - start) >>> 0 < bytes;
        if (!own || (CHECKED && ((shadow[p >> 3]! ^ tag) | (p & 7)) !== 0)) {
          return this.freeBulkUndo(list, n, i);
        }
        if (CHECKED) shadow[p >> 3] = 0;
      }
      let head = m[c + FREELIST]!;
      for (let i = 0; i < n; i = (i + 1) | 0) {
        const p = list[i]!;
        m[(p + link) >> 2] = head;
        head = p;
      }
      m[c + FREELIST] = head;
      m[c + FREES] = (m[c + FREES]! + n) | 0;
    }

    /** Entry `other` of the list is not one of the cpu slab, or no object: mark those before it again, start over. */
    private freeBulkUndo(list: Int32Array, n: number, other: number): void {
      if (CHECKED) for (let i = 0; i < other; i++) shadow[list[i]! >> 3] = this.tag;
      this.freeBulkSlow(list, n);
    }
  };
}
