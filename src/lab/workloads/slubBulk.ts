/**
 * Allocations from slabs that are made for them: batches of as many objects as a slab has, all alive until the end.
 * Only the allocations are timed. Kernel: slub_bulk_bench.
 */
import type { ObjectHeap } from '../heaps.js';
import { OutOfArenaError, type Workload } from './workload.js';

/** The kernel's takes 256 MiB; an arena that all variants have is smaller. */
const BYTES = 8 << 20;
/** No slab has more. */
const BATCH_MAX = 4096;

function fill(heap: ObjectHeap, batches: readonly Int32Array[]): void {
  for (let i = 0; i < batches.length; i++) {
    const list = batches[i]!;
    if (!heap.allocBulk(list, list.length)) throw new OutOfArenaError();
  }
}

/** Views of one list, a batch each. */
function cut(kept: Int32Array, size: number): Int32Array[] {
  const batches: Int32Array[] = [];
  for (let at = 0; at < kept.length; at += size) {
    batches.push(kept.subarray(at, Math.min(kept.length, at + size)));
  }
  return batches;
}

export function slubBulk(size: number): Workload {
  return {
    name: `slub-bulk-${size}`,
    about: `allocate objects of ${size} bytes, a slab's at a time, and keep them; frees are not timed`,
    objectSize: size,
    granule: 1,
    opsMax: BYTES / size,
    threadsPerOp: 1,
    prepare: ({ objects }, ops) => {
      const kept = new Int32Array(ops);
      const batches = cut(kept, Math.min(BATCH_MAX, objects.objsPerSlab));
      return {
        allocs: ops,
        frees: ops,
        run: () => fill(objects, batches),
        drain: () => {
          for (const list of batches) objects.freeBulk(list, list.length);
        },
      };
    },
  };
}
