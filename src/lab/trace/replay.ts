/**
 * Runs a compiled trace on an arena, one thread per target CPU. The order between CPUs is that of the slot table
 * (program.ts, S1 to S4); nothing else is synchronised, so what is recorded as concurrent runs concurrently.
 *
 * Waiting: a free that finds its cross slot empty first spins, then ends the turn, so that the thread sleeps
 * without a lock of the arena, and looks again after growing naps. Nobody wakes it: an allocation would pay for a
 * wake-up that is hardly ever needed. Every wait has a limit and then throws, naming CPU, operation and slot.
 *
 * Cookies: the first word of each object holds a number made from its slot, checked at the free. Two live objects
 * never have the same slot, so an address handed out twice shows as a cookie error.
 */
import { __GFP_NOWARN, GFP_ATOMIC, GFP_KERNEL } from '../../page/index.js';
import { futexWait, loadAcquire, storeRelease } from '../../sync/index.js';
import { ReplayTimeoutError } from './error.js';
import {
  FAILED,
  OP_ARG_SHIFT,
  OP_ATOMIC,
  OP_CROSS,
  OP_FREE,
  OP_KMALLOC,
  OP_RCU,
  OP_WORDS,
  PERCPU_ALIGN_MASK,
  PERCPU_ALIGN_SHIFT,
  PERCPU_SIZE_MASK,
  type TraceProgram,
} from './program.js';

// Module-local, so that V8 folds them.
const FREE = OP_FREE;
const KMALLOC = OP_KMALLOC;
const CROSS = OP_CROSS;
const RCU = OP_RCU;
const ARG_SHIFT = OP_ARG_SHIFT;
const STEP = OP_WORDS;
const NO_OBJECT = FAILED;

const COOKIE_FACTOR = 0x9e3779b1;
const COOKIE_FLIP = 0x5bd1e995;
/** Operations between two ends of a turn: no lock is kept for longer than some 100 microseconds. */
const TURN_OPS = 4096;
const SAMPLE_EVERY = 64;
const SPINS = 200;
const NAP_MIN_MS = 0.02;
const NAP_MAX_MS = 1;
const WAIT_LIMIT_MS = 10_000;

/** What the replay needs of a cache; KmemCache has it. */
export interface ReplayCache {
  alloc(): number;
  free(address: number): void;
  freeRcu(address: number): void;
}

/** What the replay needs of an arena; Arena has it. */
export interface ReplayArena {
  openCache(name: string): ReplayCache;
  createCache(name: string, options: { size: number; sheafCapacity?: number }): unknown;
  kmalloc(size: number): number;
  kfree(address: number): void;
  kfreeRcu(address: number): void;
  readonly rcu: { readLock(): void; readUnlock(): void };
  allocPercpu(size: number, align: number, gfp: number): number;
  freePercpu(p: number): void;
  perCpuPtr(p: number, cpu: number): number;
  /** Releases the locks this thread holds. */
  endTurn(): void;
  readonly i32: Int32Array;
}

/** Takes sampled latencies, such as a histogram. Includes one reading of the clock, about 50 ns. */
export interface LatencySink {
  recordAlloc(ns: number): void;
  recordFree(ns: number): void;
}

export interface ReplayOptions {
  /** Gets the time of every 64th operation. */
  latency?: LatencySink | undefined;
  /** How long to wait for an object of another CPU before giving up; 10 seconds unless given. */
  waitLimitMs?: number | undefined;
}

/** What one CPU did; `allocs` counts successes. */
export interface ReplayCounts {
  cpu: number;
  allocs: number;
  frees: number;
  /** Of those, areas of percpu memory. */
  percpuAllocs: number;
  percpuFrees: number;
  /** Allocations that returned 0. */
  failures: number;
  /** Frees that were left out because the allocation had failed. */
  skippedFrees: number;
  /** Objects whose first word was not what was written into it. */
  cookieErrors: number;
  /** Frees that had to sleep until another CPU allocated, and for how long in all. */
  waits: number;
  waitedMs: number;
  elapsedMs: number;
}

/** One CPU's replay; what the loop needs, hoisted out of the program. */
interface ReplayRun {
  ops: Int32Array;
  slots: Int32Array;
  i32: Int32Array;
  caches: ReplayCache[];
  arena: ReplayArena;
  /** Whether the program frees by kfree_rcu: then every turn reads, so that there is something to wait for. */
  reads: boolean;
  waitLimitMs: number;
  counts: ReplayCounts;
}

const emptyCounts = (cpu: number): ReplayCounts => ({
  cpu,
  allocs: 0,
  frees: 0,
  percpuAllocs: 0,
  percpuFrees: 0,
  failures: 0,
  skippedFrees: 0,
  cookieErrors: 0,
  waits: 0,
  waitedMs: 0,
  elapsedMs: 0,
});

/** Prepares a run of `ops`; opens the program's caches, each once. */
export function openRun(
  program: TraceProgram,
  arena: ReplayArena,
  cpu: number,
  slots: Int32Array,
  ops: Int32Array,
  waitLimitMs = WAIT_LIMIT_MS,
): ReplayRun {
  if (slots.length < program.slots) {
    throw new RangeError(`the slot table has ${slots.length} words, this program needs ${program.slots}`);
  }
  const reads = program.summary.rcuFrees > 0;
  const caches = program.caches.map((cache) => arena.openCache(cache.name));
  return { ops, slots, i32: arena.i32, caches, arena, reads, waitLimitMs, counts: emptyCounts(cpu) };
}

/** The hot loop: the operations whose words are `[from, to)`. */
export function runOps(run: ReplayRun, from: number, to: number): void {
  const { ops, slots, i32, caches, arena, counts } = run;
  let allocs = 0;
  let frees = 0;
  for (let i = from; i < to; i += STEP) {
    const op = ops[i];
    const slot = ops[i + 1];
    const cookie = Math.imul(slot, COOKIE_FACTOR) ^ COOKIE_FLIP;
    if ((op & FREE) === 0) {
      let p: number;
      if ((op & KMALLOC) === 0) p = caches[op >>> ARG_SHIFT].alloc();
      else p = op >= 0 ? arena.kmalloc(op >>> ARG_SHIFT) : allocPercpu(run, op);
      if (p === 0) {
        counts.failures++;
        p = NO_OBJECT;
      } else {
        allocs++;
        i32[(op >= 0 ? p : arena.perCpuPtr(p, 0)) >>> 2] = cookie;
      }
      if ((op & CROSS) === 0) slots[slot] = p;
      // Pairs with the loadAcquire in awaitObject: who sees the address sees the cookie.
      else storeRelease(slots, slot, p);
      continue;
    }
    const p = ((op & CROSS) === 0 ? slots[slot] : awaitObject(run, i, slot)) >>> 0;
    slots[slot] = 0;
    if (p === NO_OBJECT) {
      counts.skippedFrees++;
      continue;
    }
    if (i32[(op >= 0 ? p : arena.perCpuPtr(p, 0)) >>> 2] !== cookie) counts.cookieErrors++;
    frees++;
    if ((op & (KMALLOC | RCU)) === 0) caches[op >>> ARG_SHIFT].free(p);
    else freeOther(run, op, p);
  }
  counts.allocs += allocs;
  counts.frees += frees;
}

function freeOther(run: ReplayRun, op: number, p: number): void {
  const { arena, caches } = run;
  if (op < 0) freePercpu(run, p);
  else if ((op & RCU) === 0) arena.kfree(p);
  else if ((op & KMALLOC) !== 0) arena.kfreeRcu(p);
  else caches[op >>> ARG_SHIFT].freeRcu(p);
}

/** A CPU of the kernel is in a read section again and again, and quiescent when it switches: here, when a turn ends. */
function beginTurn({ reads, arena }: ReplayRun): void {
  if (!reads) return;
  arena.rcu.readLock();
  arena.rcu.readUnlock();
}

/** Takes an area of percpu memory; its cookie goes into the copy of CPU 0. */
function allocPercpu({ arena, counts }: ReplayRun, op: number): number {
  const size = (op >>> ARG_SHIFT) & PERCPU_SIZE_MASK;
  const align = 1 << ((op >>> PERCPU_ALIGN_SHIFT) & PERCPU_ALIGN_MASK);
  let p = (op & OP_ATOMIC) === 0 ? 0 : arena.allocPercpu(size, align, GFP_ATOMIC | __GFP_NOWARN);
  // What the kernel had populated by then may be missing here, and the recorded one did succeed.
  if (p === 0) p = arena.allocPercpu(size, align, GFP_KERNEL);
  if (p !== 0) counts.percpuAllocs++;
  return p;
}

function freePercpu({ arena, counts }: ReplayRun, p: number): void {
  arena.freePercpu(p);
  counts.percpuFrees++;
}

/** The address in a cross slot, as soon as the allocating CPU has stored it. */
function awaitObject(run: ReplayRun, op: number, slot: number): number {
  const { slots } = run;
  for (let spin = 0; spin < SPINS; spin++) {
    const p = loadAcquire(slots, slot);
    if (p !== 0) return p;
  }
  return awaitObjectAsleep(run, op, slot);
}

function awaitObjectAsleep(run: ReplayRun, op: number, slot: number): number {
  const { slots, counts } = run;
  // The other CPU may be waiting for a lock that this turn holds.
  run.arena.endTurn();
  const start = performance.now();
  counts.waits++;
  for (let nap = NAP_MIN_MS; ; nap = Math.min(nap * 2, NAP_MAX_MS)) {
    futexWait(slots, slot, 0, nap);
    const p = loadAcquire(slots, slot);
    const waited = performance.now() - start;
    if (p !== 0) {
      counts.waitedMs += waited;
      return p;
    }
    if (waited > run.waitLimitMs) throw new ReplayTimeoutError(counts.cpu, slot, op / STEP, waited);
  }
}

/** Times one operation; what it waits for on another CPU is over before the clock starts. */
function timeOp(run: ReplayRun, at: number, sink: LatencySink): void {
  const op = run.ops[at];
  if ((op & (FREE | CROSS)) === (FREE | CROSS)) awaitObject(run, at, run.ops[at + 1]);
  const start = performance.now();
  runOps(run, at, at + STEP);
  const ns = (performance.now() - start) * 1e6;
  if ((op & FREE) === 0) sink.recordAlloc(ns);
  else sink.recordFree(ns);
}

function runPlain(run: ReplayRun): void {
  const { length } = run.ops;
  for (let at = 0; at < length; at += TURN_OPS * STEP) {
    beginTurn(run);
    runOps(run, at, Math.min(at + TURN_OPS * STEP, length));
    run.arena.endTurn();
  }
}

function runSampled(run: ReplayRun, sink: LatencySink): void {
  const { length } = run.ops;
  const window = SAMPLE_EVERY * STEP;
  let at = 0;
  for (; at + window <= length; at += window) {
    runOps(run, at, at + window - STEP);
    timeOp(run, at + window - STEP, sink);
    if ((at / STEP) % TURN_OPS !== 0) continue;
    run.arena.endTurn();
    beginTurn(run);
  }
  runOps(run, at, length);
  run.arena.endTurn();
}

/**
 * Runs the operations of target CPU `cpu` on this thread. All CPUs of a program must run at the same time, each
 * on a thread that is online in the arena, with one slot table that holds only zeros at the start. The caches
 * must exist (`createReplayCaches`). Throws {@link ReplayTimeoutError} when another CPU's object does not come,
 * and what the arena throws on misuse.
 */
export function replayCpu(
  program: TraceProgram,
  arena: ReplayArena,
  cpu: number,
  slots: Int32Array,
  options: ReplayOptions = {},
): ReplayCounts {
  if (!Number.isInteger(cpu) || cpu < 0 || cpu >= program.cpus) {
    throw new RangeError(`cpu must be from 0 to ${program.cpus - 1}, the CPUs of the program; got ${cpu}`);
  }
  const run = openRun(program, arena, cpu, slots, program.ops[cpu], options.waitLimitMs);
  const start = performance.now();
  if (options.latency === undefined) runPlain(run);
  else runSampled(run, options.latency);
  run.counts.elapsedMs = performance.now() - start;
  return run.counts;
}
