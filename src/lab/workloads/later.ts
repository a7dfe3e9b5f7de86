/**
 * Objects that others may still read when they are replaced, as VMAs and the nodes of a maple tree: each operation puts a
 * new object into a window, in which it looks up some others within a read section, and frees the old one after a grace
 * period. Four ways to do that: a callback for each; kfree_rcu; and, as if nobody read, at once.
 *
 * A thread is quiescent once in so many operations, as it would be at the end of each turn.
 */
import type { DeferredObjects } from '../heaps.js';
import { OutOfArenaError, type Workload, type WorkloadContext } from './workload.js';

const WINDOW = 64;
/** Bytes of a maple tree's node. */
const NODE_BYTES = 256;
const LOOKS = 4;

export type LaterWay = 'call' | 'kfree-rcu' | 'at-once';
type FreeOld = (p: number) => void;

function replace(
  { objects, i32, rcu }: WorkloadContext,
  live: Int32Array,
  ops: number,
  every: number,
  freeOld: FreeOld,
): void {
  let sum = 0;
  for (let i = 0; i < ops; i++) {
    const at = i % WINDOW;
    rcu.readLock();
    for (let look = 1; look <= LOOKS; look++) sum = (sum + i32[live[(at + look) % WINDOW]! >> 2]!) | 0;
    rcu.readUnlock();
    const p = objects.alloc();
    if (p === 0) throw new OutOfArenaError();
    i32[p >> 2] = sum;
    const old = live[at]!;
    live[at] = p;
    freeOld(old);
    if (i % every === every - 1) rcu.quiescent();
  }
}

function freeFor(way: LaterWay, { objects, rcu }: WorkloadContext): FreeOld {
  const heap = objects as unknown as DeferredObjects;
  switch (way) {
    case 'call':
      return (p) => rcu.call(() => heap.free(p));
    case 'kfree-rcu':
      return (p) => heap.freeRcu(p);
    case 'at-once':
      return (p) => heap.free(p);
  }
}

export const laterName = (way: LaterWay, every: number): string => `later-${way}-${every}`;

export function later(way: LaterWay, every: number): Workload {
  return {
    name: laterName(way, every),
    about: `replace one of ${WINDOW} objects that are read: free the old one ${way}, quiescent every ${every} operations`,
    objectSize: NODE_BYTES,
    granule: 1,
    threadsPerOp: 1,
    prepare: (context, ops) => {
      const live = new Int32Array(WINDOW);
      const freeOld = freeFor(way, context);
      return {
        allocs: WINDOW + ops,
        frees: WINDOW + ops,
        fill: () => {
          if (!context.objects.allocBulk(live, WINDOW)) throw new OutOfArenaError();
        },
        run: () => replace(context, live, ops, every, freeOld),
        drain: () => {
          context.objects.freeBulk(live, WINDOW);
          context.rcu.barrier();
          (context.objects as unknown as DeferredObjects).rcuBarrier();
        },
      };
    },
  };
}
