/** What comes before and after the threads of a replay. */
import { OP_WORDS, type TraceProgram, type TraceSummary } from './program.js';
import { openRun, type ReplayArena, type ReplayCounts, runOps } from './replay.js';

/** Creates the caches that a program needs; once per arena, before any `replayCpu`. */
export function createReplayCaches(arena: ReplayArena, program: TraceProgram): void {
  for (const { name, size, sheafCapacity } of program.caches) {
    arena.createCache(name, sheafCapacity === undefined ? { size } : { size, sheafCapacity });
  }
}

/** What was still alive after the last operation. */
export interface FinishCounts {
  /** Objects freed. */
  freed: number;
  /** Of those, areas of percpu memory. */
  percpuFreed: number;
  /** Objects that were not there because their allocation had failed. */
  neverAllocated: number;
  cookieErrors: number;
}

/**
 * Frees the objects that the trace left alive, on this thread. All `replayCpu` must have returned, and this
 * thread must know it from a message or a lock: their slots are read plainly. Leaves the slot table all zeros.
 */
export function finishReplay(program: TraceProgram, arena: ReplayArena, slots: Int32Array): FinishCounts {
  const { live } = program;
  const missing = live.findIndex((slot, i) => i % OP_WORDS === 1 && slots[slot] === 0);
  if (missing >= 0) {
    throw new RangeError(
      `slot ${live[missing]} holds no object: some CPU of the program has not been replayed`,
    );
  }
  const run = openRun(program, arena, -1, slots, live);
  runOps(run, 0, live.length);
  arena.endTurn();
  const { frees, percpuFrees, skippedFrees, cookieErrors } = run.counts;
  return { freed: frees, percpuFreed: percpuFrees, neverAllocated: skippedFrees, cookieErrors };
}

/** The trace and its replay in one: what was recorded, what was done, and whether the two agree. */
export interface ReplaySummary extends TraceSummary {
  replayedAllocs: number;
  replayedFrees: number;
  /** Areas of percpu memory, which are not in the two above. */
  replayedPercpuAllocs: number;
  replayedPercpuFrees: number;
  /** Allocations that the arena could not satisfy. */
  failures: number;
  skippedFrees: number;
  freedAtEnd: number;
  percpuFreedAtEnd: number;
  cookieErrors: number;
  waits: number;
  waitedMs: number;
  /** Of the slowest CPU. */
  elapsedMs: number;
  /** Objects handed out and never given back; 0 in a sound replay. */
  lost: number;
}

/** Events that were replayed: allocations and frees, of objects and of percpu areas. */
export const replayedEvents = (pass: ReplaySummary): number =>
  pass.replayedAllocs + pass.replayedFrees + pass.replayedPercpuAllocs + pass.replayedPercpuFrees;

/** Events of the recording, whatever of it a program does: what programs made of one recording have in common. */
export const recordedEvents = (trace: TraceSummary): number =>
  trace.allocs +
  trace.frees +
  trace.implicitFrees +
  trace.percpuAllocs +
  trace.percpuFrees +
  trace.percpuImplicitFrees;

/** Adds up a replay. `lost` must be 0, and `cookieErrors` too. */
export function summarizeReplay(
  program: TraceProgram,
  counts: readonly ReplayCounts[],
  finish: FinishCounts,
): ReplaySummary {
  const sum = (of: (count: ReplayCounts) => number): number => counts.reduce((total, c) => total + of(c), 0);
  const replayedPercpuAllocs = sum((c) => c.percpuAllocs);
  const replayedPercpuFrees = sum((c) => c.percpuFrees);
  const replayedAllocs = sum((c) => c.allocs) - replayedPercpuAllocs;
  const replayedFrees = sum((c) => c.frees) - replayedPercpuFrees;
  return {
    ...program.summary,
    replayedAllocs,
    replayedFrees,
    replayedPercpuAllocs,
    replayedPercpuFrees,
    failures: sum((c) => c.failures),
    skippedFrees: sum((c) => c.skippedFrees) + finish.neverAllocated,
    freedAtEnd: finish.freed - finish.percpuFreed,
    percpuFreedAtEnd: finish.percpuFreed,
    cookieErrors: sum((c) => c.cookieErrors) + finish.cookieErrors,
    waits: sum((c) => c.waits),
    waitedMs: sum((c) => c.waitedMs),
    elapsedMs: counts.reduce((most, c) => Math.max(most, c.elapsedMs), 0),
    lost: replayedAllocs + replayedPercpuAllocs - replayedFrees - replayedPercpuFrees - finish.freed,
  };
}
