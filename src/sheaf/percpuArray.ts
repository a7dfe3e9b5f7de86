/**
 * The per-CPU array of seed 003, the design that sheaves replaced: one stack of free objects per CPU and cache, that
 * never changes hands. When it is empty, half of it is fetched from the slabs; when it is full, half goes back.
 *
 * It hangs on the `main` word of the pcs and begins as a sheaf does, with `used` where that has `size`, so that lock,
 * counting and fast paths are those of a main sheaf; the word has the same two halves (see sheaf.ts) while the lock is
 * held.
 */
import { LINE_WORDS, type Ptr, struct, WORD_BYTES } from '../struct/index.js';

export const PercpuArray = struct('slub_percpu_array', {
  unused: 1,
  cache: 1,
  /** Objects in it. */
  used: 1,
  /** Objects it holds at most. */
  count: 1,
});
export type PercpuArrayPtr = Ptr<'slub_percpu_array'>;

/** What the lower half of the word leaves room for, by far. */
export const ARRAY_SIZE_MAX = 16384;

/** Objects that are moved in or out at once, as many as the kernel's stack has room for. */
export const ARRAY_BATCH_MAX = 32;

/** Whole lines: two CPUs' arrays share none. */
export function percpuArrayBytes(count: number): number {
  return Math.ceil((PercpuArray.SIZEOF + count) / LINE_WORDS) * LINE_WORDS * WORD_BYTES;
}
