/** Roles that work on bare locks, without an arena. */
import { LockError, type Words } from '../../src/struct/index.js';
import {
  LOCK_STAT_WORDS,
  LockClass,
  type LockPtr,
  LockRecord,
  type LockStatTier,
  type Locks,
  loadAcquire,
  makeLocks,
  ownerWord,
  WAITERS,
} from '../../src/sync/index.js';
import { Control, FREE_WORDS, type LitmusTask, number } from './control.js';

/** Places in a control buffer, in words. The counter is plain memory that only the lock protects. */
export const LOCK_AT = FREE_WORDS + 16;
export const COUNTER_AT = FREE_WORDS + 32;
export const LAST_AT = FREE_WORDS + 33;
export const CHANGES_AT = FREE_WORDS + 34;
const RECORDS_AT = FREE_WORDS + 64;
export const STATS_AT = 1024;

/** The locks of one CPU over a control buffer. */
export function locksOf(m: Words, tier: LockStatTier, cpu: number, generation = 1): Locks {
  const record = (RECORDS_AT + cpu * LockRecord.SIZEOF) as never;
  const stats = STATS_AT + cpu * LOCK_STAT_WORDS;
  return makeLocks(tier, m, new Float64Array(m.buffer), ownerWord(cpu, generation), record, { stats });
}

/** Increments the counter under the lock, and counts how often the lock changed hands. */
function increment(task: LitmusTask): number {
  const control = new Control(task.control);
  const { m } = control;
  const cpu = number(task, 'cpu');
  const locks = locksOf(m, task.args.tier as LockStatTier, cpu);
  const count = number(task, 'count');
  control.arrive();
  for (let i = 0; i < count; i++) {
    locks.lock(LOCK_AT as LockPtr, LockClass.Barn);
    m[COUNTER_AT] = m[COUNTER_AT]! + 1;
    if (m[LAST_AT] !== cpu + 1) {
      if (m[LAST_AT] !== 0) m[CHANGES_AT] = m[CHANGES_AT]! + 1;
      m[LAST_AT] = cpu + 1;
    }
    locks.unlock(LOCK_AT as LockPtr, LockClass.Barn);
  }
  return locks.held;
}

/** Takes the lock once and gives it back; tells what the word was while it held it, or which error it got. */
function takeOnce(task: LitmusTask): { word: number } | { error: string; owner: number } {
  const control = new Control(task.control);
  const { m } = control;
  const locks = locksOf(m, task.args.tier as LockStatTier, number(task, 'cpu'));
  control.arrive();
  try {
    locks.lock(LOCK_AT as LockPtr, LockClass.ListLock);
  } catch (error) {
    if (!(error instanceof LockError)) throw error;
    return { error: error.message, owner: error.owner };
  }
  const word = m[LOCK_AT]!;
  locks.unlock(LOCK_AT as LockPtr, LockClass.ListLock);
  return { word };
}

/** Gives the lock up only when somebody sleeps on it, so that every acquisition but the first needs a wake. */
function handOff(task: LitmusTask): number {
  const control = new Control(task.control);
  const { m } = control;
  const locks = locksOf(m, 'off', number(task, 'cpu'));
  control.arrive();
  for (let i = 0; i < number(task, 'count'); i++) {
    locks.lock(LOCK_AT as LockPtr, LockClass.Barn);
    // The partner is done when it has said so: then nobody comes to sleep any more.
    while ((loadAcquire(m, LOCK_AT) & WAITERS) === 0 && control.get(0) === 0);
    locks.unlock(LOCK_AT as LockPtr, LockClass.Barn);
  }
  control.set(0, 1);
  return locks.held;
}

export const LOCK_ROLES = { increment, takeOnce, handOff };
