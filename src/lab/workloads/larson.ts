/**
 * Larson and Krishnan's server: each thread has an array of objects of random sizes and replaces random ones; from
 * time to time the arrays change hands, as sessions do, so that objects die on another thread than they were born.
 */
import type { SizedHeap } from '../heaps.js';
import { OutOfArenaError, seedFor, type Workload, type WorkloadContext, xorshift32 } from './workload.js';

const SLOTS = 1024;
const SIZE_MIN = 16;
const SIZES = 256 - SIZE_MIN + 1;
/** How often the arrays change hands in one run. */
const SHIFTS = 4;

/** Replaces `n` random blocks of `slots`; returns the generator's state. */
function replace(heap: SizedHeap, m: Int32Array, slots: Int32Array, n: number, state: number): number {
  let x = state;
  for (let i = 0; i < n; i++) {
    x = xorshift32(x);
    const slot = x & (SLOTS - 1);
    heap.kfree(slots[slot]!);
    const p = heap.kmalloc(SIZE_MIN + ((x >>> 10) % SIZES));
    if (p === 0) throw new OutOfArenaError();
    m[p >> 2] = i;
    slots[slot] = p;
  }
  return x;
}

const slotsOf = ({ shared }: WorkloadContext, owner: number): Int32Array =>
  shared.subarray(owner * SLOTS, (owner + 1) * SLOTS);

function fill(context: WorkloadContext, seed: number): void {
  const slots = slotsOf(context, context.rank);
  let x = seed;
  for (let i = 0; i < SLOTS; i++) {
    x = xorshift32(x);
    slots[i] = context.blocks.kmalloc(SIZE_MIN + ((x >>> 10) % SIZES));
    if (slots[i] === 0) throw new OutOfArenaError();
  }
}

function run(context: WorkloadContext, ops: number, seed: number): void {
  const { blocks, i32, rank, threads } = context;
  let x = seed;
  for (let shift = 0; shift < SHIFTS; shift++) {
    // The slots of whoever had them so far are visible after this.
    if (shift > 0) context.barrier();
    x = replace(blocks, i32, slotsOf(context, (rank + shift) % threads), ops / SHIFTS, x);
  }
}

function drain(context: WorkloadContext): void {
  const slots = slotsOf(context, context.rank);
  for (let i = 0; i < SLOTS; i++) context.blocks.kfree(slots[i]!);
}

export const larson: Workload = {
  name: 'larson',
  about: `replace random ones of ${SLOTS} blocks of 16 to 256 bytes; the blocks change threads ${SHIFTS - 1} times`,
  granule: SHIFTS,
  threadsPerOp: 1,
  sharedWords: (threads) => threads * SLOTS,
  prepare: (context, ops) => {
    const seed = seedFor(context.seed, context.rank);
    return {
      allocs: SLOTS + ops,
      frees: SLOTS + ops,
      fill: () => fill(context, seed),
      run: () => run(context, ops, seed),
      drain: () => drain(context),
    };
  },
};
