/**
 * Memory that runs out: objects of 1 KiB, up to 128 a call, until there are no more; then ever smaller calls, until not
 * even one is left; then all are freed, and it begins anew. Kernel: slab_bulk_test04.
 */
import { GranaryError } from '../../struct/index.js';
import type { ObjectHeap } from '../heaps.js';
import type { Workload } from './workload.js';

const OBJECT = 1024;
const BULK_MAX = 128;
/** More than fit into an arena of 8 MiB: a run there that allocates as many has run out of memory. */
const GRANULE = 1 << 13;

/** An arena in which this workload says nothing. */
class NeverExhaustedError extends GranaryError {
  override name = 'NeverExhaustedError';
  constructor(objects: number) {
    super(
      `the arena held ${objects} objects of ${OBJECT} bytes and had more: run the workload in a smaller one`,
    );
  }
}

function freeAll(heap: ObjectHeap, held: Int32Array, n: number): void {
  for (let i = 0; i < n; i += BULK_MAX) {
    const list = held.subarray(i, Math.min(n, i + BULK_MAX));
    heap.freeBulk(list, list.length);
  }
}

/** Allocates `n` objects in all. Returns how often there was none left. */
function exhaust(heap: ObjectHeap, held: Int32Array, n: number): number {
  let exhausted = 0;
  let have = 0;
  let bulk = BULK_MAX;
  for (let done = 0; done < n; ) {
    const want = Math.min(bulk, n - done);
    if (heap.allocBulk(held.subarray(have, have + want), want)) {
      have += want;
      done += want;
    } else if (want > 1) {
      bulk = want >> 1;
    } else {
      exhausted++;
      freeAll(heap, held, have);
      have = 0;
      bulk = BULK_MAX;
    }
  }
  freeAll(heap, held, have);
  return exhausted;
}

export const exhaustion: Workload = {
  name: 'exhaust',
  about: `allocate objects of ${OBJECT} bytes, up to ${BULK_MAX} a call, until there are none; free all; again`,
  objectSize: OBJECT,
  granule: GRANULE,
  threadsPerOp: 1,
  prepare: ({ objects, i32 }, ops) => {
    const held = new Int32Array(Math.ceil(i32.byteLength / OBJECT) + BULK_MAX);
    return {
      allocs: ops,
      frees: ops,
      run: () => {
        if (exhaust(objects, held, ops) === 0) throw new NeverExhaustedError(ops);
      },
    };
  },
};
