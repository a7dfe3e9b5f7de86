/** What the threads of one stress round share beside the arena. */
import type { ArenaHandle, ArenaOptions } from '../../index.js';
import { exchange, fetchAdd, loadAcquire, storeRelease } from '../../sync/index.js';

/** Caches of a round: sizes on both sides of every sheaf capacity, and one with a capacity of its own. */
export const STRESS_CACHES = [
  { name: 'tiny', size: 16 },
  { name: 'small', size: 64 },
  { name: 'odd', size: 200 },
  { name: 'node', size: 256, sheafCapacity: 32 },
  { name: 'large', size: 1100 },
  { name: 'page', size: 4096 },
] as const;

/** Index that stands for kmalloc in an object's second word. */
export const KMALLOC = STRESS_CACHES.length;

export const TRANSFER_SLOTS = 1024;

/** Words of the control block. */
export const Control = {
  stop: 0,
  /** Per thread slot: 0 running, 1 parked outside of any turn and ready to be terminated. */
  parked: 16,
  /** Per thread slot: the thread's id and CPU, for finding its Worker. */
  threadId: 16 + 64,
  cpu: 16 + 128,
  words: 16 + 192,
} as const;

/** Plain data that goes to every worker. */
export interface StressShared {
  arena: ArenaHandle;
  control: Int32Array<SharedArrayBuffer>;
  /** Addresses on their way from one thread to another, taken and given by exchange. */
  transfer: Int32Array<SharedArrayBuffer>;
  /** One word for each 8 bytes of arena: whether an object was handed out there. An oracle of its own. */
  live: Int32Array<SharedArrayBuffer>;
  /** What threads that vanished had counted. */
  bequeathed: Int32Array<SharedArrayBuffer>;
}

export interface StressConfig {
  layer: NonNullable<ArenaOptions['layer']>;
  /** With nothing but slabs, and those small: `layer` is then 'none'. */
  tiny?: boolean;
  lockPolicy: NonNullable<ArenaOptions['lockPolicy']>;
  nodes: number;
  check: NonNullable<ArenaOptions['check']>;
  bytes: number;
  /** Threads on each CPU slot; more than one only with lockPolicy 'op'. */
  threadsPerCpu: number;
  freelistRandom?: boolean;
  freelistHardened?: boolean;
}

const COUNTED = [
  'ops',
  'allocs',
  'frees',
  'bulks',
  'transfers',
  'outOfMemory',
  'prefills',
  'nolocks',
  'rcuFrees',
] as const;

export type Counts = Record<(typeof COUNTED)[number], number>;

/** What one worker did and found. */
export interface StressCounts extends Counts {
  problems: string[];
}

export const noCounts = (): Counts => Object.fromEntries(COUNTED.map((name) => [name, 0])) as Counts;

export function addCounts(sum: Counts, more: Counts): void {
  for (const name of COUNTED) sum[name] += more[name];
}

/** Leaves the counts of a thread that is about to vanish to the others. */
export function bequeath({ bequeathed }: StressShared, counts: Counts): void {
  // Before the thread says that it is parked; main reads them in the end.
  for (const [i, name] of COUNTED.entries()) fetchAdd(bequeathed, i, counts[name]);
}

export const bequeathed = (shared: StressShared): Counts =>
  Object.fromEntries(COUNTED.map((name, i) => [name, loadAcquire(shared.bequeathed, i)])) as Counts;

export function makeShared(arena: ArenaHandle, bytes: number): StressShared {
  const words = (n: number): Int32Array<SharedArrayBuffer> => new Int32Array(new SharedArrayBuffer(n * 4));
  return {
    arena,
    control: words(Control.words),
    transfer: words(TRANSFER_SLOTS),
    live: words(bytes / 8),
    bequeathed: words(COUNTED.length),
  };
}

export const stopped = (shared: StressShared): boolean => loadAcquire(shared.control, Control.stop) !== 0;
export const stop = (shared: StressShared): void => storeRelease(shared.control, Control.stop, 1);

/** The objects' ownership, kept apart from the allocator's own idea of it. */
export class LiveMap {
  private readonly live: Int32Array;
  readonly problems: string[] = [];

  constructor(live: Int32Array) {
    this.live = live;
  }

  /** An object was handed out: nobody else may have it. */
  take(p: number, by: number): void {
    const before = exchange(this.live, p >> 3, by);
    if (before !== 0) this.problem(`0x${p.toString(16)} was handed out to ${by} while ${before} had it`);
  }

  /** An object is about to be freed: somebody must have had it. */
  drop(p: number): void {
    if (exchange(this.live, p >> 3, 0) === 0) this.problem(`0x${p.toString(16)} is freed, but nobody had it`);
  }

  problem(what: string): void {
    if (this.problems.length < 20) this.problems.push(what);
  }
}
