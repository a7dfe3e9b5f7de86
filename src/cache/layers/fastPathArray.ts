/**
 * The fast paths of the layer `percpu-array`, with the same rules P1 to P4 as those of sheaves in fastPath.ts. They are
 * written out once more because V8 folds a function's `const`s only while there is one closure of it per arena.
 */
import type { Views } from '../../cpu/index.js';
import { __GFP_ZERO, GFP_KERNEL } from '../../page/index.js';
import { ONE_ALLOC, PercpuArray, SIZE_MASK } from '../../sheaf/index.js';
import type { CheckLevel } from '../../struct/index.js';
import { cmpxchgByte } from '../../sync/index.js';
import type { KmemCacheClass } from '../kmemCache.js';
import { ArrayKmemCache } from './percpuArray.js';

/** Call once per thread and arena. */
export function turnArrayClass(views: Views, nodes: number, check: CheckLevel): KmemCacheClass {
  const m = views.m;
  const shadow = views.shadow;
  const CHECKED = check !== 'none';
  const EXACT = check === 'full';
  const NUMA = nodes > 1;
  const USED = PercpuArray.used;
  const OBJECTS = PercpuArray.SIZEOF;
  const ONE = ONE_ALLOC;
  const MASK = SIZE_MASK;
  const ZERO = __GFP_ZERO;

  return class TurnArrayKmemCache extends ArrayKmemCache {
    override alloc(gfp: number = GFP_KERNEL): number {
      const zero = gfp & ZERO; // before anything is read: its conversion may throw, or allocate itself
      const array = this.main;
      const word = m[array + USED]!;
      const used = word & MASK;
      const next = (word + ONE) | 0;
      if (used === 0 || (next | m[this.request]!) < 0) return this.allocSlow(gfp);
      m[array + USED] = next;
      const p = m[array + OBJECTS - 1 + used]!;
      if (CHECKED) shadow[p >> 3] = this.tag;
      if (zero !== 0) this.zero(p);
      return p;
    }

    override free(p: number): void {
      const array = this.main;
      const word = m[array + USED]!;
      const used = word & MASK;
      const state = p >> 3;
      if (used === this.capacity) return this.freeSlow(p);
      if (CHECKED && ((shadow[state]! ^ this.tag) | (p & 7)) !== 0) return this.freeSlow(p);
      // Folded when p is a small integer; a fraction, a string or 2^32 + p would pass the line above.
      if (CHECKED && p !== (p | 0)) return this.freeSlow(p);
      if (NUMA && (p - this.nodeStart) >>> 0 >= this.nodeBytes) return this.freeSlow(p);
      if (EXACT && cmpxchgByte(shadow, state, this.tag, 0) !== this.tag) return this.freeSlow(p);
      m[array + OBJECTS + used] = p;
      m[array + USED] = word + 1;
      if (CHECKED && !EXACT) shadow[state] = 0;
    }

    override allocBulk(out: Int32Array, n: number, gfp: number = GFP_KERNEL): boolean {
      const zero = gfp & ZERO; // before anything is read: its conversion may throw, or allocate itself
      const array = this.main;
      const word = m[array + USED]!;
      const used = word & MASK;
      // The comparisons are false for NaN, and a fraction is not its own integer: such n go the slow way.
      const typed = out instanceof Int32Array;
      const fits = typed && n === (n | 0) && n > 0 && n <= used && n <= out.length;
      if (!fits || (word | m[this.request]!) < 0) return this.allocBulkSlow(out, n, gfp);
      const from = (array + OBJECTS + used - n) | 0;
      const tag = this.tag | 0;
      for (let i = 0; i < n; i = (i + 1) | 0) {
        const p = m[(from + i) | 0]!;
        out[i] = p;
        if (CHECKED) shadow[p >> 3] = tag;
      }
      m[array + USED] = (word + n * ONE) | 0;
      if (zero !== 0) this.zeroAll(out, n);
      return true;
    }

    override freeBulk(list: Int32Array, n: number): void {
      const array = this.main;
      const word = m[array + USED]!;
      const used = word & MASK;
      const typed = list instanceof Int32Array;
      const fits = typed && n === (n | 0) && n > 0 && n <= this.capacity - used && n <= list.length;
      if (!fits || EXACT || NUMA) return this.freeBulkSlow(list, n);
      const to = (array + OBJECTS + used) | 0;
      const tag = this.tag | 0;
      for (let i = 0; i < n; i = (i + 1) | 0) {
        const p = list[i]!;
        const state = p >> 3;
        if (CHECKED) {
          if (((shadow[state]! ^ tag) | (p & 7)) !== 0) return this.freeBulkUndo(list, n, i);
          shadow[state] = 0;
        }
        m[(to + i) | 0] = p;
      }
      m[array + USED] = word + n;
    }

    /** Entry `bad` of the list is no object: mark those before it as allocated again, then say what is wrong. */
    private freeBulkUndo(list: Int32Array, n: number, bad: number): void {
      for (let i = 0; i < bad; i++) shadow[list[i]! >> 3] = this.tag;
      this.freeBulkSlow(list, n);
    }
  };
}
