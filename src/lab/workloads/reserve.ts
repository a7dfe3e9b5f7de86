/**
 * An operation that may need up to `BOUND` objects and uses k of them, as a write to a maple tree does: it must not
 * fail half-way, so it provides for the worst case first. Three ways to do it: a prefilled sheaf whose rest is returned;
 * a bulk allocation whose rest is freed; and, with no guarantee at all, k allocations.
 *
 * The objects used replace those of earlier operations in a window, so that frees come one by one and later.
 */
import type { ObjectHeap, PrefilledObjects } from '../heaps.js';
import { OutOfArenaError, type Workload, type WorkloadContext } from './workload.js';

export const BOUND = 12;
/** A multiple of every k. */
const WINDOW = 48;
/** Bytes of a maple tree's node. */
const NODE_BYTES = 256;

function plain(heap: ObjectHeap, m: Int32Array, live: Int32Array, n: number, used: number): void {
  let at = 0;
  for (let i = 0; i < n; i++) {
    for (let j = 0; j < used; j++) {
      const p = heap.alloc();
      if (p === 0) throw new OutOfArenaError();
      m[p >> 2] = i;
      heap.free(live[at]!);
      live[at] = p;
      at = at + 1 === WINDOW ? 0 : at + 1;
    }
  }
}

function withBulk(heap: ObjectHeap, m: Int32Array, live: Int32Array, n: number, used: number): void {
  const taken = new Int32Array(BOUND);
  const rest = BOUND - used;
  let at = 0;
  for (let i = 0; i < n; i++) {
    if (!heap.allocBulk(taken, BOUND)) throw new OutOfArenaError();
    // A bulk free takes the first ones of a list, so the last are used.
    for (let j = rest; j < BOUND; j++) {
      const p = taken[j]!;
      m[p >> 2] = i;
      heap.free(live[at]!);
      live[at] = p;
      at = at + 1 === WINDOW ? 0 : at + 1;
    }
    heap.freeBulk(taken, rest);
  }
}

function withSheaf(heap: PrefilledObjects, m: Int32Array, live: Int32Array, n: number, used: number): void {
  let at = 0;
  for (let i = 0; i < n; i++) {
    const sheaf = heap.prefill(BOUND);
    if (sheaf === null) throw new OutOfArenaError();
    for (let j = 0; j < used; j++) {
      const p = sheaf.alloc();
      m[p >> 2] = i;
      heap.free(live[at]!);
      live[at] = p;
      at = at + 1 === WINDOW ? 0 : at + 1;
    }
    heap.return(sheaf);
  }
}

type Way = 'plain' | 'bulk' | 'sheaf';

function loopFor(way: Way, { objects, i32 }: WorkloadContext, live: Int32Array, ops: number, used: number) {
  switch (way) {
    case 'plain':
      return () => plain(objects, i32, live, ops, used);
    case 'bulk':
      return () => withBulk(objects, i32, live, ops, used);
    case 'sheaf':
      return () => withSheaf(objects as unknown as PrefilledObjects, i32, live, ops, used);
  }
}

export const reserveName = (way: Way, used: number): string => `reserve-${way}-${used}`;

export function reserve(way: Way, used: number): Workload {
  return {
    name: reserveName(way, used),
    about: `provide for ${BOUND} objects and use ${used}: ${way}`,
    objectSize: NODE_BYTES,
    granule: 1,
    threadsPerOp: 1,
    prepare: (context, ops) => {
      const live = new Int32Array(WINDOW);
      return {
        allocs: WINDOW + used * ops,
        frees: WINDOW + used * ops,
        fill: () => {
          if (!context.objects.allocBulk(live, WINDOW)) throw new OutOfArenaError();
        },
        run: loopFor(way, context, live, ops, used),
        drain: () => context.objects.freeBulk(live, WINDOW),
      };
    },
  };
}
