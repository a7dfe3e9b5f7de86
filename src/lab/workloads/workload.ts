/** What all workloads have in common: the shape of one, and the small parts that several use. */
import type { Arena } from '../../arena.js';
import type { DefinedCache } from '../../cache/index.js';
import type { Rcu } from '../../rcu/index.js';
import { GranaryError } from '../../struct/index.js';
import type { ViewSource } from '../../view/index.js';
import type { ObjectHeap, SizedHeap } from '../heaps.js';

/** What a workload gets from the thread that runs it. */
export interface WorkloadContext {
  /** For workloads that use more of it than objects and blocks. */
  readonly arena: Arena;
  /** The workload's own cache; only for those with an `objectSize`. */
  readonly objects: ObjectHeap;
  readonly blocks: SizedHeap;
  /** The caches of a workload with `kin`, the first of which is `objects`. */
  readonly kin: readonly ObjectHeap[];
  /** The arena, for views on objects. */
  readonly view: ViewSource;
  /** Finds a cache at each call. */
  readonly named: { openCache(name: string): ObjectHeap };
  readonly i32: Int32Array;
  readonly rcu: Rcu;
  /** This thread, from 0. */
  readonly rank: number;
  readonly threads: number;
  readonly seed: number;
  /** Words that the threads of this run share; all 0 at the start. */
  readonly shared: Int32Array;
  /** Waits for all threads; ends the turn. */
  barrier(): void;
  /** The word's value once it is no longer `seen`; ends the turn. */
  awaitChange(words: Int32Array, index: number, seen: number): number;
}

/** One thread's share of one run. */
export interface WorkloadRun {
  /** Successful allocations and frees of this thread in the whole run; over all threads they must agree. */
  readonly allocs: number;
  readonly frees: number;
  /** Before the clock starts. */
  fill?(): void;
  /** What is timed. */
  run(): void;
  /** After the clock has stopped and all threads are through: frees what is left. */
  drain?(): void;
}

/** A pattern of allocations and frees. An operation is one allocation and one free. */
export interface Workload {
  readonly name: string;
  readonly about: string;
  /** Size of the objects of its own cache; without, it uses kmalloc. */
  readonly objectSize?: number;
  /** What its own cache is, where that has a constructor. */
  readonly defined?: DefinedCache;
  /** How many caches of that size it has, which may merge; one that may not unless given. */
  readonly kin?: number;
  /** Name of its cache, which may exist already; one of its own unless given. */
  readonly cacheName?: string;
  /** Operations of a run are a multiple of this. */
  readonly granule: number;
  /** And at most this, where all objects of a run live at once. */
  readonly opsMax?: number;
  /** Threads come in multiples of this; any number of them unless given. */
  readonly threadsMultiple?: number;
  /** Threads that share the `ops` of one run; the figure of a run is its time by these operations. */
  readonly threadsPerOp: number;
  /** Words that its threads share; none unless given. */
  sharedWords?(threads: number): number;
  /** Everything that need not be timed; `ops` is a multiple of `granule`. */
  prepare(context: WorkloadContext, ops: number): WorkloadRun;
}

/** The arena of a run is too small for its workload. */
export class OutOfArenaError extends GranaryError {
  override name = 'OutOfArenaError';
  constructor() {
    super('the arena is out of memory: run the workload in a larger one');
  }
}

/** The next state of Marsaglia's xorshift32; states are never 0. */
export function xorshift32(x: number): number {
  let y = x ^ (x << 13);
  y ^= y >>> 17;
  return y ^ (y << 5);
}

/** A start state for one thread's generator, never 0. */
export function seedFor(seed: number, rank: number): number {
  return xorshift32(Math.imul(seed + 1, 0x9e3779b1) ^ Math.imul(rank + 1, 0x85ebca6b)) | 1;
}

/** Fisher and Yates, in place. */
export function shuffle(items: Int32Array, seed: number): Int32Array {
  let x = seed;
  for (let i = items.length - 1; i > 0; i--) {
    x = xorshift32(x);
    const j = (x >>> 0) % (i + 1);
    const kept = items[i]!;
    items[i] = items[j]!;
    items[j] = kept;
  }
  return items;
}
