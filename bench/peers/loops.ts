/**
 * The measured loops in JavaScript; bench/native/peer.c has the same ones in C. Each is a function of its own
 * and each worker runs one variant only, so a call in here has one target for as long as the worker lives.
 */
import { HUGE_BATCH, LARGE_BATCH, SMALL_BATCH } from './plan.js';

/** An allocator of blocks of one size, by address. */
export interface AddressHeap {
  alloc(): number;
  free(p: number): unknown;
}

/** An allocator which also hands out and takes back many blocks with one call. */
export interface BulkHeap {
  allocBulk(out: Int32Array, n: number): boolean;
  freeBulk(addresses: Int32Array, n: number): unknown;
}

// Imported names are looked up at each use; C has these as constants, and so shall these loops.
const SMALL = SMALL_BATCH;
const LARGE = LARGE_BATCH;
const HUGE = HUGE_BATCH;

const outOfMemory = (): Error => new Error('the allocator under test is out of memory');

/** Room for more than 64 bytes: V8 keeps smaller arrays in its own heap, where their address may change. */
const KEPT_MIN = 64;

/**
 * The loops over blocks known by address. Called once per worker: V8 folds the constants of a function that ran
 * once, so allocator and word view cost what a linked function and a base pointer cost in C. A program that uses
 * Granary does the same when it keeps its cache and `arena.i32` in constants.
 */
export function addressLoops(heap: AddressHeap, m: Int32Array) {
  const small = new Int32Array(Math.max(SMALL, KEPT_MIN));
  const large = new Int32Array(LARGE);
  const huge = new Int32Array(HUGE);

  function pair(n: number): void {
    const words = m;
    for (let i = 0; i < n; i++) {
      const p = heap.alloc();
      if (p === 0) throw outOfMemory();
      words[p >> 2] = i;
      heap.free(p);
    }
  }

  function batch16(n: number): void {
    const words = m;
    const kept = small;
    for (let i = 0; i < n; i += SMALL) {
      for (let j = 0; j < SMALL; j++) {
        const p = heap.alloc();
        if (p === 0) throw outOfMemory();
        words[p >> 2] = i;
        kept[j] = p;
      }
      for (let j = 0; j < SMALL; j++) heap.free(kept[j]!);
    }
  }

  function batch1000(n: number): void {
    const words = m;
    const kept = large;
    for (let i = 0; i < n; i += LARGE) {
      for (let j = 0; j < LARGE; j++) {
        const p = heap.alloc();
        if (p === 0) throw outOfMemory();
        words[p >> 2] = i;
        kept[j] = p;
      }
      for (let j = 0; j < LARGE; j++) heap.free(kept[j]!);
    }
  }

  function batch10000(n: number): void {
    const words = m;
    const kept = huge;
    for (let i = 0; i < n; i += HUGE) {
      for (let j = 0; j < HUGE; j++) {
        const p = heap.alloc();
        if (p === 0) throw outOfMemory();
        words[p >> 2] = i;
        kept[j] = p;
      }
      for (let j = 0; j < HUGE; j++) heap.free(kept[j]!);
    }
  }

  function shuffled1000(n: number, order: Int32Array): void {
    const words = m;
    const kept = large;
    for (let i = 0; i < n; i += LARGE) {
      for (let j = 0; j < LARGE; j++) {
        const p = heap.alloc();
        if (p === 0) throw outOfMemory();
        words[p >> 2] = i;
        kept[j] = p;
      }
      for (let j = 0; j < LARGE; j++) heap.free(kept[order[j]!]!);
    }
  }

  return { pair, batch16, batch1000, batch10000, shuffled1000 };
}

export type AddressLoops = ReturnType<typeof addressLoops>;

/** The loop over batches that go out and come back in one call; the same holds for it. */
export function bulkLoop(heap: BulkHeap, m: Int32Array) {
  const small = new Int32Array(Math.max(SMALL, KEPT_MIN));

  function bulk16(n: number): void {
    const words = m;
    const kept = small;
    for (let i = 0; i < n; i += SMALL) {
      if (!heap.allocBulk(kept, SMALL)) throw outOfMemory();
      for (let j = 0; j < SMALL; j++) words[kept[j]! >> 2] = i;
      heap.freeBulk(kept, SMALL);
    }
  }

  return bulk16;
}

const NOTHING = new Uint8Array(0);
const smallArrays: Uint8Array[] = new Array<Uint8Array>(SMALL).fill(NOTHING);
const largeArrays: Uint8Array[] = new Array<Uint8Array>(LARGE).fill(NOTHING);
const hugeArrays: Uint8Array[] = new Array<Uint8Array>(HUGE).fill(NOTHING);

// A typed array's first element is all it has of a first word; it is stored where others can reach it, or
// the compiler might leave the allocation out. Dropping the reference is what JavaScript has for free.

export function arrayPair(size: number, n: number): void {
  const kept = smallArrays;
  for (let i = 0; i < n; i++) {
    const block = new Uint8Array(size);
    kept[0] = block;
    block[0] = i;
    kept[0] = NOTHING;
  }
}

export function arrayBatch16(size: number, n: number): void {
  const kept = smallArrays;
  for (let i = 0; i < n; i += SMALL) {
    for (let j = 0; j < SMALL; j++) {
      const block = new Uint8Array(size);
      block[0] = i;
      kept[j] = block;
    }
    for (let j = 0; j < SMALL; j++) kept[j] = NOTHING;
  }
}

export function arrayBatch1000(size: number, n: number): void {
  const kept = largeArrays;
  for (let i = 0; i < n; i += LARGE) {
    for (let j = 0; j < LARGE; j++) {
      const block = new Uint8Array(size);
      block[0] = i;
      kept[j] = block;
    }
    for (let j = 0; j < LARGE; j++) kept[j] = NOTHING;
  }
}

export function arrayBatch10000(size: number, n: number): void {
  const kept = hugeArrays;
  for (let i = 0; i < n; i += HUGE) {
    for (let j = 0; j < HUGE; j++) {
      const block = new Uint8Array(size);
      block[0] = i;
      kept[j] = block;
    }
    for (let j = 0; j < HUGE; j++) kept[j] = NOTHING;
  }
}

export function arrayShuffled1000(size: number, n: number, order: Int32Array): void {
  const kept = largeArrays;
  for (let i = 0; i < n; i += LARGE) {
    for (let j = 0; j < LARGE; j++) {
      const block = new Uint8Array(size);
      block[0] = i;
      kept[j] = block;
    }
    for (let j = 0; j < LARGE; j++) kept[order[j]!] = NOTHING;
  }
}
