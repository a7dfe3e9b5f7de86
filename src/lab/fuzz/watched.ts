/** A fuzzer on a thread of its own, and somebody who looks whether it goes on: a call that never returns is a fault. */
import { Worker } from 'node:worker_threads';
import { WORKER_EXEC_ARGV } from '../execArgv.js';
import { FUZZ_ARENAS, type FuzzReport } from './fuzz.js';
import { type FuzzPlace, FuzzProgress } from './progress.js';

/** A call takes microseconds, and there is no other thread that it could wait for. */
export const CALL_LIMIT_MS = 20_000;

/** A thread has all of the code to load first. */
const START_LIMIT_MS = 60_000;

interface WatchedOptions {
  /** How long a call may take. */
  limitMs?: number;
  /** The thread that runs `fuzzInThread`, by default workers/fuzz.js. */
  worker?: URL;
}

/** What the thread gets as its workerData. */
export interface FuzzTask {
  calls: number;
  seed: number;
  progress: SharedArrayBuffer;
}

/**
 * `fuzz(calls, seed)` on a thread. If a call does not return in time, the thread is terminated, and the report has nothing
 * but a fault that names the call, the arena and the seed, and how to come there again.
 */
export async function fuzzWatched(
  calls: number,
  seed: number,
  { limitMs = CALL_LIMIT_MS, worker = new URL(import.meta.resolve('#workers/fuzz.js')) }: WatchedOptions = {},
): Promise<FuzzReport> {
  const progress = new FuzzProgress();
  const workerData: FuzzTask = { calls, seed, progress: progress.buffer };
  const thread = new Worker(worker, { workerData, execArgv: [...WORKER_EXEC_ARGV] });
  let watch: ReturnType<typeof setInterval> | undefined;
  try {
    return await new Promise<FuzzReport>((resolve) => {
      const fail = (fault: string): void => resolve(failed(progress.read(), fault, seed));
      thread.once('message', resolve);
      thread.once('error', (error) => fail(`the thread ended: ${String(error.stack ?? error)}`));
      thread.once('exit', (code) => fail(`the thread ended with code ${code}`));
      watch = watchFor(progress, limitMs, () => fail(`did not return within ${limitMs / 1000} s`));
    });
  } finally {
    clearInterval(watch);
    await thread.terminate();
  }
}

/** Calls `hung` once the fuzzer has been at the same place for the whole limit. */
function watchFor(progress: FuzzProgress, limitMs: number, hung: () => void): ReturnType<typeof setInterval> {
  let seen = '';
  let since = performance.now();
  return setInterval(() => {
    const now = JSON.stringify(progress.read());
    if (now !== seen) {
      seen = now;
      since = performance.now();
    } else if (performance.now() - since > (progress.hasBegun ? limitMs : START_LIMIT_MS)) hung();
  }, limitMs / 20);
}

function failed({ call, arena, step }: FuzzPlace, what: string, seed: number): FuzzReport {
  const options = JSON.stringify(FUZZ_ARENAS[arena % FUZZ_ARENAS.length]);
  const again = `again with --calls ${call} --seed ${seed}`;
  const faults = [`arena ${arena} (${options}), seed ${seed}, call ${call}, ${step}: ${what}; ${again}`];
  return { calls: call, accepted: 0, refused: 0, compared: 0, byName: new Map(), faults };
}
