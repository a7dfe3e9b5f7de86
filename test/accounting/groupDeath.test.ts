/** Threads that die while they begin to work for a group, or leave one: it can be ended when they are reaped. */
import { describe, expect, it } from 'vitest';
import { ThreadRecord } from '#src/cpu/index.js';
import { type Arena, LockError, type MemoryGroup } from '#src/index.js';
import { boot, expectSound, secondCpu } from '../cache/support/arena.js';
import { dying } from '../cpu/support/dying.js';

/** Ends the thread of `other` before the nth of its accesses that change memory, of those made with Atomics. */
function dieBefore(arena: Arena, nth: number, action: () => void): boolean {
  const { add, store } = Atomics;
  let survived = false;
  dying(arena, (die) => {
    let left = nth;
    const count = (): void => {
      if (--left === 0) die();
    };
    Object.assign(Atomics, {
      add(m: Int32Array, i: number, value: number): number {
        count();
        return add(m, i, value);
      },
      store(m: Int32Array, i: number, value: number): number {
        count();
        return store(m, i, value);
      },
    });
    try {
      action();
      survived = true;
      die();
    } finally {
      Object.assign(Atomics, { add, store });
    }
  });
  return survived;
}

/** False when slab_mutex died with the thread: nobody makes or ends a group any more then. */
function reaped(arena: Arena): boolean {
  try {
    arena.cpuDead(1);
    return true;
  } catch (error) {
    expect(error).toBeInstanceOf(LockError);
    return false;
  }
}

/** Every moment of `action`, on a thread that is reaped then; says how many groups cannot be ended after each. */
function sweep(prepare: (other: Arena) => void, action: (other: Arena) => void): number[] {
  const left: number[] = [];
  for (let nth = 1; ; nth++) {
    const arena = boot({ bytes: 2 << 20, maxCaches: 24 });
    const groups = ['a', 'b'].map((name) => arena.groups.create(name)) as [MemoryGroup, MemoryGroup];
    const other = secondCpu(arena);
    prepare(other);
    const survived = dieBefore(arena, nth, () => action(other));
    if (reaped(arena)) {
      for (const group of groups) arena.groups.destroy(group);
      left.push(arena.groups.list().length);
      expectSound(arena);
    }
    if (survived) return left;
  }
}

describe('a thread that dies', () => {
  it('while it changes from one group to another is counted in none', () => {
    const left = sweep(
      (other) => other.groups.workFor(other.groups.open('a')),
      (other) => other.groups.workFor(other.groups.open('b')),
    );
    expect(left.length).toBeGreaterThan(0);
    expect(left.filter((groups) => groups !== 0)).toEqual([]);
  });

  it('while it leaves a group for none is counted in none', () => {
    const left = sweep(
      (other) => other.groups.workFor(other.groups.open('a')),
      (other) => other.groups.workFor(null),
    );
    expect(left.length).toBeGreaterThan(1);
    expect(left.filter((groups) => groups !== 0)).toEqual([]);
  });
});

it('a group with a dead thread in it cannot be ended before that is reaped', () => {
  const arena = boot();
  const group = arena.groups.create('g');
  const other = secondCpu(arena);
  other.groups.workFor(other.groups.open('g'));
  expect(arena.i32[other.cpu.record + ThreadRecord.stockOf]).toBe(group.ptr);
  expect(() => arena.groups.destroy(group)).toThrow(/group g has 1 threads and groups/);
  arena.cpuDead(1);
  arena.groups.destroy(group);
  expectSound(arena);
});
