/** Allocate a batch, then free it, in order or shuffled: what exceeds a sheaf must go to barn and slabs. */
import type { ObjectHeap } from '../heaps.js';
import { OutOfArenaError, seedFor, shuffle, type Workload } from './workload.js';

function batches(heap: ObjectHeap, m: Int32Array, n: number, kept: Int32Array): void {
  const size = kept.length;
  for (let i = 0; i < n; i += size) {
    for (let j = 0; j < size; j++) {
      const p = heap.alloc();
      if (p === 0) throw new OutOfArenaError();
      m[p >> 2] = i;
      kept[j] = p;
    }
    for (let j = 0; j < size; j++) heap.free(kept[j]!);
  }
}

function shuffledBatches(
  heap: ObjectHeap,
  m: Int32Array,
  n: number,
  kept: Int32Array,
  order: Int32Array,
): void {
  const size = kept.length;
  for (let i = 0; i < n; i += size) {
    for (let j = 0; j < size; j++) {
      const p = heap.alloc();
      if (p === 0) throw new OutOfArenaError();
      m[p >> 2] = i;
      kept[j] = p;
    }
    for (let j = 0; j < size; j++) heap.free(kept[order[j]!]!);
  }
}

const common = { objectSize: 64, threadsPerOp: 1 };

export function batch(size: number): Workload {
  return {
    ...common,
    name: `batch-${size}`,
    about: `allocate ${size} objects, free them in the same order`,
    granule: size,
    prepare: ({ objects, i32 }, ops) => {
      const kept = new Int32Array(size);
      return { allocs: ops, frees: ops, run: () => batches(objects, i32, ops, kept) };
    },
  };
}

export function shuffledBatch(size: number): Workload {
  return {
    ...common,
    name: `shuffled-${size}`,
    about: `allocate ${size} objects, free them in a random order`,
    granule: size,
    prepare: ({ objects, i32, seed, rank }, ops) => {
      const kept = new Int32Array(size);
      const order = shuffle(
        Int32Array.from({ length: size }, (_, i) => i),
        seedFor(seed, rank),
      );
      return { allocs: ops, frees: ops, run: () => shuffledBatches(objects, i32, ops, kept, order) };
    },
  };
}
