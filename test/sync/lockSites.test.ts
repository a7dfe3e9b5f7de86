/** Call sites of contended locks, on real threads whose waits are known. */
import { describe, expect, it } from 'vitest';
import { ThreadRecord, threadRecordOf } from '#src/cpu/index.js';
import { Arena, type LockStatTier } from '#src/index.js';
import { LockClass, type LockPtr, LockRecord, SiteLocks, storeRelease } from '#src/sync/index.js';
import { Control } from '#workers/litmus/control.js';
import { launch, until } from '../litmus/support/team.js';

const { Barn } = LockClass;
const HOLD_MS = 30;

function make(lockStat: LockStatTier): { arena: Arena; lock: LockPtr } {
  const arena = Arena.create({ bytes: 8 << 20, cpus: 4, lockStat });
  arena.online({ cpu: 0 });
  const page = arena.allocPages(0) / 4;
  arena.i32.fill(0, page, page + 16);
  return { arena, lock: page as LockPtr };
}

/** This thread holds the lock while `waiters` others come to wait for it; each of them finds it taken. */
async function contend(arena: Arena, lock: LockPtr, waiters: number): Promise<void> {
  const control = new Control();
  const { locks } = arena.cpu;
  locks.lock(lock, Barn);
  const members = Array.from({ length: waiters }, () =>
    launch('waitOnce', { control, handle: arena.handle, args: { lockAt: lock } }),
  );
  try {
    await until(() => control.arrived === waiters);
    control.open();
    // Whoever is about to wait has said so in its record.
    const pending = (): number =>
      arena.onlineThreads.filter((thread) => pendingOf(arena, thread) === lock).length;
    await until(() => pending() >= waiters);
    await new Promise((resolve) => setTimeout(resolve, HOLD_MS));
  } finally {
    holderGivesUp(arena, lock);
  }
  await Promise.all(members.map(({ result, exited }) => Promise.all([result, exited])));
}

function holderGivesUp(arena: Arena, lock: LockPtr): void {
  arena.cpu.locks.unlock(lock, Barn);
}

describe('call sites', () => {
  it('are those of who waited and of who was waited for', async () => {
    const { arena, lock } = make('full');
    expect(arena.cpu.locks).toBeInstanceOf(SiteLocks);
    await contend(arena, lock, 2);
    const row = arena.lockStat()[Barn]!;
    expect(row).toMatchObject({ contentions: 2, contentionBounces: 2 });
    expect(row.waitMinNs).toBeGreaterThan((HOLD_MS - 5) * 1e6);
    expect(row.waitMinNs).toBeLessThanOrEqual(row.waitMaxNs);
    expect(row.waitTotalNs).toBeGreaterThanOrEqual(row.waitMinNs + row.waitMaxNs - 1e-3);
    // Both threads waited at one place of the program.
    expect(row.contentionPoints).toHaveLength(1);
    const [point] = row.contentionPoints;
    expect(point!.site).toMatch(/^waitOnce \(chunks\/litmus\.js:\d+:\d+\)$/);
    expect(point).toMatchObject({ count: 2, waitTotalNs: row.waitTotalNs, waitMinNs: row.waitMinNs });
    expect(point!.waitMaxNs).toBe(row.waitMaxNs);
    const holder = row.contendedPoints.find(({ site }) =>
      site.startsWith('holderGivesUp (sync/lockSites.test.ts'),
    );
    expect(holder).toMatchObject({ count: 1 });
  });

  it('add up over rounds and over threads that come anew to a slot', async () => {
    const { arena, lock } = make('full');
    for (let round = 1; round <= 3; round++) {
      await contend(arena, lock, 1);
      const row = arena.lockStat()[Barn]!;
      expect(row.contentionPoints.map(({ count }) => count)).toEqual([round]);
      expect(row.contendedPoints.map(({ count }) => count)).toEqual([round]);
      expect(row.bounces).toBeGreaterThanOrEqual(round);
    }
  });

  it.each(['contended', 'sampled'] as const)('are not kept in the tier %s', async (tier) => {
    const { arena, lock } = make(tier);
    expect(arena.geometry.lockSites).toBe(0);
    await contend(arena, lock, 1);
    const row = arena.lockStat()[Barn]!;
    expect(row).toMatchObject({ contentions: 1, contentionPoints: [], contendedPoints: [] });
    expect(row.waitMinNs).toBe(row.waitTotalNs);
  });

  it('are none of a lock that nobody waited for', () => {
    const { arena, lock } = make('full');
    const { locks } = arena.cpu;
    for (let i = 0; i < 100; i++) {
      locks.lock(lock, Barn);
      locks.unlock(lock, Barn);
    }
    expect(arena.lockStat()[Barn]).toMatchObject({ contentionPoints: [], contendedPoints: [] });
  });

  it('of holders are noted once for each hold that was waited for, and the owner is told from its mark', () => {
    const { arena, lock } = make('full');
    const { locks, m } = arena.cpu;
    const bounces = (): number => arena.lockStat()[Barn]!.bounces;
    locks.lock(lock, Barn);
    // What a waiter does before it waits.
    storeRelease(m, lock + 1, m[lock + 1]! | (1 << 31));
    locks.unlock(lock, Barn);
    const before = bounces();
    locks.lock(lock, Barn);
    locks.unlock(lock, Barn);
    expect(bounces()).toBe(before);
    expect(arena.lockStat()[Barn]!.contendedPoints.map(({ count }) => count)).toEqual([1]);
  });
});

function pendingOf({ i32, geometry }: Arena, thread: number): number {
  return i32[threadRecordOf(geometry, thread) + ThreadRecord.locks + LockRecord.pending]!;
}
