/** Blocks of mixed sizes, freed one by one or with one call. Kernel: slab_bulk_test05. */
import type { SizedHeap } from '../heaps.js';
import { drawSizes } from './mixed.js';
import { OutOfArenaError, seedFor, type Workload } from './workload.js';

export const KFREE_BULK_SIZES: readonly number[] = [1, 16, 64, 250];

/** Allocates `kept.length` blocks, whose sizes begin at number `at`. */
function fill(heap: SizedHeap, m: Int32Array, kept: Int32Array, sizes: Int32Array, at: number): void {
  for (let i = 0; i < kept.length; i++) {
    const p = heap.kmalloc(sizes[(at + i) % sizes.length]!);
    if (p === 0) throw new OutOfArenaError();
    m[p >> 2] = at;
    kept[i] = p;
  }
}

const WAYS = {
  each: (heap: SizedHeap, kept: Int32Array): void => {
    for (let i = 0; i < kept.length; i++) heap.kfree(kept[i]!);
  },
  bulk: (heap: SizedHeap, kept: Int32Array): void => heap.kfreeBulk(kept, kept.length),
} as const;

export function kfreeBulk(way: keyof typeof WAYS, size: number): Workload {
  return {
    name: `kfree-${way}-${size}`,
    about: `allocate ${size} blocks of 8 to 8192 bytes, free ${way === 'bulk' ? 'them with one call' : 'each'}`,
    granule: size,
    threadsPerOp: 1,
    prepare: ({ blocks, i32, seed, rank }, ops) => {
      const sizes = drawSizes(seedFor(seed, rank));
      const kept = new Int32Array(size);
      const free = WAYS[way];
      return {
        allocs: ops,
        frees: ops,
        run: () => {
          for (let i = 0; i < ops; i += size) {
            fill(blocks, i32, kept, sizes, i);
            free(blocks, kept);
          }
        },
      };
    },
  };
}
