/**
 * The concurrent tests of kmalloc by Lameter and Desnoyers: threads that start together, in phases, and threads that
 * free what others allocated. Kernel: slab_test. Times are nanoseconds; there is no cycle counter to be had here.
 */
import { loadAcquire, storeRelease } from '../../sync/index.js';
import type { SizedHeap } from '../heaps.js';
import { OutOfArenaError, type Workload, type WorkloadContext } from './workload.js';

/** From the least to four pages, as there. */
export const CONCURRENT_SIZES: readonly number[] = [8, 256, 4096, 16_384];
const OBJECTS_MAX = 10_000;
/** What a thread may hold. */
const BYTES_MAX = 4 << 20;
/** Objects of a phase: 10000, as long as they fit. */
const objectsOf = (size: number): number => Math.min(OBJECTS_MAX, Math.floor(BYTES_MAX / size));

function allocInto(heap: SizedHeap, m: Int32Array, list: Int32Array, size: number): void {
  for (let i = 0; i < list.length; i++) {
    const p = heap.kmalloc(size);
    if (p === 0) throw new OutOfArenaError();
    m[p >> 2] = i;
    list[i] = p;
  }
}

function freeFrom(heap: SizedHeap, list: Int32Array): void {
  for (let i = 0; i < list.length; i++) heap.kfree(list[i]!);
}

function pairs(heap: SizedHeap, m: Int32Array, n: number, size: number): void {
  for (let i = 0; i < n; i++) {
    const p = heap.kmalloc(size);
    if (p === 0) throw new OutOfArenaError();
    m[p >> 2] = i;
    heap.kfree(p);
  }
}

/** Kernel: "N allocs, then N frees". */
export function kmallocPhases(size: number): Workload {
  const n = objectsOf(size);
  return {
    name: `kmalloc-phases-${size}`,
    about: `all threads allocate ${n} blocks of ${size} bytes; when all are through, all free theirs`,
    granule: n,
    threadsPerOp: 1,
    prepare: ({ blocks, i32, barrier }, ops) => {
      const list = new Int32Array(n);
      return {
        allocs: ops,
        frees: ops,
        run: () => {
          for (let i = 0; i < ops; i += n) {
            allocInto(blocks, i32, list, size);
            barrier();
            freeFrom(blocks, list);
            barrier();
          }
        },
      };
    },
  };
}

/** Kernel: "alloc+free pairs". */
export function kmallocPairs(size: number): Workload {
  return {
    name: `kmalloc-pairs-${size}`,
    about: `all threads allocate a block of ${size} bytes and free it, over and over`,
    granule: 1,
    threadsPerOp: 1,
    prepare: ({ blocks, i32 }, ops) => ({
      allocs: ops,
      frees: ops,
      run: () => pairs(blocks, i32, ops, size),
    }),
  };
}

/** Kernel: "remote free": what all have allocated is freed by the first, its own blocks too. */
export function kmallocRemote(size: number): Workload {
  const n = objectsOf(size);
  return {
    name: `kmalloc-remote-${size}`,
    about: `all threads allocate ${n} blocks of ${size} bytes; one frees them all`,
    granule: n,
    threadsPerOp: 1,
    sharedWords: (threads) => threads * n,
    prepare: ({ blocks, i32, barrier, rank, threads, shared }, ops) => {
      const mine = shared.subarray(rank * n, (rank + 1) * n);
      return {
        allocs: ops,
        frees: rank === 0 ? ops * threads : 0,
        run: () => {
          for (let i = 0; i < ops; i += n) {
            allocInto(blocks, i32, mine, size);
            // The lists of all are visible after this, and may be written again after the next.
            barrier();
            if (rank === 0) freeFrom(blocks, shared);
            barrier();
          }
        },
      };
    },
  };
}

// Words of the ring that a freeing thread has: both counters with lines of their own, then the slots.
const HEAD = 0;
const TAIL = 64;
const SLOTS = 128;
const RING_SLOTS = 256;
const RING_WORDS = SLOTS + RING_SLOTS;
const BATCH = 32;

/** Deals batches of blocks to the rings in turn. */
function deal({ blocks, i32, shared, awaitChange }: WorkloadContext, rings: number, n: number, size: number) {
  const heads = new Int32Array(rings);
  for (let batch = 0; batch * BATCH < n; batch++) {
    const turn = batch % rings;
    const ring = shared.subarray(turn * RING_WORDS, (turn + 1) * RING_WORDS);
    const head = heads[turn]!;
    let tail = loadAcquire(ring, TAIL);
    while (head - tail === RING_SLOTS) tail = awaitChange(ring, TAIL, tail);
    for (let i = 0; i < BATCH; i++) {
      const p = blocks.kmalloc(size);
      if (p === 0) throw new OutOfArenaError();
      i32[p >> 2] = i;
      ring[SLOTS + ((head + i) % RING_SLOTS)] = p;
    }
    heads[turn] = head + BATCH;
    storeRelease(ring, HEAD, head + BATCH); // pairs with the load in freeDealt: the slots are older
  }
}

/** Frees the `n` blocks that come through a ring. */
function freeDealt({ blocks, awaitChange }: WorkloadContext, ring: Int32Array, n: number): void {
  for (let tail = 0; tail < n; tail += BATCH) {
    let head = loadAcquire(ring, HEAD);
    while (head === tail) head = awaitChange(ring, HEAD, head);
    for (let i = 0; i < BATCH; i++) blocks.kfree(ring[SLOTS + ((tail + i) % RING_SLOTS)]!);
    storeRelease(ring, TAIL, tail + BATCH); // pairs with the load in deal: the slots have been read
  }
}

/** Kernel: "1 alloc, N free". The others only free, in batches that the first deals to them in turn. */
export function kmallocOne(size: number): Workload {
  return {
    name: `kmalloc-one-${size}`,
    about: `one thread allocates blocks of ${size} bytes, all others free them`,
    granule: BATCH,
    threadsMultiple: 2,
    threadsPerOp: 1,
    sharedWords: (threads) => (threads - 1) * RING_WORDS,
    prepare: (context, ops) => {
      const { rank, threads, shared } = context;
      const rings = threads - 1;
      const all = ops * threads;
      if (rank === 0) return { allocs: all, frees: 0, run: () => deal(context, rings, all, size) };
      const turn = rank - 1;
      const batches = Math.floor((all / BATCH - turn + rings - 1) / rings);
      const ring = shared.subarray(turn * RING_WORDS, (turn + 1) * RING_WORDS);
      return { allocs: 0, frees: batches * BATCH, run: () => freeDealt(context, ring, batches * BATCH) };
    },
  };
}
