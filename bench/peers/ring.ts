/**
 * The ring that carries addresses from the producer to the consumer, one writer and one reader, as in
 * bench/native/peer.c: each side publishes its counter once in 32 items, and both counters have a cache line
 * (and the neighbour that the processor fetches with it) for themselves.
 */
import { futexWait, loadAcquire, storeRelease } from '../../src/sync/index.js';
import type { AddressHeap } from './loops.js';
import { PUBLISH_EVERY, RING_SLOTS, SPINS } from './plan.js';

const HEAD = 0;
const TAIL = 64;
const SLOTS = 128;
const SLOT_MASK = RING_SLOTS - 1;
/** Nobody wakes the waiter: this is how long it keeps off the processor, the counterpart of sched_yield. */
const NAP_MS = 0.02;

export const RING_BYTES = (SLOTS + RING_SLOTS) * 4;

/** Called before a thread sleeps, to let go of what it holds. */
export type BeforeSleep = () => void;

/** The counter's value once it differs from `seen`. */
function awaitChange(ring: Int32Array, counter: number, seen: number, beforeSleep: BeforeSleep): number {
  for (let spins = 0; ; spins++) {
    const now = loadAcquire(ring, counter);
    if (now !== seen) return now;
    if (spins < SPINS) continue;
    beforeSleep();
    futexWait(ring, counter, seen, NAP_MS);
  }
}

export function produce(
  heap: AddressHeap,
  m: Int32Array,
  n: number,
  ring: Int32Array,
  beforeSleep: BeforeSleep,
): void {
  let head = loadAcquire(ring, HEAD);
  let tail = loadAcquire(ring, TAIL);
  for (let i = 0; i < n; i++) {
    const p = heap.alloc();
    if (p === 0) throw new Error('the allocator under test is out of memory');
    m[p >> 2] = i;
    if (((head - tail) | 0) === RING_SLOTS) tail = awaitChange(ring, TAIL, tail, beforeSleep);
    ring[SLOTS + (head & SLOT_MASK)] = p;
    head = (head + 1) | 0;
    // Partner: the consumer's load of HEAD; the slots and the words in the blocks are older than this.
    if (head % PUBLISH_EVERY === 0) storeRelease(ring, HEAD, head);
  }
}

export function consume(
  heap: AddressHeap,
  m: Int32Array,
  n: number,
  ring: Int32Array,
  beforeSleep: BeforeSleep,
): void {
  let tail = loadAcquire(ring, TAIL);
  let head = tail;
  let sum = 0;
  for (let i = 0; i < n; i++) {
    if (tail === head) head = awaitChange(ring, HEAD, head, beforeSleep);
    const p = ring[SLOTS + (tail & SLOT_MASK)]!;
    sum = (sum + m[p >> 2]!) | 0;
    heap.free(p);
    tail = (tail + 1) | 0;
    // Partner: the producer's load of TAIL; the slots have been read before they may be written again.
    if (tail % PUBLISH_EVERY === 0) storeRelease(ring, TAIL, tail);
  }
  if (sum !== sumOfWords(n)) {
    throw new Error(`the ${n} words read add up to ${sum}, those written to ${sumOfWords(n)}`);
  }
}

/** 0 + 1 + ... + (n - 1) in 32-bit arithmetic. */
const sumOfWords = (n: number): number => Number(BigInt.asIntN(32, (BigInt(n) * BigInt(n - 1)) / 2n));
