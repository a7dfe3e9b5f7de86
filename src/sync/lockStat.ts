/**
 * Lock statistics in tiers, one class each, so that an arena without them has neither branch nor field.
 *
 * Every number is written by its own thread into its own block with plain stores; a reader adds the blocks, which
 * is exact when the threads are quiet. Shared atomic counters would cost another locked instruction each.
 */
import { type Doubles, LINE_WORDS, type Ptr, struct, type Words } from '../struct/index.js';
import { cmpxchg } from './atomic.js';
import { HELD_LOCKS_MAX, Lock, type LockPtr, Locks } from './lock.js';
import { LOCK_CLASS_NAMES, type LockClassId, NR_LOCK_CLASSES } from './lockClass.js';
import type { LockPoint } from './lockSites.js';
import { UNLOCKED } from './lockWord.js';

export const LOCK_STAT_TIERS = ['off', 'contended', 'sampled', 'full'] as const;
/** How much is counted about locks. */
export type LockStatTier = (typeof LOCK_STAT_TIERS)[number];

/** Per thread and class; in doubles (two words), exact to 2^53. Times in nanoseconds. */
export const LockStat = struct(
  'lock_stat',
  {
    acquisitions: 2,
    contentions: 2,
    bounces: 2,
    contentionBounces: 2,
    tryFailed: 2,
    waitTotal: 2,
    waitMin: 2,
    waitMax: 2,
    holdSamples: 2,
    holdTotal: 2,
    holdMin: 2,
    holdMax: 2,
  },
  { alignWords: LINE_WORDS },
);

export const LOCK_STAT_WORDS = NR_LOCK_CLASSES * LockStat.SIZEOF;

const { lastOwner: LAST_OWNER } = Lock;
const ACQUISITIONS = LockStat.acquisitions / 2;
const CONTENTIONS = LockStat.contentions / 2;
const BOUNCES = LockStat.bounces / 2;
const CONTENTION_BOUNCES = LockStat.contentionBounces / 2;
const TRY_FAILED = LockStat.tryFailed / 2;
const WAIT_TOTAL = LockStat.waitTotal / 2;
const WAIT_MIN = LockStat.waitMin / 2;
const WAIT_MAX = LockStat.waitMax / 2;
const HOLD_SAMPLES = LockStat.holdSamples / 2;
const HOLD_TOTAL = LockStat.holdTotal / 2;
const HOLD_MIN = LockStat.holdMin / 2;
const HOLD_MAX = LockStat.holdMax / 2;
const STRIDE = LockStat.SIZEOF / 2;

/** Sign bit of a lock's last owner: somebody waited while it held the lock. See lockSites.ts. */
export const CONTENDED = 1 << 31;

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
    this.prepare(lock, cls);
    if (cmpxchg(this.m, lock, UNLOCKED, this.owner) !== UNLOCKED) this.timedWait(lock, cls);
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

  /** 0 is no figure yet. */
  protected lower(cls: LockClassId, field: number, value: number): void {
    const at = this.base + cls * STRIDE + field;
    if (value < this.f64[at]! || this.f64[at] === 0) this.f64[at] = value;
  }

  /** Called with the lock held, so `lastOwner` is ours to write. */
  private count(lock: LockPtr, cls: LockClassId): void {
    this.add(cls, ACQUISITIONS, 1);
    const last = this.m[lock + LAST_OWNER]! & ~CONTENDED;
    if (last === this.owner) return;
    this.m[lock + LAST_OWNER] = this.owner;
    if (last !== 0) this.add(cls, BOUNCES, 1);
  }

  private timedWait(lock: LockPtr, cls: LockClassId): void {
    // Plain read of what its holder may be about to write: a hint.
    const bounced = (this.m[lock + LAST_OWNER]! & ~CONTENDED) !== this.owner;
    const start = performance.now();
    this.contended(lock, cls);
    this.waited(cls, (performance.now() - start) * 1e6);
    if (bounced) this.add(cls, CONTENTION_BOUNCES, 1);
  }

  /** A contended acquisition took that long. */
  protected waited(cls: LockClassId, ns: number): void {
    this.add(cls, CONTENTIONS, 1);
    this.add(cls, WAIT_TOTAL, ns);
    this.lower(cls, WAIT_MIN, ns);
    this.raise(cls, WAIT_MAX, ns);
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
    this.lower(cls, HOLD_MIN, holdNs);
    this.raise(cls, HOLD_MAX, holdNs);
  }

  private startTiming(): void {
    this.countdown = this.every;
    this.since[this.held - 1] = performance.now();
  }
}

/** One class's figures, summed over threads. Times in nanoseconds; hold times cover `holdSamples` acquisitions. */
export interface LockStatRow {
  name: string;
  acquisitions: number;
  contentions: number;
  /** Acquisitions by another thread than the one before. */
  bounces: number;
  /** Contended acquisitions of a lock that another thread had last. */
  contentionBounces: number;
  tryFailed: number;
  waitTotalNs: number;
  /** Of contended acquisitions; 0 when there was none. */
  waitMinNs: number;
  waitMaxNs: number;
  holdSamples: number;
  holdTotalNs: number;
  holdMinNs: number;
  holdMaxNs: number;
  /** Where threads waited for a lock of the class, the most frequent first; in the tier 'full' alone. */
  contentionPoints: LockPoint[];
  /** Where a lock of the class was held while others waited for it. */
  contendedPoints: LockPoint[];
}

/** Adds up the blocks of `threads` thread slots that begin at word `area`; call sites lie elsewhere. */
export function readLockStat(f64: Doubles, area: number, threads: number): LockStatRow[] {
  return LOCK_CLASS_NAMES.map((name, cls) => {
    const field = (offset: number, thread: number): number =>
      f64[(area + thread * LOCK_STAT_WORDS) / 2 + cls * STRIDE + offset]!;
    const each = (offset: number): number[] => Array.from({ length: threads }, (_, t) => field(offset, t));
    const sum = (offset: number): number => each(offset).reduce((a, b) => a + b, 0);
    const max = (offset: number): number => Math.max(...each(offset));
    const min = (offset: number): number => {
      const known = each(offset).filter((value) => value !== 0);
      return known.length === 0 ? 0 : Math.min(...known);
    };
    return {
      name,
      acquisitions: sum(ACQUISITIONS),
      contentions: sum(CONTENTIONS),
      bounces: sum(BOUNCES),
      contentionBounces: sum(CONTENTION_BOUNCES),
      tryFailed: sum(TRY_FAILED),
      waitTotalNs: sum(WAIT_TOTAL),
      waitMinNs: min(WAIT_MIN),
      waitMaxNs: max(WAIT_MAX),
      holdSamples: sum(HOLD_SAMPLES),
      holdTotalNs: sum(HOLD_TOTAL),
      holdMinNs: min(HOLD_MIN),
      holdMaxNs: max(HOLD_MAX),
      contentionPoints: [],
      contendedPoints: [],
    };
  });
}
