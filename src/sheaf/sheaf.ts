/**
 * A sheaf: a stack of free objects. It is in exactly one place:
 *
 *  - main, spare or rcu_free of one CPU;
 *  - the full or the empty list of one barn, or its queue of those that wait for a grace period;
 *  - the list of those that one thread has borrowed;
 *  - the hands of one CPU that is filling or flushing it.
 *
 * The size word. While a CPU holds its pcs lock, the size word of its main sheaf also counts allocations, so that
 * the fast path needs no counter of its own:
 *
 * | bits  | meaning                                                            |
 * |-------|--------------------------------------------------------------------|
 * | 0-15  | size: objects in the sheaf                                         |
 * | 16-30 | allocations since the last fold                                    |
 * | 31    | the count is full: the next allocation takes the slow path and folds |
 *
 * An allocation adds {@link ONE_ALLOC}, a free adds 1. Frees follow from the sizes: with `base` the size at the last
 * fold, frees = size - base + allocations. In every sheaf that is not a locked main the upper half is 0.
 *
 * The header is 16 bytes and an object 4, exactly half of the kernel's, so the capacities 60, 28, 12 and 4 fill their
 * kmalloc buckets to the last byte here too.
 */
import { type Ptr, struct, WORD_BYTES, type Words } from '../struct/index.js';

export const Sheaf = struct('slab_sheaf', {
  /** Next sheaf while in a barn, or while borrowed. */
  link: 1,
  cache: 1,
  size: 1,
  /** While it waits for a grace period, which one; while borrowed, how many objects it can hold. */
  node: 1,
});
export type SheafPtr = Ptr<'slab_sheaf'>;

/** Word of the first object, relative to the sheaf. */
export const SHEAF_OBJECTS = Sheaf.SIZEOF;

export const SIZE_MASK = 0xffff;
export const COUNT_SHIFT = 16;
/** What one allocation adds to the size word: one to the count, minus one to the size. */
export const ONE_ALLOC = (1 << COUNT_SHIFT) - 1;
export const SHEAF_CAPACITY_MAX = 4096;
/** Most objects that can be asked for at once: with its header such a sheaf fills a block of 256 KiB. */
export const PREFILL_MAX = SIZE_MASK + 1 - Sheaf.SIZEOF;

const { size: SIZE } = Sheaf;

export function sheafBytes(capacity: number): number {
  return (Sheaf.SIZEOF + capacity) * WORD_BYTES;
}

/** Objects in a sheaf, whoever holds it. */
export function sheafSize(m: Words, sheaf: SheafPtr): number {
  return m[sheaf + SIZE]! & SIZE_MASK;
}
