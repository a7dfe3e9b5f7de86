/** One call for many objects. Kernel: slab_bulk_test01. */
import type { ObjectHeap } from '../heaps.js';
import { OutOfArenaError, type Workload } from './workload.js';

function bulks(heap: ObjectHeap, m: Int32Array, n: number, kept: Int32Array): void {
  const size = kept.length;
  for (let i = 0; i < n; i += size) {
    if (!heap.allocBulk(kept, size)) throw new OutOfArenaError();
    for (let j = 0; j < size; j++) m[kept[j]! >> 2] = i;
    heap.freeBulk(kept, size);
  }
}

export function bulk(size: number): Workload {
  return {
    name: `bulk-${size}`,
    about: `allocate ${size} objects with one call, free them with one`,
    objectSize: 64,
    granule: size,
    threadsPerOp: 1,
    prepare: ({ objects, i32 }, ops) => {
      const kept = new Int32Array(size);
      return { allocs: ops, frees: ops, run: () => bulks(objects, i32, ops, kept) };
    },
  };
}
