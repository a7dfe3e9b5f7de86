/** Threads that die while they begin to work for a group, or leave one: it can be ended when they are reaped. */
import { describe, expect, it } from 'vitest';
import { ThreadRecord } from '#src/cpu/index.js';
import { type Arena, LockError, type MemoryGroup, SLAB_ACCOUNT } from '#src/index.js';
import { allocMany, boot, expectSound, secondCpu } from '../cache/support/arena.js';
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

it.each([
  ['allocates', 0],
  ['frees what another thread charged', 1],
  ['frees past what it may keep', 2],
])('a thread that dies while it %s leaves no more charged than it is said to', (_what, kind) => {
  for (let nth = 1, survived = false; !survived; nth++) {
    const arena = boot({ bytes: 2 << 20, maxCaches: 24 });
    const above = arena.groups.create('above');
    arena.groups.create('a', { parent: above });
    const group = arena.groups.open('a');
    const cache = arena.createCache('charged', { size: 1024, layer: 'none', flags: SLAB_ACCOUNT });
    const other = secondCpu(arena);
    const theirs = other.openCache('charged');
    if (kind === 1) arena.groups.workFor(group);
    else other.groups.workFor(other.groups.open('a'));
    const from = kind === 1 ? cache : theirs;
    const held = kind === 0 ? [] : allocMany(from, 50);
    arena.endTurn();
    other.endTurn();
    survived = dieBefore(arena, nth, () => {
      if (kind === 0) theirs.alloc();
      else for (const p of held) theirs.free(p);
      other.endTurn();
    });
    let notes: string[];
    try {
      notes = arena.cpuDead(1).notes;
    } catch {
      continue; // a lock of the slabs died with it
    }
    const objects = arena.cacheInfo().find(({ name }) => name === 'charged')!.objects;
    const most = objects * cache.size + told(notes);
    for (const each of [group, above]) {
      expect(each.usage, `${each.name}, before ${nth}`).toBeLessThanOrEqual(most + cache.size);
      expect(each.usage).toBeGreaterThanOrEqual(0);
    }
  }
});

/** Bytes that the notes say may be lost. */
function told(notes: string[]): number {
  const found = notes.map((note) => /^up to (\d+) bytes that it was charging/.exec(note)).find(Boolean);
  return Number(found?.[1] ?? 0);
}

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
