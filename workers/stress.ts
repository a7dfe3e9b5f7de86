/** piscina entry of the stress: one life of one thread. */
import { threadId } from 'node:worker_threads';
import { Arena } from '../src/index.js';
import { bequeath, Control, type StressCounts, type StressShared } from '../src/lab/stress/shared.js';
import { StressThread } from '../src/lab/stress/stressWorker.js';
import { futexWait, storeRelease } from '../src/sync/index.js';

export interface StressTask {
  shared: StressShared;
  slot: number;
  seed: number;
  ms: number;
  /** How this life ends: 'offline' leaves in order, 'vanish' is terminated with its sheaves full. */
  end: 'offline' | 'vanish';
}

/** Long enough for any round: main terminates us before. */
const PARK_MS = 60_000;

export default async function life(task: StressTask): Promise<StressCounts> {
  const { shared, slot, end } = task;
  const arena = Arena.attach(shared.arena);
  const cpu = arena.online({ tid: threadId });
  storeRelease(shared.control, Control.threadId + slot, threadId);
  storeRelease(shared.control, Control.cpu + slot, cpu.thread);
  const thread = new StressThread(shared, arena, task.seed);
  await thread.run(performance.now() + task.ms);
  thread.freeAll();
  if (end === 'offline') {
    arena.offline();
    return thread.counts;
  }
  bequeath(shared, thread.counts);
  // The last frees of this life are still in the turn: its locks are held and its counts not folded.
  storeRelease(shared.control, Control.parked + slot, thread.counts.problems.length > 0 ? 2 : 1);
  futexWait(shared.control, Control.parked + slot, 1, PARK_MS);
  throw new Error(thread.counts.problems.join('; ') || 'nobody terminated the parked thread');
}
