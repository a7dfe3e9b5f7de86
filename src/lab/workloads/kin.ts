/** Objects of one size from several caches, as a program has them whose parts know nothing of each other. */
import type { ObjectHeap } from '../heaps.js';
import { OutOfArenaError, type Workload } from './workload.js';

const ROUNDS = 32;

function rounds(heaps: readonly ObjectHeap[], m: Int32Array, n: number, kept: Int32Array): void {
  const caches = heaps.length;
  for (let i = 0; i < n; i += kept.length) {
    for (let j = 0; j < kept.length; j++) {
      const p = heaps[j % caches]!.alloc();
      if (p === 0) throw new OutOfArenaError();
      m[p >> 2] = j;
      kept[j] = p;
    }
    for (let j = 0; j < kept.length; j++) heaps[j % caches]!.free(kept[j]!);
  }
}

export const kinName = (caches: number): string => `kin-${caches}`;

/** `caches` caches for objects of one size, which may merge where the arena lets them. */
export function kin(caches: number): Workload {
  return {
    name: kinName(caches),
    about: `allocate ${ROUNDS} objects from each of ${caches} caches of one size in turn, free them in that order`,
    objectSize: 192,
    kin: caches,
    granule: caches * ROUNDS,
    threadsPerOp: 1,
    prepare: ({ kin: heaps, i32 }, ops) => {
      const kept = new Int32Array(caches * ROUNDS);
      return { allocs: ops, frees: ops, run: () => rounds(heaps, i32, ops, kept) };
    },
  };
}
