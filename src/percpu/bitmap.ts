/**
 * Bitmaps in words of the arena: bit b of a map is bit b % 32 of its word b / 32. All of it runs under pcpu_lock, so the
 * accesses are plain.
 */
import type { Words } from '../struct/index.js';

/** Position of the lowest set bit of a word that is not 0. */
const lowestBit = (word: number): number => 31 - Math.clz32(word & -word);

/** The first bit in `[from, end)` that is not `flip`ped to 0 by an exclusive or, or `end`. */
function findNext(m: Words, map: number, from: number, end: number, flip: number): number {
  for (let bit = from; bit < end; bit = (bit | 31) + 1) {
    const word = (m[map + (bit >> 5)]! ^ flip) & (-1 << (bit & 31));
    if (word !== 0) return Math.min((bit & ~31) + lowestBit(word), end);
  }
  return end;
}

/** The first set bit in `[from, end)`, or `end`. */
export const findNextSet = (m: Words, map: number, from: number, end: number): number =>
  findNext(m, map, from, end, 0);

/** The first clear bit in `[from, end)`, or `end`. */
export const findNextZero = (m: Words, map: number, from: number, end: number): number =>
  findNext(m, map, from, end, -1);

/** The last set bit in `[begin, before)`, or `begin - 1`. */
export function findLastSet(m: Words, map: number, begin: number, before: number): number {
  for (let bit = before - 1; bit >= begin; bit = (bit & ~31) - 1) {
    const word = m[map + (bit >> 5)]! & (-1 >>> (31 - (bit & 31)));
    if (word !== 0) return Math.max((bit & ~31) + 31 - Math.clz32(word), begin - 1);
  }
  return begin - 1;
}

export const testBit = (m: Words, map: number, bit: number): boolean =>
  (m[map + (bit >> 5)]! & (1 << (bit & 31))) !== 0;

export function setBit(m: Words, map: number, bit: number): void {
  m[map + (bit >> 5)] = m[map + (bit >> 5)]! | (1 << (bit & 31));
}

/** Of the word that holds `bit`, the bits of `[bit, end)`. */
const maskUpTo = (bit: number, end: number): number => {
  const last = Math.min(end - 1, bit | 31);
  return (-1 << (bit & 31)) & (-1 >>> (31 - (last & 31)));
};

export function setBits(m: Words, map: number, from: number, end: number): void {
  for (let bit = from; bit < end; bit = (bit | 31) + 1) {
    m[map + (bit >> 5)] = m[map + (bit >> 5)]! | maskUpTo(bit, end);
  }
}

export function clearBits(m: Words, map: number, from: number, end: number): void {
  for (let bit = from; bit < end; bit = (bit | 31) + 1) {
    m[map + (bit >> 5)] = m[map + (bit >> 5)]! & ~maskUpTo(bit, end);
  }
}

/** How many bits of `[from, end)` are set. */
export function countBits(m: Words, map: number, from: number, end: number): number {
  let count = 0;
  for (let bit = from; bit < end; bit = (bit | 31) + 1) {
    let word = m[map + (bit >> 5)]! & maskUpTo(bit, end);
    for (; word !== 0; word &= word - 1) count++;
  }
  return count;
}
