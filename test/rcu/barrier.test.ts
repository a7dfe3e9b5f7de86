/** Barriers for kfree_rcu while another CPU does not give its rcu_free sheaf up. */
import { describe, expect, it } from 'vitest';
import { Pcs, pcsOf } from '#src/cpu/index.js';
import { CpuError, type KmemCache, type LockPolicy } from '#src/index.js';
import { allocMany, boot, expectSound, secondCpu, sheafAt } from '../cache/support/arena.js';
import { dying } from './support.js';

const setup = (lockPolicy: LockPolicy = 'turn') => {
  const arena = boot({ bytes: 4 << 20, maxCaches: 30, lockPolicy });
  const cache = arena.createCache('c', { size: 64 });
  const other = secondCpu(arena);
  const waiting = (cpu: number): number => {
    const sheaf = arena.i32[pcsOf(arena.geometry, cpu, cache.desc.slot) + Pcs.rcuFree]!;
    return sheaf === 0 ? 0 : sheafAt(arena, sheaf).size;
  };
  return { arena, cache, other, theirs: other.openCache('c'), waiting };
};

const giveOne = (cache: KmemCache): void => {
  const [p] = allocMany(cache, 1) as [number];
  cache.freeRcu(p);
};

describe('a CPU that is blocked within a turn', () => {
  it('is named when it keeps objects, and the others are free', () => {
    const { arena, cache, other, theirs, waiting } = setup();
    giveOne(cache);
    giveOne(theirs);
    for (const barrier of [() => cache.rcuBarrier(), () => arena.kfreeRcuBarrier()]) {
      expect(barrier).toThrow(CpuError);
      expect(barrier).toThrow(
        'CPU 1 did not give up its rcu_free sheaf of c: it is blocked within a turn; ' +
          'call arena.endTurn() before a thread waits, and wait again',
      );
    }
    expect([waiting(0), waiting(1)]).toEqual([0, 1]);
    other.endTurn();
    cache.rcuBarrier();
    arena.kfreeRcuBarrier();
    expect([waiting(0), waiting(1)]).toEqual([0, 0]);
    arena.endTurn();
    expectSound(arena);
  });

  it('is named for each cache', () => {
    const { arena, theirs, other } = setup();
    arena.createCache('d', { size: 128 });
    const theirsD = other.openCache('d');
    giveOne(theirs);
    giveOne(theirsD);
    expect(() => arena.kfreeRcuBarrier()).toThrow(
      /^CPU 1 did not give up its rcu_free sheaf of ., nor CPU 1 its of .: it is blocked/,
    );
    other.endTurn();
    arena.kfreeRcuBarrier();
  });

  it('is waited for no more when it has none', () => {
    const { arena, cache, theirs, other } = setup();
    giveOne(cache);
    theirs.alloc();
    cache.rcuBarrier();
    arena.kfreeRcuBarrier();
    other.endTurn();
    expectSound(arena);
  });

  it('is named by destroy as before', () => {
    const { cache, theirs, other } = setup();
    giveOne(theirs);
    expect(() => cache.destroy()).toThrow(/CPU 1 did not give up its sheaves of c: .*, and destroy again/);
    other.endTurn();
    expect(cache.destroy()).toMatchObject({ leaked: 0 });
  });
});

it('a thread that died with a full sheaf in its hands is named', () => {
  const { arena, cache, theirs, waiting } = setup('op');
  const objects = allocMany(theirs, cache.sheafCapacity);
  const [last] = objects.splice(-1) as [number];
  for (const p of objects) theirs.freeRcu(p);
  dying(arena, (die) => {
    (theirs as unknown as { submitRcuSheaf(): void }).submitRcuSheaf = die;
    theirs.freeRcu(last);
  });
  expect(waiting(1)).toBe(0);
  expect(() => cache.rcuBarrier()).toThrow(
    'CPU 1 did not give up its rcu_free sheaf of c: thread slot 1 has their lock; if its thread is gone, call arena.cpuDead(1)',
  );
  arena.cpuDead(1);
  cache.rcuBarrier();
});
