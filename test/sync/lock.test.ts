import { afterEach, describe, expect, it } from 'vitest';
import { LockError } from '#src/struct/index.js';
import {
  futexWake,
  HELD_LOCKS_MAX,
  LOCK_STAT_TIERS,
  LockClass,
  type LockPtr,
  LockRecord,
  loadAcquire,
  OWNER_DIED,
  ownerWord,
  readLockStat,
  storeRelease,
  UNLOCKED,
  WAITERS,
} from '#src/sync/index.js';
import { CONTROL_WORDS, Control } from '#workers/litmus/control.js';
import { CHANGES_AT, COUNTER_AT, LOCK_AT, locksOf, STATS_AT } from '#workers/litmus/locks.js';
import { launch, type Member, runTeam, until } from '../litmus/support/team.js';

const LOCK = LOCK_AT as LockPtr;
/** Room for more locks, at the end of the control buffer. */
const FREE = CONTROL_WORDS - 64;
const { Barn, ListLock, Zone, SlabMutex } = LockClass;

const statsOf = (control: Control, cls: number, cpus = 8) =>
  readLockStat(new Float64Array(control.buffer), STATS_AT, cpus)[cls]!;

describe.each(LOCK_STAT_TIERS)('one thread, tier %s', (tier) => {
  it('takes and gives back', () => {
    const { m } = new Control();
    const locks = locksOf(m, tier, 3, 7);
    locks.lock(LOCK, Barn);
    expect(m[LOCK]).toBe(ownerWord(3, 7));
    expect(locks.held).toBe(1);
    locks.unlock(LOCK, Barn);
    expect(m[LOCK]).toBe(UNLOCKED);
    expect(locks.held).toBe(0);
  });

  it('tries without waiting', () => {
    const { m } = new Control();
    const [mine, theirs] = [locksOf(m, tier, 0), locksOf(m, tier, 1)];
    expect(mine.tryLock(LOCK, ListLock)).toBe(true);
    expect(theirs.tryLock(LOCK, ListLock)).toBe(false);
    expect(theirs.held).toBe(0);
    expect(m[LOCK]).toBe(ownerWord(0, 1));
    mine.unlock(LOCK, ListLock);
    expect(theirs.tryLock(LOCK, ListLock)).toBe(true);
    expect(m[LOCK]).toBe(ownerWord(1, 1));
  });

  it('is not taken twice by its owner: a second trylock fails', () => {
    const { m } = new Control();
    const locks = locksOf(m, tier, 0);
    locks.lock(LOCK, ListLock);
    expect(locks.tryLock(LOCK, ListLock)).toBe(false);
    expect(locks.held).toBe(1);
  });

  it('is on record as long as it is held, in whatever order several are given up', () => {
    const { m } = new Control();
    const locks = locksOf(m, tier, 0);
    const [a, b, c] = [FREE, FREE + 4, FREE + 8] as [LockPtr, LockPtr, LockPtr];
    for (const lock of [a, b, c]) locks.lock(lock, SlabMutex);
    const record = (locks as unknown as { record: number }).record + LockRecord.held;
    const held = () => [...m.subarray(record, record + locks.held)];
    locks.unlock(a, SlabMutex);
    expect(held()).toEqual([b, c]);
    locks.unlock(c, SlabMutex);
    expect(held()).toEqual([b]);
    locks.unlock(b, SlabMutex);
    expect(held()).toEqual([]);
  });

  it('is refused to a thread that has no room to note another one, and what lies behind the record stays', () => {
    const { m } = new Control();
    const locks = locksOf(m, tier, 0);
    const many = Array.from({ length: HELD_LOCKS_MAX }, (_, i) => (FREE + 4 * i) as LockPtr);
    for (const lock of many) locks.lock(lock, SlabMutex);
    const behind = (locks as unknown as { record: number }).record + LockRecord.held + HELD_LOCKS_MAX;
    const before = [...m.subarray(behind, behind + 16)];
    const one = (FREE + 4 * HELD_LOCKS_MAX) as LockPtr;
    expect(() => locks.lock(one, SlabMutex)).toThrow(/this thread holds 8 locks; it must hold fewer/);
    expect(m[one]).toBe(UNLOCKED);
    expect([...m.subarray(behind, behind + 16)]).toEqual(before);
    for (const lock of many) locks.unlock(lock, SlabMutex);
    expect(locks.held).toBe(0);
  });

  it('gives up after the limit, and names class, lock and owner', () => {
    const { m } = new Control();
    locksOf(m, tier, 5).lock(LOCK, Zone);
    const locks = locksOf(m, tier, 1);
    locks.limitMs = 15;
    expect(() => locks.lock(LOCK, Zone)).toThrow(
      `zone->lock at word ${LOCK}, owned by thread slot 5: not free after 15 ms`,
    );
    let error: unknown;
    try {
      locks.lock(LOCK, SlabMutex);
    } catch (thrown) {
      error = thrown;
    }
    expect(error).toBeInstanceOf(LockError);
    expect(error).toMatchObject({ lockClass: 'slab_mutex', owner: 5 });
    expect(locks.held).toBe(0);
    expect(m[LOCK]! & ~WAITERS).toBe(ownerWord(5, 1));
  });

  it('does not enter a critical section in which its owner died', () => {
    const { m } = new Control();
    storeRelease(m, LOCK, ownerWord(6, 2) | OWNER_DIED);
    const locks = locksOf(m, tier, 1);
    expect(() => locks.lock(LOCK, Barn)).toThrow(LockError);
    expect(() => locks.lock(LOCK, Barn)).toThrow(
      `barn->lock at word ${LOCK}, owned by thread slot 6: its owner died in the critical section`,
    );
    expect(locks.held).toBe(0);
    expect(m[LOCK]).toBe(ownerWord(6, 2) | OWNER_DIED);
  });
});

describe('several threads', () => {
  const members: Member[] = [];
  const start = (
    control: Control,
    cpu: number,
    tier = 'contended',
  ): Member<{ word?: number; error?: string }> => {
    const member = launch<{ word?: number; error?: string }>('takeOnce', { control, args: { cpu, tier } });
    members.push(member);
    return member;
  };
  afterEach(async () => {
    await Promise.all(members.splice(0).map(({ worker }) => worker.terminate()));
  });

  it.each(LOCK_STAT_TIERS)('exclude each other, tier %s', async (tier) => {
    const control = new Control();
    const threads = 4;
    const count = 100_000;
    const tasks = Array.from({ length: threads }, (_, cpu) => ({ tier, cpu, count }));
    const held = await runTeam('increment', undefined, tasks, control);
    expect(held).toEqual([0, 0, 0, 0]);
    expect(control.m[COUNTER_AT]).toBe(threads * count);
    expect(control.m[LOCK]).toBe(UNLOCKED);
    const row = statsOf(control, Barn);
    if (tier === 'off') {
      expect(row.acquisitions).toBe(0);
      return;
    }
    expect(row.acquisitions).toBe(threads * count);
    expect(row.bounces).toBe(control.m[CHANGES_AT]);
    expect(row.contentions).toBeLessThanOrEqual(row.acquisitions);
    expect(row.waitTotalNs).toBeGreaterThanOrEqual(row.waitMaxNs);
    // Every CPU counts down for itself from 64.
    const samples = { contended: 0, sampled: threads * Math.floor(count / 64), full: threads * count }[tier];
    expect(row.holdSamples).toBe(samples);
  });

  it('park when the holder sleeps, and are woken one after the other (L3)', async () => {
    const control = new Control();
    const { m } = control;
    const mine = locksOf(m, 'contended', 0);
    mine.lock(LOCK, ListLock);
    const waiters = [1, 2, 3].map((cpu) => start(control, cpu));
    await until(() => control.arrived === 3);
    control.open();
    await until(() => (loadAcquire(m, LOCK) & WAITERS) !== 0);
    mine.unlock(LOCK, ListLock);
    const words = (await Promise.all(waiters.map(({ result }) => result))).map(({ word }) => word);
    expect(words.filter((word) => word === undefined)).toEqual([]);
    // Whoever slept cannot know whether others do, and must leave the bit set.
    expect(words.some((word) => (word! & WAITERS) !== 0)).toBe(true);
    expect(m[LOCK]).toBe(UNLOCKED);
    expect(statsOf(control, ListLock)).toMatchObject({ acquisitions: 4, bounces: 3 });
    expect(statsOf(control, ListLock).contentions).toBeGreaterThanOrEqual(1);
  });

  // Without the wake each of the 300 would sleep to the backstop, 100 ms: the limit tells hanging from working.
  it('are woken by whoever gives the lock up, every time', { timeout: 15_000 }, async () => {
    const tasks = [0, 1].map((cpu) => ({ cpu, count: 150 }));
    expect(await runTeam('handOff', undefined, tasks)).toEqual([0, 0]);
  });

  it('see that the owner died while they sleep', async () => {
    const control = new Control();
    const { m } = control;
    locksOf(m, 'off', 0).lock(LOCK, ListLock);
    const waiter = start(control, 1);
    await until(() => control.arrived === 1);
    control.open();
    await until(() => (loadAcquire(m, LOCK) & WAITERS) !== 0);
    storeRelease(m, LOCK, loadAcquire(m, LOCK) | OWNER_DIED);
    futexWake(m, LOCK, Number.POSITIVE_INFINITY);
    expect(await waiter.result).toEqual({
      error: `n->list_lock at word ${LOCK}, owned by thread slot 0: its owner died in the critical section`,
      owner: 0,
    });
  });

  it('survive a wake that a killed sleeper swallowed (L4)', async () => {
    const control = new Control();
    const { m } = control;
    const mine = locksOf(m, 'off', 0);
    mine.lock(LOCK, ListLock);
    const doomed = start(control, 1);
    await until(() => control.arrived === 1);
    control.open();
    await until(() => (loadAcquire(m, LOCK) & WAITERS) !== 0);
    const other = start(control, 2);
    await until(() => control.arrived === 2);
    // The first sleeper is gone before it can pass the wake on.
    const gone = doomed.worker.terminate();
    mine.unlock(LOCK, ListLock);
    await gone;
    expect(await other.result).toHaveProperty('word');
    expect(m[LOCK]).toBe(UNLOCKED);
  });
});
