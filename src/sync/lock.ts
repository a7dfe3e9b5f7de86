/**
 * The default lock: barge, spin about a hundred loads, then park.
 *
 * First come is not first served. On more threads than cores a hand-off to a preempted waiter costs a time
 * slice, and every strict order collapses; barging stays flat from 2 to 8 threads on two cores.
 *
 * Protocol (numbers are referred to by tests):
 *  L1  A lock is taken by one compare-exchange of UNLOCKED (or of bare WAITERS' remains, see L3) by the owner
 *      word. It synchronizes with the exchange in unlock, so all that was written under the lock is visible.
 *  L2  Before it, `pending` names the lock; after it the lock is on the held list and `pending` is cleared.
 *      A trylock goes on the held list before it is tried, and an unlock leaves it there until it is done: a lock
 *      that is named there and not owned harms nobody. So whoever reaps a dead thread finds every lock it may own in
 *      these two places, and a trylock within a lock() that waits leaves the note of that one alone.
 *  L3  A waiter sets WAITERS before it sleeps, and a waiter that takes the lock after sleeping keeps WAITERS
 *      set: it cannot know whether another sleeper exists, and a spurious wake is cheaper than a lost one.
 *  L4  No sleep is unlimited: a wake can be swallowed by a thread that dies parked, so a sleeper looks again
 *      every BACKSTOP_MS, and gives up with an error that names lock, class and owner after the limit.
 */
import { LINE_WORDS, LockError, type Ptr, struct, type Words } from '../struct/index.js';
import { canSleep, cmpxchg, exchange, futexWait, futexWake, loadAcquire } from './atomic.js';
import { LOCK_CLASS_NAMES, type LockClassId } from './lockClass.js';
import { OWNER_DIED, ownerThread, UNLOCKED, WAITERS } from './lockWord.js';

/** A lock: its word, and who took it last, for counting owner changes. */
export const Lock = struct('lock', { word: 1, lastOwner: 1 });
export type LockPtr = Ptr<'lock'>;

/** Waiting takes nest 3 deep; the rest is for trylocks of restricted contexts, which fail when the list is full. */
export const HELD_LOCKS_MAX = 8;

/** What the locks know about one thread; written by that thread alone, read by whoever reaps it. */
export const LockRecord = struct(
  'lock_record',
  { pending: 1, nrHeld: 1, held: HELD_LOCKS_MAX, intentDepth: 1, intentOp: 1, intentSlot: 1, intentSheaf: 1 },
  { alignWords: LINE_WORDS },
);

/** What a thread may be in the middle of; 0 is nothing. BULK_PUSH moves no sheaf: it fills main and nothing else. */
export const Intent = {
  NONE: 0,
  ALLOC: 1,
  FREE: 2,
  BULK_ALLOC: 3,
  BULK_FREE: 4,
  CACHES: 5,
  BULK_PUSH: 6,
  PREFILL: 7,
  REFILL: 8,
  RETURN: 9,
  ALLOC_PERCPU: 10,
  FREE_PERCPU: 11,
  BALANCE_PERCPU: 12,
} as const;
export const INTENT_NAMES = [
  'nothing',
  'allocating',
  'freeing',
  'allocating in bulk',
  'freeing in bulk',
  'making, shrinking or ending caches',
  'freeing in bulk into its sheaf',
  'borrowing a prefilled sheaf',
  'refilling a prefilled sheaf',
  'returning a prefilled sheaf',
  'allocating percpu memory',
  'freeing percpu memory',
  'balancing percpu memory',
];

/** In place of a cache's slot: the operation is on none. */
export const NO_CACHE = -1;

const { pending: PENDING, nrHeld: NR_HELD, held: HELD } = LockRecord;

/** About 0.6 us of loads: longer than an allocator's critical section, much shorter than a park and wake. */
const SPINS_MAX = 100;
const BACKSTOP_MS = 100;
/** How long a thread waits before it calls the lock stuck. */
export const LOCK_LIMIT_MS = 10_000;

/** Locks without statistics: the base of every tier, and the one with no branch for them. */
export class Locks {
  protected readonly m: Words;
  /** This thread's owner word: its slot + 1 and generation. */
  readonly owner: number;
  protected readonly record: Ptr<'lock_record'>;
  protected readonly sleeps: boolean;
  limitMs = LOCK_LIMIT_MS;

  constructor(m: Words, owner: number, record: Ptr<'lock_record'>) {
    this.m = m;
    this.owner = owner;
    this.record = record;
    this.sleeps = canSleep(m);
  }

  /** Takes the lock, waiting as long as it must and no longer than the limit. */
  lock(lock: LockPtr, cls: LockClassId): void {
    const m = this.m;
    this.prepare(lock, cls);
    if (cmpxchg(m, lock, UNLOCKED, this.owner) !== UNLOCKED) this.contended(lock, cls);
    this.pushHeld(lock);
  }

  /** Takes the lock if it is free. For remote list_locks and for contexts that must not wait. */
  tryLock(lock: LockPtr, _cls: LockClassId): boolean {
    const { m, record } = this;
    const nr = m[record + NR_HELD]!;
    if (nr === HELD_LOCKS_MAX) return false;
    m[record + HELD + nr] = lock;
    m[record + NR_HELD] = nr + 1;
    if (cmpxchg(m, lock, UNLOCKED, this.owner) === UNLOCKED) return true;
    m[record + NR_HELD] = nr;
    return false;
  }

  /** Gives the lock up and wakes one sleeper if there may be one. */
  unlock(lock: LockPtr, _cls: LockClassId): void {
    const { m, record } = this;
    // Pairs with the compare-exchange of the next owner (L1).
    const word = exchange(m, lock, UNLOCKED);
    const nr = m[record + NR_HELD]! - 1;
    if (m[record + HELD + nr] === lock) m[record + NR_HELD] = nr;
    else this.releaseInner(lock);
    if ((word & WAITERS) !== 0) futexWake(m, lock, 1);
  }

  /** A trylock that keeps its own word (cpu_sheaves) reports here; nothing to do without statistics. */
  noteTry(_lock: LockPtr, _cls: LockClassId, _taken: boolean): void {}

  /** How many locks this thread holds now. */
  get held(): number {
    return this.m[this.record + NR_HELD]!;
  }

  /** The lock is about to be waited for, and there must be room to note it: what is not on record, no reaper finds. */
  protected prepare(lock: LockPtr, cls: LockClassId): void {
    const { m, record } = this;
    if (m[record + NR_HELD] === HELD_LOCKS_MAX) {
      const name = LOCK_CLASS_NAMES[cls]!;
      const why = `this thread holds ${HELD_LOCKS_MAX} locks; it must hold fewer`;
      throw new LockError(`${name} at word ${lock}: ${why}`, name, ownerThread(this.owner));
    }
    m[record + PENDING] = lock;
  }

  /** Given up before one that was taken later. Whoever dies here has the later one on record twice, never not at all. */
  private releaseInner(lock: LockPtr): void {
    const { m, record } = this;
    const last = m[record + NR_HELD]! - 1;
    let at = last;
    while (at >= 0 && m[record + HELD + at] !== lock) at--;
    if (at < 0) return; // not taken by this thread: lockdep says so
    for (; at < last; at++) m[record + HELD + at] = m[record + HELD + at + 1]!;
    m[record + NR_HELD] = last;
  }

  protected pushHeld(lock: LockPtr): void {
    const { m, record } = this;
    const nr = m[record + NR_HELD]!;
    m[record + HELD + nr] = lock;
    m[record + NR_HELD] = nr + 1;
    m[record + PENDING] = 0;
  }

  /** The lock was not free: spin, then park. Returns as owner, or throws with nothing held. */
  protected contended(lock: LockPtr, cls: LockClassId): void {
    const m = this.m;
    for (let spins = 0; spins < SPINS_MAX; spins++) {
      // An atomic load: a plain one need never see the unlock.
      if (loadAcquire(m, lock) === UNLOCKED && cmpxchg(m, lock, UNLOCKED, this.owner) === UNLOCKED) return;
    }
    const deadline = performance.now() + this.limitMs;
    for (;;) {
      const word = loadAcquire(m, lock);
      if (word === UNLOCKED) {
        if (cmpxchg(m, lock, UNLOCKED, this.owner | WAITERS) === UNLOCKED) return; // L3
        continue;
      }
      if ((word & OWNER_DIED) !== 0) this.fail(lock, cls, word, 'its owner died in the critical section');
      if (performance.now() > deadline) {
        this.fail(lock, cls, word, `not free after ${this.limitMs} ms`);
      }
      this.sleep(lock, word);
    }
  }

  private sleep(lock: LockPtr, word: number): void {
    if (!this.sleeps) return; // spin: this thread may not block
    const waited = word | WAITERS;
    // Pairs with the exchange in unlock: either it sees WAITERS, or this fails and we look again.
    if (word !== waited && cmpxchg(this.m, lock, word, waited) !== word) return;
    futexWait(this.m, lock, waited, Math.min(BACKSTOP_MS, this.limitMs)); // L4
  }

  private fail(lock: LockPtr, cls: LockClassId, word: number, why: string): never {
    this.m[this.record + PENDING] = 0;
    const name = LOCK_CLASS_NAMES[cls]!;
    const owner = ownerThread(word);
    throw new LockError(`${name} at word ${lock}, owned by thread slot ${owner}: ${why}`, name, owner);
  }
}
