/**
 * What threads tell each other about read sections.
 *
 * Grace periods have numbers: odd, growing by 2, compared by their difference so that they may wrap. A CPU's `seq` is
 * 0 while it is quiescent, for whoever looks, without end: between turns, parked, offline. While it may be reading it
 * is the number that was current at its last quiescent state.
 */
import { type Geometry, LINE_WORDS, type Ptr, struct } from '../struct/index.js';
import { Lock } from '../sync/index.js';

/** One per arena. The words that everybody reads lie apart from those that waiters write. */
export const RcuState = struct(
  'rcu_state',
  {
    /** The youngest grace period that somebody asked for. */
    current: LINE_WORDS,
    /** The youngest of which it is known that every reader from before it is done; a hint that saves a scan. */
    completed: LINE_WORDS,
    /** Threads that sleep until a CPU becomes quiescent. */
    waiters: 1,
    /** What they sleep on; changes with each wake. */
    wake: 1,
  },
  { alignWords: LINE_WORDS },
);
export type RcuStatePtr = Ptr<'rcu_state'>;

/** One per thread slot, on a line of its own. "CPU" in this folder is a thread slot: they differ where threads share CPUs. */
export const RcuCpu = struct(
  'rcu_cpu',
  {
    /** 0: quiescent; else the grace period of its last quiescent state. Written by its CPU, and by whoever reaps it. */
    seq: 1,
    /** Callbacks it was given, and how many of them it has run; written by its CPU. */
    queued: 1,
    invoked: 1,
    /** kfree_rcu's pages of addresses, and the lock under which they are; see cache/kfreeRcu.ts. */
    krcp: Lock.SIZEOF,
    gathering: 1,
    waiting: 1,
    /** The grace period that `waiting` waits for. */
    waitingFor: 1,
  },
  { alignWords: LINE_WORDS },
);
export type RcuCpuPtr = Ptr<'rcu_cpu'>;

export const FIRST_GRACE_PERIOD = 1;
export const GRACE_PERIOD_STEP = 2;

/** Words of the region for so many thread slots. */
export const rcuWords = (threads: number): number => RcuState.SIZEOF + threads * RcuCpu.SIZEOF;

export const rcuStateOf = (geometry: Geometry): RcuStatePtr => geometry.rcu as RcuStatePtr;

export const rcuCpuOf = (geometry: Geometry, cpu: number): RcuCpuPtr =>
  (geometry.rcu + RcuState.SIZEOF + cpu * RcuCpu.SIZEOF) as RcuCpuPtr;
