import fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import { Arena, PERCPU_COUNTER_BYTES, SlabBugError } from '#src/index.js';
import { expectSound, secondCpu } from '../cache/support/arena.js';
import { bootPercpu, info } from './support.js';

function counter(arena: Arena, value = 0): number {
  const fbc = arena.kmalloc(PERCPU_COUNTER_BYTES);
  expect(arena.percpu.counters.init(fbc, value)).toBe(true);
  return fbc;
}

describe('percpu_counter', () => {
  it('keeps what a CPU adds to itself until that reaches the batch', () => {
    const arena = bootPercpu();
    const counters = arena.percpu.counters;
    const fbc = counter(arena, 100);
    expect(counters.batch).toBe(32);
    counters.add(fbc, 31);
    expect([counters.read(fbc), counters.sum(fbc)]).toEqual([100, 131]);
    counters.add(fbc, 1);
    expect([counters.read(fbc), counters.sum(fbc)]).toEqual([132, 132]);
    counters.add(fbc, -1000);
    expect([counters.read(fbc), counters.readPositive(fbc)]).toEqual([-868, 0]);
    counters.add(fbc, 5, 4);
    expect(counters.read(fbc)).toBe(-863);
    counters.add(fbc, 3);
    counters.sync(fbc);
    expect(counters.read(fbc)).toBe(-860);
    counters.set(fbc, 7);
    expect(counters.sum(fbc)).toBe(7);
    counters.destroy(fbc);
    expectSound(arena);
  });

  it('has a batch of 32, or of twice the CPUs', () => {
    const arena = bootPercpu({ cpus: 40, bytes: 32 << 20 });
    const others = Array.from({ length: 20 }, (_, i) => secondCpu(arena, i + 1));
    expect(arena.percpu.counters.batch).toBe(42);
    for (const other of others) other.offline();
    expect(arena.percpu.counters.batch).toBe(32);
  });

  it('of many: one percpu area for all of them', () => {
    const arena = bootPercpu();
    const counters = arena.percpu.counters;
    const fbc = arena.kmalloc(4 * PERCPU_COUNTER_BYTES);
    expect(counters.initMany(fbc, 5, 4)).toBe(true);
    expect(info(arena).nrAlloc).toBe(1);
    for (let i = 0; i < 4; i++) counters.add(fbc + i * PERCPU_COUNTER_BYTES, i);
    expect([0, 1, 2, 3].map((i) => counters.sum(fbc + i * PERCPU_COUNTER_BYTES))).toEqual([5, 6, 7, 8]);
    expectSound(arena);
    counters.destroyMany(fbc, 4);
    counters.destroyMany(fbc, 4);
    expect(info(arena).nrAlloc).toBe(0);
    expect(() => counters.add(fbc, 1)).toThrow(SlabBugError);
    expectSound(arena);
  });

  it('is compared by its count alone where that is far enough off', () => {
    const arena = bootPercpu({ lockStat: 'contended' });
    const counters = arena.percpu.counters;
    const sums = (): number => arena.lockStat().find(({ name }) => name === 'fbc->lock')!.acquisitions;
    const fbc = counter(arena, 1000);
    const before = sums();
    expect([counters.compare(fbc, 500), counters.compare(fbc, 2000)]).toEqual([1, -1]);
    expect(sums()).toBe(before);
    counters.add(fbc, 10);
    expect([1009, 1010, 1011].map((rhs) => counters.compare(fbc, rhs))).toEqual([1, 0, -1]);
    expect(sums()).toBe(before + 3);
  });

  it('adds up to a limit, in either direction', () => {
    const arena = bootPercpu();
    const other = secondCpu(arena);
    const counters = arena.percpu.counters;
    const fbc = counter(arena);
    other.percpu.counters.add(fbc, 20);
    expect(counters.limitedAdd(fbc, 30, 11)).toBe(false);
    expect(counters.limitedAdd(fbc, 30, 10)).toBe(true);
    expect(counters.limitedAdd(fbc, 30, 1)).toBe(false);
    expect(counters.limitedAdd(fbc, 30, 0)).toBe(true);
    expect(counters.sum(fbc)).toBe(30);
    expect(counters.limitedAdd(fbc, -5, -36)).toBe(false);
    expect(counters.limitedAdd(fbc, -5, -35)).toBe(true);
    // Far from the limit no lock is needed, and the part of the CPU takes it.
    expect(counters.limitedAdd(fbc, 1e6, 3)).toBe(true);
    expect(counters.sum(fbc)).toBe(-2);
  });

  it('folds the part of a CPU that leaves', () => {
    const arena = bootPercpu();
    const other = secondCpu(arena);
    const fbc = counter(arena);
    other.percpu.counters.add(fbc, 17);
    expect(arena.percpu.counters.read(fbc)).toBe(0);
    other.offline();
    expect(arena.percpu.counters.read(fbc)).toBe(17);
    const again = secondCpu(arena);
    again.percpu.counters.add(fbc, 4);
    // Its thread is gone without a word.
    arena.cpuDead(1);
    expect(arena.percpu.counters.read(fbc)).toBe(21);
    expectSound(arena);
  });

  it('is exact where threads share CPUs', () => {
    const arena = bootPercpu({ cpus: 1, threads: 3, lockPolicy: 'op' });
    const other = sharer(arena);
    const fbc = counter(arena);
    for (let i = 0; i < 100; i++) {
      arena.percpu.counters.add(fbc, 3);
      other.percpu.counters.add(fbc, -1);
    }
    expect(arena.percpu.counters.sum(fbc)).toBe(200);
  });

  it('sums what was added, in any order and with any batch', () => {
    const arena = bootPercpu({ cpus: 2 });
    const views = [arena, secondCpu(arena)];
    const amounts = fc.array(
      fc.tuple(fc.nat(1), fc.integer({ min: -500, max: 500 }), fc.integer({ min: 1, max: 90 })),
    );
    fc.assert(
      fc.property(amounts, (adds) => {
        const fbc = counter(arena);
        let total = 0;
        for (const [cpu, amount, batch] of adds) {
          views[cpu]!.percpu.counters.add(fbc, amount, batch);
          total += amount;
        }
        expect(arena.percpu.counters.sum(fbc)).toBe(total);
        expect(Math.abs(arena.percpu.counters.read(fbc) - total)).toBeLessThan(2 * 90);
        arena.percpu.counters.destroy(fbc);
        arena.kfree(fbc);
      }),
      { numRuns: 50 },
    );
    expectSound(arena);
  });

  it('refuses an address that can be none, and shows one that was freed undestroyed', () => {
    const arena = bootPercpu();
    expect(() => arena.percpu.counters.init(4)).toThrow(/percpu_counter: 4 is not a multiple of 8/);
    expect(() => arena.percpu.counters.init(arena.geometry.bytes)).toThrow(/is not in the arena/);
    expect(() => arena.percpu.counters.initMany(64, 0, 8193)).toThrow(
      /n is 8193; it must be an integer from 1 to 8192/,
    );
    const fbc = counter(arena);
    arena.kfree(fbc);
    arena.i32.fill(0, fbc >> 2, (fbc + PERCPU_COUNTER_BYTES) >> 2);
    expect(arena.validate().map(({ invariant }) => invariant)).toEqual(['COUNTERS']);
  });

  it('is not made without memory', () => {
    const arena = bootPercpu();
    arena.failPageAlloc(1);
    const fbc = arena.kmalloc(PERCPU_COUNTER_BYTES);
    expect(arena.percpu.counters.init(fbc)).toBe(false);
    arena.failPageAlloc(0);
    expectSound(arena);
  });
});

function sharer(arena: Arena): Arena {
  const other = Arena.attach(arena.handle);
  other.online();
  return other;
}
