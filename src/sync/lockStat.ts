/**
 * Lock statistics in tiers, one class each, so that an arena without them has neither branch nor field.
 *
 * Every number is written by its own thread into its own block with plain stores; a reader adds the blocks, which
 * is exact when the threads are quiet. Shared atomic counters would cost another locked instruction each.
 */
import { type Doubles, LINE_WORDS, type Ptr, struct, type Words } from '../struct/index.js';
import { cmpxchg } from './atomic.js';
import { HELD_LOCKS_MAX, Lock, type LockPtr, LockRecord, Locks } from './lock.js';
import { LOCK_CLASS_NAMES, type LockClassId, NR_LOCK_CLASSES } from './lockClass.js';
import type { Lockdep } from './lockdep.js';
import { withLockdep } from './lockdepLocks.js';
import { UNLOCKED } from './lockWord.js';

export const LOCK_STAT_TIERS = ['off', 'contended', 'sampled', 'full'] as const;
export type LockStatTier = (typeof LOCK_STAT_TIERS)[number];

/** Per thread and class; in doubles (two words), exact to 2^53. Times in nanoseconds. */
export const LockStat = struct(
  'lock_stat',
  {
    acquisitions: 2,
    contentions: 2,
    bounces: 2,
    tryFailed: 2,
    waitTotal: 2,
    waitMax: 2,
    holdSamples: 2,
    holdTotal: 2,
    holdMax: 2,
  },
  { alignWords: LINE_WORDS },
);

export const LOCK_STAT_WORDS = NR_LOCK_CLASSES * LockStat.SIZEOF;

const { lastOwner: LAST_OWNER } = Lock;
const { pending: PENDING } = LockRecord;
const ACQUISITIONS = LockStat.acquisitions / 2;
const CONTENTIONS = LockStat.contentions / 2;
const BOUNCES = LockStat.bounces / 2;
const TRY_FAILED = LockStat.tryFailed / 2;
const WAIT_TOTAL = LockStat.waitTotal / 2;
const WAIT_MAX = LockStat.waitMax / 2;
const HOLD_SAMPLES = LockStat.holdSamples / 2;
const HOLD_TOTAL = LockStat.holdTotal / 2;
const HOLD_MAX = LockStat.holdMax / 2;
const STRIDE = LockStat.SIZEOF / 2;

/** Counts acquisitions and owner changes, and times the waits of contended acquisitions only. */
export class CountingLocks extends Locks {
  protected readonly f64: Doubles;
  /** This thread's statistics block, as an index of doubles. */
  protected readonly base: number;

  constructor(m: Words, f64: Doubles, owner: number, record: Ptr<'lock_record'>, block: number) {
    super(m, owner, record);
    this.f64 = f64;
    this.base = block / 2;
  }

  override lock(lock: LockPtr, cls: LockClassId): void {
    const m = this.m;
    m[this.record + PENDING] = lock;
    if (cmpxchg(m, lock, UNLOCKED, this.owner) !== UNLOCKED) this.timedWait(lock, cls);
    this.pushHeld(lock);
    this.count(lock, cls);
  }

  override tryLock(lock: LockPtr, cls: LockClassId): boolean {
    const taken = super.tryLock(lock, cls);
    this.countTry(lock, cls, taken);
    return taken;
  }

  override noteTry(lock: LockPtr, cls: LockClassId, taken: boolean): void {
    this.countTry(lock, cls, taken);
  }

  private countTry(lock: LockPtr, cls: LockClassId, taken: boolean): void {
    if (taken) this.count(lock, cls);
    else this.add(cls, TRY_FAILED, 1);
  }

  protected add(cls: LockClassId, field: number, value: number): void {
    const at = this.base + cls * STRIDE + field;
    this.f64[at] = this.f64[at]! + value;
  }

  protected raise(cls: LockClassId, field: number, value: number): void {
    const at = this.base + cls * STRIDE + field;
    if (value > this.f64[at]!) this.f64[at] = value;
  }

  /** Called with the lock held, so `lastOwner` is ours to write. */
  private count(lock: LockPtr, cls: LockClassId): void {
    this.add(cls, ACQUISITIONS, 1);
    const last = this.m[lock + LAST_OWNER]!;
    if (last === this.owner) return;
    this.m[lock + LAST_OWNER] = this.owner;
    if (last !== 0) this.add(cls, BOUNCES, 1);
  }

  private timedWait(lock: LockPtr, cls: LockClassId): void {
    const start = performance.now();
    this.contended(lock, cls);
    const waitNs = (performance.now() - start) * 1e6;
    this.add(cls, CONTENTIONS, 1);
    this.add(cls, WAIT_TOTAL, waitNs);
    this.raise(cls, WAIT_MAX, waitNs);
  }
}

/** Also times how long one acquisition in `every` is held; the release stamp is taken after the unlock. */
export class HoldTimingLocks extends CountingLocks {
  private readonly every: number;
  private countdown: number;
  /** When the lock at each nesting depth was taken, 0 when that one is not timed. */
  private readonly since = new Float64Array(HELD_LOCKS_MAX);

  constructor(
    m: Words,
    f64: Doubles,
    owner: number,
    record: Ptr<'lock_record'>,
    block: number,
    every: number,
  ) {
    super(m, f64, owner, record, block);
    this.every = every;
    this.countdown = every;
  }

  override lock(lock: LockPtr, cls: LockClassId): void {
    super.lock(lock, cls);
    if (--this.countdown === 0) this.startTiming();
  }

  override tryLock(lock: LockPtr, cls: LockClassId): boolean {
    const taken = super.tryLock(lock, cls);
    if (taken && --this.countdown === 0) this.startTiming();
    return taken;
  }

  override unlock(lock: LockPtr, cls: LockClassId): void {
    const depth = this.held - 1;
    const since = this.since[depth]!;
    super.unlock(lock, cls);
    if (since === 0) return;
    this.since[depth] = 0;
    const holdNs = (performance.now() - since) * 1e6;
    this.add(cls, HOLD_SAMPLES, 1);
    this.add(cls, HOLD_TOTAL, holdNs);
    this.raise(cls, HOLD_MAX, holdNs);
  }

  private startTiming(): void {
    this.countdown = this.every;
    this.since[this.held - 1] = performance.now();
  }
}

const SAMPLE_EVERY = 64;

/** The lock class for a tier, with or without lockdep. One class per process keeps its call sites monomorphic. */
export function makeLocks(
  tier: LockStatTier,
  m: Words,
  f64: Doubles,
  owner: number,
  record: Ptr<'lock_record'>,
  block: number,
  lockdep?: Lockdep,
): Locks {
  const checked = <Args extends unknown[]>(Base: new (...args: Args) => Locks) =>
    lockdep === undefined ? Base : withLockdep(Base, lockdep);
  switch (tier) {
    case 'off':
      return new (checked(Locks))(m, owner, record);
    case 'contended':
      return new (checked(CountingLocks))(m, f64, owner, record, block);
    case 'sampled':
      return new (checked(HoldTimingLocks))(m, f64, owner, record, block, SAMPLE_EVERY);
    case 'full':
      return new (checked(HoldTimingLocks))(m, f64, owner, record, block, 1);
  }
}

/** One class's figures, summed over threads. Times in nanoseconds; hold times cover `holdSamples` acquisitions. */
export interface LockStatRow {
  name: string;
  acquisitions: number;
  contentions: number;
  /** Acquisitions by another thread than the one before. */
  bounces: number;
  tryFailed: number;
  waitTotalNs: number;
  waitMaxNs: number;
  holdSamples: number;
  holdTotalNs: number;
  holdMaxNs: number;
}

/** Adds up the blocks of `threads` thread slots that begin at word `area`. */
export function readLockStat(f64: Doubles, area: number, threads: number): LockStatRow[] {
  return LOCK_CLASS_NAMES.map((name, cls) => {
    const field = (offset: number, thread: number): number =>
      f64[(area + thread * LOCK_STAT_WORDS) / 2 + cls * STRIDE + offset]!;
    const each = (offset: number): number[] => Array.from({ length: threads }, (_, t) => field(offset, t));
    const sum = (offset: number): number => each(offset).reduce((a, b) => a + b, 0);
    const max = (offset: number): number => Math.max(...each(offset));
    return {
      name,
      acquisitions: sum(ACQUISITIONS),
      contentions: sum(CONTENTIONS),
      bounces: sum(BOUNCES),
      tryFailed: sum(TRY_FAILED),
      waitTotalNs: sum(WAIT_TOTAL),
      waitMaxNs: max(WAIT_MAX),
      holdSamples: sum(HOLD_SAMPLES),
      holdTotalNs: sum(HOLD_TOTAL),
      holdMaxNs: max(HOLD_MAX),
    };
  });
}
