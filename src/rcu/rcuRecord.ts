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
    /** 1 while a thread may be asleep until a CPU becomes quiescent. */
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
  },
  { alignWords: LINE_WORDS },
);
export type RcuCpuPtr = Ptr<'rcu_cpu'>;

/** Addresses that a thread takes out of the lists at once: as many as fit into what it has of the arena, three lines. */
export const KFREE_RCU_BATCH = 30;

/**
 * What one thread's kfree_rcu has gathered past the sheaves, on lines of its own; cache/rcu/kfreeRcuLists.ts has the rules.
 * Up to `cacheAgainAt` all but `heads` is under the lock. Kernel: `struct kfree_rcu_cpu`.
 */
export const KfreeRcuCpu = struct(
  'kfree_rcu_cpu',
  {
    lock: Lock.SIZEOF,
    /** The page of addresses that has room, by channel: objects of slabs, large blocks. */
    slab: 1,
    large: 1,
    /** Pages that wait for their grace periods, first come first. */
    waiting: 1,
    waitingTail: 1,
    /** Objects linked through a word of theirs: those that gather, those that wait and for which grace period. */
    heads: 1,
    waitingHeads: 1,
    headsWaitFor: 1,
    /** Empty pages kept for later, and from which second on there may be some again. */
    cached: 1,
    nrCached: 1,
    cacheAgainAt: 1,
    /**
     * What the thread itself has in hand, for whoever reaps it. An object that counts as freed and is in no list yet, with
     * the word for it or -1; the word of one that a restricted context is about to link.
     */
    hand: 1,
    handHead: 1,
    handNolock: 1,
    /**
     * Objects whose grace period is over and that are no more in a list: those of `batch` from `from` to `end`. Those from
     * `from` to `to`, if that is greater, are being freed.
     */
    from: 1,
    to: 1,
    end: 1,
    batch: KFREE_RCU_BATCH,
  },
  { alignWords: LINE_WORDS },
);
export type KfreeRcuCpuPtr = Ptr<'kfree_rcu_cpu'>;

export const FIRST_GRACE_PERIOD = 1;
export const GRACE_PERIOD_STEP = 2;
/** How far numbers may run ahead of a reader: half of what comparisons by difference can tell. */
export const LEAD_MAX = 1 << 30;

/** Words of the region for so many thread slots. */
export const rcuWords = (threads: number): number =>
  RcuState.SIZEOF + threads * (RcuCpu.SIZEOF + KfreeRcuCpu.SIZEOF);

export const rcuStateOf = (geometry: Geometry): RcuStatePtr => geometry.rcu as RcuStatePtr;

export const rcuCpuOf = (geometry: Geometry, cpu: number): RcuCpuPtr =>
  (geometry.rcu + RcuState.SIZEOF + cpu * RcuCpu.SIZEOF) as RcuCpuPtr;

export const krcpOf = (geometry: Geometry, cpu: number): KfreeRcuCpuPtr =>
  (geometry.rcu +
    RcuState.SIZEOF +
    geometry.threads * RcuCpu.SIZEOF +
    cpu * KfreeRcuCpu.SIZEOF) as KfreeRcuCpuPtr;
