/**
 * One thread allocates, another frees: sheaves fill up on one CPU and run dry on the other, so that all of them
 * travel through the barn. Threads work in pairs, each over a ring of its own with one writer and one reader.
 */
import { loadAcquire, storeRelease } from '../../sync/index.js';
import { OutOfArenaError, type Workload, type WorkloadContext } from './workload.js';

// Words of a ring. The counters have a line for themselves, and the neighbour that the processor fetches with it.
const HEAD = 0;
const TAIL = 64;
const SLOTS = 128;
const RING_SLOTS = 4096;
const SLOT_MASK = RING_SLOTS - 1;
const RING_WORDS = SLOTS + RING_SLOTS;
/** Each side tells the other how far it is once in so many objects. */
const PUBLISH_EVERY = 32;

function produce(context: WorkloadContext, ring: Int32Array, n: number): void {
  const { objects, i32 } = context;
  let head = loadAcquire(ring, HEAD);
  let tail = loadAcquire(ring, TAIL);
  for (let i = 0; i < n; i++) {
    const p = objects.alloc();
    if (p === 0) throw new OutOfArenaError();
    i32[p >> 2] = i;
    if (((head - tail) | 0) === RING_SLOTS) tail = context.awaitChange(ring, TAIL, tail);
    ring[SLOTS + (head & SLOT_MASK)] = p;
    head = (head + 1) | 0;
    // Pairs with the consumer's load of HEAD; the slots are older than this.
    if ((head & (PUBLISH_EVERY - 1)) === 0) storeRelease(ring, HEAD, head);
  }
}

function consume(context: WorkloadContext, ring: Int32Array, n: number): void {
  const { objects } = context;
  let tail = loadAcquire(ring, TAIL);
  let head = tail;
  for (let i = 0; i < n; i++) {
    if (tail === head) head = context.awaitChange(ring, HEAD, head);
    objects.free(ring[SLOTS + (tail & SLOT_MASK)]!);
    tail = (tail + 1) | 0;
    // Pairs with the producer's load of TAIL: the slots before it may be written again.
    if ((tail & (PUBLISH_EVERY - 1)) === 0) storeRelease(ring, TAIL, tail);
  }
}

export const producerConsumer: Workload = {
  name: 'producer-consumer',
  about: 'one thread allocates, another frees',
  objectSize: 64,
  granule: PUBLISH_EVERY,
  threadsMultiple: 2,
  threadsPerOp: 2,
  sharedWords: (threads) => (threads / 2) * RING_WORDS,
  prepare: (context, ops) => {
    const at = (context.rank >> 1) * RING_WORDS;
    const ring = context.shared.subarray(at, at + RING_WORDS);
    if (context.rank % 2 === 0) return { allocs: ops, frees: 0, run: () => produce(context, ring, ops) };
    return { allocs: 0, frees: ops, run: () => consume(context, ring, ops) };
  },
};
