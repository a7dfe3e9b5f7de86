/** All kmalloc sizes from 8 to 8192 bytes, small ones more often, in a window of live blocks per thread. */
import { KMALLOC_MAX_CACHE_SIZE } from '../../cache/index.js';
import type { SizedHeap } from '../heaps.js';
import { OutOfArenaError, seedFor, type Workload, xorshift32 } from './workload.js';

const WINDOW = 1024;
/** Sizes are drawn before the clock starts; the loop goes round this list. */
const DRAWN = 4096;
const SIZE_MIN = 8;
/** Each doubling of the size is so much rarer than the one before. */
const RARER = 0.6;

/** Draws sizes: first the octave, then evenly within it. */
export function drawSizes(seed: number): Int32Array {
  let x = seed;
  const next = (): number => {
    x = xorshift32(x);
    return (x >>> 0) / 2 ** 32;
  };
  return Int32Array.from({ length: DRAWN }, () => {
    let top = SIZE_MIN;
    while (top < KMALLOC_MAX_CACHE_SIZE && next() < RARER) top *= 2;
    const bottom = top === SIZE_MIN ? 0 : top / 2;
    return bottom + 1 + Math.floor(next() * (top - bottom));
  });
}

function replace(
  heap: SizedHeap,
  m: Int32Array,
  live: Int32Array,
  sizes: Int32Array,
  n: number,
  seed: number,
): void {
  let x = seed;
  for (let i = 0; i < n; i++) {
    x = xorshift32(x);
    const slot = x & (WINDOW - 1);
    heap.kfree(live[slot]!);
    const p = heap.kmalloc(sizes[i & (DRAWN - 1)]!);
    if (p === 0) throw new OutOfArenaError();
    m[p >> 2] = i;
    live[slot] = p;
  }
}

export const mixed: Workload = {
  name: 'mixed',
  about: `replace random ones of ${WINDOW} blocks of 8 to 8192 bytes, small ones more often`,
  granule: 1,
  threadsPerOp: 1,
  prepare: ({ blocks, i32, seed, rank }, ops) => {
    const start = seedFor(seed, rank);
    const sizes = drawSizes(start);
    const live = new Int32Array(WINDOW);
    return {
      allocs: WINDOW + ops,
      frees: WINDOW + ops,
      fill: () => {
        for (let i = 0; i < WINDOW; i++) {
          live[i] = blocks.kmalloc(sizes[i]!);
          if (live[i] === 0) throw new OutOfArenaError();
        }
      },
      run: () => replace(blocks, i32, live, sizes, ops, start),
      drain: () => {
        for (let i = 0; i < WINDOW; i++) blocks.kfree(live[i]!);
      },
    };
  },
};
