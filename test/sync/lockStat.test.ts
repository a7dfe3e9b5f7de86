import { describe, expect, it } from 'vitest';
import { LOCK_CLASS_NAMES, LOCK_STAT_WORDS, LockClass, type LockPtr, readLockStat } from '#src/sync/index.js';
import { Control } from '#workers/litmus/control.js';
import { LOCK_AT, locksOf, STATS_AT } from '#workers/litmus/locks.js';

const A = LOCK_AT as LockPtr;
const B = (LOCK_AT + 2) as LockPtr;
const { Barn, ListLock, CpuSheaves } = LockClass;
const rowsOf = ({ buffer }: Control, cpus = 4) => readLockStat(new Float64Array(buffer), STATS_AT, cpus);

/** CPUs take and give back the lock in this order. */
function schedule(control: Control, cpus: number[], tier: 'contended' | 'full' = 'contended'): void {
  const locks = [0, 1, 2, 3].map((cpu) => locksOf(control.m, tier, cpu));
  for (const cpu of cpus) {
    locks[cpu]!.lock(A, Barn);
    locks[cpu]!.unlock(A, Barn);
  }
}

describe('lock statistics', () => {
  it.each([
    [[], 0, 0],
    [[2], 1, 0],
    [[0, 0, 0], 3, 0],
    [[0, 1], 2, 1],
    [[0, 0, 1, 1, 0], 5, 2],
    [[3, 2, 1, 0, 3, 2, 1, 0], 8, 7],
  ])('count acquisitions and owner changes of the order %j exactly', (order, acquisitions, bounces) => {
    const control = new Control();
    schedule(control, order);
    const rows = rowsOf(control);
    expect(rows[Barn]).toMatchObject({ acquisitions, bounces, contentions: 0, tryFailed: 0, waitTotalNs: 0 });
    const others = rows.filter((_, cls) => cls !== Barn);
    expect(others.every((row) => row.acquisitions === 0 && row.bounces === 0)).toBe(true);
  });

  it('name the classes as the kernel does', () => {
    expect(rowsOf(new Control()).map(({ name }) => name)).toEqual(LOCK_CLASS_NAMES);
    expect(LOCK_CLASS_NAMES[Barn]).toBe('barn->lock');
  });

  it('count tries that failed, and only those that got the lock as acquisitions', () => {
    const control = new Control();
    const [mine, theirs] = [0, 1].map((cpu) => locksOf(control.m, 'contended', cpu));
    expect(mine!.tryLock(A, ListLock)).toBe(true);
    for (let i = 0; i < 3; i++) expect(theirs!.tryLock(A, ListLock)).toBe(false);
    mine!.unlock(A, ListLock);
    expect(theirs!.tryLock(A, ListLock)).toBe(true);
    expect(rowsOf(control)[ListLock]).toMatchObject({
      acquisitions: 2,
      tryFailed: 3,
      bounces: 1,
      contentions: 0,
    });
  });

  it('take reports of trylocks that keep their own word', () => {
    const control = new Control();
    const locks = locksOf(control.m, 'contended', 0);
    locks.noteTry(A, CpuSheaves, true);
    locks.noteTry(A, CpuSheaves, false);
    locks.noteTry(A, CpuSheaves, true);
    expect(rowsOf(control)[CpuSheaves]).toMatchObject({ acquisitions: 2, tryFailed: 1, bounces: 0 });
  });

  it('time nested locks each for itself', () => {
    const control = new Control();
    const locks = locksOf(control.m, 'full', 0);
    for (let i = 0; i < 100; i++) {
      locks.lock(A, Barn);
      locks.lock(B, ListLock);
      locks.unlock(B, ListLock);
      locks.unlock(A, Barn);
    }
    const rows = rowsOf(control);
    const [outer, inner] = [rows[Barn]!, rows[ListLock]!];
    expect(outer).toMatchObject({ acquisitions: 100, holdSamples: 100 });
    expect(inner).toMatchObject({ acquisitions: 100, holdSamples: 100 });
    // Each hold of the outer lock encloses one of the inner.
    expect(outer.holdTotalNs).toBeGreaterThan(inner.holdTotalNs);
    expect(inner.holdTotalNs).toBeGreaterThan(0);
    for (const row of [outer, inner]) {
      expect(row.holdMinNs).toBeGreaterThan(0);
      expect(row.holdMinNs).toBeLessThanOrEqual(row.holdTotalNs / 100);
      expect(row.holdMaxNs).toBeGreaterThanOrEqual(row.holdTotalNs / 100);
    }
    expect(outer.holdMaxNs).toBeLessThanOrEqual(outer.holdTotalNs);
  });

  it('sample one hold in 64', () => {
    const control = new Control();
    const locks = locksOf(control.m, 'sampled', 0);
    for (let i = 0; i < 640 + 63; i++) {
      locks.lock(A, Barn);
      locks.unlock(A, Barn);
    }
    expect(rowsOf(control)[Barn]).toMatchObject({ acquisitions: 703, holdSamples: 10 });
  });

  it('leave the wait of an uncontended lock at zero and the maximum at the largest of all CPUs', () => {
    const control = new Control();
    schedule(control, [0, 1, 2, 3], 'full');
    const row = rowsOf(control)[Barn]!;
    expect(row).toMatchObject({ waitTotalNs: 0, waitMinNs: 0, waitMaxNs: 0, holdSamples: 4 });
    const single = [0, 1, 2, 3].map((cpu) => {
      const area = new Float64Array(control.buffer);
      return readLockStat(area, STATS_AT + cpu * LOCK_STAT_WORDS, 1)[Barn]!.holdMaxNs;
    });
    expect(Math.max(...single)).toBe(row.holdMaxNs);
    const least = [0, 1, 2, 3].map((cpu) => {
      const area = new Float64Array(control.buffer);
      return readLockStat(area, STATS_AT + cpu * LOCK_STAT_WORDS, 1)[Barn]!.holdMinNs;
    });
    expect(Math.min(...least)).toBe(row.holdMinNs);
  });
});
