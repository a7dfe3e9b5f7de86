/** Which class of locks a thread gets: one for each tier of statistics, with or without lockdep. */
import type { Doubles, Ptr, Words } from '../struct/index.js';
import { Locks } from './lock.js';
import type { Lockdep } from './lockdep.js';
import { withLockdep } from './lockdepLocks.js';
import { SiteLocks } from './lockSites.js';
import { CountingLocks, HoldTimingLocks, type LockStatTier } from './lockStat.js';

const SAMPLE_EVERY = 64;

/** Where this thread's statistics lie, in words, and who checks its locks. */
interface LockWatch {
  readonly stats: number;
  /** Its call sites; 0 when none are kept. */
  readonly sites?: number;
  readonly lockdep?: Lockdep | undefined;
}

/** The locks of one thread. One class per process keeps its call sites monomorphic. */
export function makeLocks(
  tier: LockStatTier,
  m: Words,
  f64: Doubles,
  owner: number,
  record: Ptr<'lock_record'>,
  { stats, sites = 0, lockdep }: LockWatch,
): Locks {
  const checked = <Args extends unknown[]>(Base: new (...args: Args) => Locks) =>
    lockdep === undefined ? Base : withLockdep(Base, lockdep);
  switch (tier) {
    case 'off':
      return new (checked(Locks))(m, owner, record);
    case 'contended':
      return new (checked(CountingLocks))(m, f64, owner, record, stats);
    case 'sampled':
      return new (checked(HoldTimingLocks))(m, f64, owner, record, stats, SAMPLE_EVERY);
    case 'full':
      return sites === 0
        ? new (checked(HoldTimingLocks))(m, f64, owner, record, stats, 1)
        : new (checked(SiteLocks))(m, f64, owner, record, stats, 1, sites);
  }
}
