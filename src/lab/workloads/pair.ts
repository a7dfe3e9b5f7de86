/** Allocate and free at once: the least an operation can cost. Kernel: the pairs of slab_test.c. */
import type { ObjectHeap } from '../heaps.js';
import { OutOfArenaError, type Workload } from './workload.js';

function pairs(heap: ObjectHeap, m: Int32Array, n: number): void {
  for (let i = 0; i < n; i++) {
    const p = heap.alloc();
    if (p === 0) throw new OutOfArenaError();
    m[p >> 2] = i;
    heap.free(p);
  }
}

export const pair: Workload = {
  name: 'pair',
  about: 'allocate one object, free it',
  objectSize: 64,
  granule: 1,
  threadsPerOp: 1,
  prepare: ({ objects, i32 }, ops) => ({ allocs: ops, frees: ops, run: () => pairs(objects, i32, ops) }),
};
