/**
 * The fast paths. They are methods of a class that a factory makes once per thread and arena, because V8 folds the
 * `const`s of a function that ran once: the word view with its address and length, the shadow, and the options that
 * would otherwise be branches.
 *
 * What they do is the kernel's alloc_from_pcs and free_to_pcs with nothing left but loads and stores on memory that
 * this thread owns under its pcs lock:
 *
 *  P1  While the lock is not ours, `main` is the bootstrap sheaf (size 0) and `capacity` 0: both paths miss.
 *  P2  alloc: one size word tells size and count; its sign after adding ONE_ALLOC is a full count, the sign of the
 *      request word another CPU's wish. Both in one branch.
 *  P3  free: the shadow byte tells in one comparison that the address is the start of an object, of this cache, and
 *      allocated.
 *  P4  A free stores the object before it clears the shadow: a thread that dies between the two leaves an object that
 *      is in a sheaf and marked, which the reaper clears; the other order would lose it. With `check: 'full'` the
 *      compare-exchange must come first, and such a death loses that object.
 *  P5  freeBulk clears the shadow first, to see an object that is in the list twice, and stores the size word once, at
 *      the end. To store it in each round would lose nothing to a death in between, but costs every batch more than an
 *      intent on record, by which the reaper says that there may be a loss.
 */
import { Pcs, Stat, ThreadRecord, type Views } from '../cpu/index.js';
import { __GFP_ZERO, GFP_KERNEL } from '../page/index.js';
import { ONE_ALLOC, SHEAF_OBJECTS, Sheaf, SIZE_MASK } from '../sheaf/index.js';
import type { CheckLevel } from '../struct/index.js';
import { cmpxchgByte, Intent, LockRecord } from '../sync/index.js';
import { BulkKmemCache } from './bulk.js';
import type { KmemCacheClass } from './kmemCache.js';

export function turnClass(views: Views, nodes: number, check: CheckLevel): KmemCacheClass {
  const m = views.m;
  const shadow = views.shadow;
  const CHECKED = check !== 'none';
  const EXACT = check === 'full';
  const NUMA = nodes > 1;
  const SIZE = Sheaf.size;
  const OBJECTS = SHEAF_OBJECTS;
  const ONE = ONE_ALLOC;
  const MASK = SIZE_MASK;
  const ZERO = __GFP_ZERO;
  const RCU_FREE = Pcs.rcuFree;
  const { FREE_RCU_SHEAF } = Stat;
  const INTENT = ThreadRecord.locks;
  const { intentDepth: DEPTH, intentOp: OP, intentSlot: SLOT } = LockRecord;
  const { BULK_PUSH } = Intent;

  return class TurnKmemCache extends BulkKmemCache {
    override alloc(gfp: number = GFP_KERNEL): number {
      const zero = gfp & ZERO; // before anything is read: its conversion may throw, or allocate itself
      const sheaf = this.main;
      const word = m[sheaf + SIZE]!;
      const size = word & MASK;
      const next = (word + ONE) | 0;
      if (size === 0 || (next | m[this.request]!) < 0) return this.allocSlow(gfp);
      m[sheaf + SIZE] = next;
      const p = m[sheaf + OBJECTS - 1 + size]!;
      if (CHECKED) shadow[p >> 3] = this.tag;
      if (zero !== 0) this.zero(p);
      return p;
    }

    override free(p: number): void {
      const sheaf = this.main;
      const word = m[sheaf + SIZE]!;
      const size = word & MASK;
      const state = p >> 3;
      if (size === this.capacity) return this.freeSlow(p);
      if (CHECKED && ((shadow[state]! ^ this.tag) | (p & 7)) !== 0) return this.freeSlow(p);
      // Folded when p is a small integer; a fraction, a string or 2^32 + p would pass the line above.
      if (CHECKED && p !== (p | 0)) return this.freeSlow(p);
      if (NUMA && (p - this.nodeStart) >>> 0 >= this.nodeBytes) return this.freeSlow(p);
      if (EXACT && cmpxchgByte(shadow, state, this.tag, 0) !== this.tag) return this.freeSlow(p);
      m[sheaf + OBJECTS + size] = p;
      m[sheaf + SIZE] = word + 1;
      if (CHECKED && !EXACT) shadow[state] = 0;
    }

    /** P4 holds here too. The last place of the sheaf is the slow path's, which submits it. */
    override freeRcu(p: number, head?: number): void {
      const sheaf = m[this.pcs + RCU_FREE]!;
      const size = m[sheaf + SIZE]!;
      const state = p >> 3;
      if (EXACT || sheaf === 0 || size + 1 >= this.capacity || head !== undefined)
        return super.freeRcu(p, head);
      if (CHECKED && ((shadow[state]! ^ this.tag) | (p & 7)) !== 0) return super.freeRcu(p);
      if (CHECKED && p !== (p | 0)) return super.freeRcu(p);
      if (NUMA && (p - this.nodeStart) >>> 0 >= this.nodeBytes) return super.freeRcu(p);
      m[sheaf + OBJECTS + size] = p;
      m[sheaf + SIZE] = size + 1;
      if (CHECKED) shadow[state] = 0;
      this.count(FREE_RCU_SHEAF);
    }

    override allocBulk(out: Int32Array, n: number, gfp: number = GFP_KERNEL): boolean {
      const zero = gfp & ZERO; // before anything is read: its conversion may throw, or allocate itself
      const sheaf = this.main;
      const word = m[sheaf + SIZE]!;
      const size = word & MASK;
      // The comparisons are false for NaN, and a fraction is not its own integer: such n go the slow way.
      const typed = out instanceof Int32Array; // inlined; `constructor` would be a call
      const fits = typed && n === (n | 0) && n > 0 && n <= size && n <= out.length;
      if (!fits || (word | m[this.request]!) < 0) return this.allocBulkSlow(out, n, gfp);
      const from = (sheaf + OBJECTS + size - n) | 0;
      const tag = this.tag | 0;
      for (let i = 0; i < n; i = (i + 1) | 0) {
        const p = m[(from + i) | 0]!;
        out[i] = p;
        if (CHECKED) shadow[p >> 3] = tag;
      }
      m[sheaf + SIZE] = (word + n * ONE) | 0;
      if (zero !== 0) this.zeroAll(out, n);
      return true;
    }

    override freeBulk(list: Int32Array, n: number): void {
      const sheaf = this.main;
      const word = m[sheaf + SIZE]!;
      const size = word & MASK;
      const typed = list instanceof Int32Array;
      const fits = typed && n === (n | 0) && n > 0 && n <= this.capacity - size && n <= list.length;
      const intent = (this.request + INTENT) | 0;
      if (!fits || EXACT || NUMA || m[intent + DEPTH] !== 0) return this.freeBulkSlow(list, n);
      m[intent + SLOT] = this.desc.slot;
      m[intent + OP] = BULK_PUSH;
      m[intent + DEPTH] = 1; // P5
      const to = (sheaf + OBJECTS + size) | 0;
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
      m[sheaf + SIZE] = word + n;
      m[intent + DEPTH] = 0;
    }

    /** Entry `bad` of the list is no object: mark those before it as allocated again, then say what is wrong. */
    private freeBulkUndo(list: Int32Array, n: number, bad: number): void {
      for (let i = 0; i < bad; i++) shadow[list[i]! >> 3] = this.tag;
      m[this.request + INTENT + DEPTH] = 0;
      this.freeBulkSlow(list, n);
    }
  };
}
