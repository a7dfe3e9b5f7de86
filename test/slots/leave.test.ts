/** Threads that leave a CPU they share, with a word or without: the sheaves are the CPU's, and the last one flushes them. */

import { describe, expect, it } from 'vitest';
import type { KmemCache } from '#src/cache/index.js';
import { Pcs, pcsOf, ThreadRecord, ThreadState, threadRecordOf } from '#src/cpu/index.js';
import { Arena } from '#src/index.js';
import { LockClass, ownerThread } from '#src/sync/index.js';
import { Control } from '#workers/litmus/control.js';
import { allocMany, boot, expectSound, freeMany, sheafSizes } from '../cache/support/arena.js';
import { launch, until } from '../litmus/support/team.js';
import { cutIn } from '../slab/support.js';

const SLAB_MUTEX = LockClass.SlabMutex;

/** This thread alone on CPU 0; two threads on CPU 1, and objects in the sheaves of CPU 1. */
function setup() {
  const arena = boot({ lockPolicy: 'op', cpus: 2, threads: 6 });
  const cache = arena.createCache('c', { size: 192 });
  const [first, second] = [1, 3].map((thread) => {
    const other = Arena.attach(arena.handle);
    other.online({ thread });
    expect(other.cpu.id).toBe(1);
    return other;
  });
  const theirs = first!.openCache('c');
  freeMany(theirs, allocMany(theirs, 40));
  return { arena, cache, first: first!, second: second!, theirs };
}

const cached = (arena: Arena, cache: KmemCache, cpu: number): number => {
  const { main, spare } = sheafSizes(arena, cache, cpu);
  return main + (spare ?? 0);
};

describe('offline', () => {
  it('of one of several leaves the sheaves to the others, which go on with them', () => {
    const { arena, cache, first, second } = setup();
    const before = sheafSizes(arena, cache, 1);
    expect(cached(arena, cache, 1)).toBeGreaterThan(0);
    first.offline();
    expect(sheafSizes(arena, cache, 1)).toEqual(before);
    const slow = cache.stat('ALLOC_SLOWPATH');
    const theirs = second.openCache('c');
    freeMany(theirs, allocMany(theirs, cached(arena, cache, 1)));
    expect(cache.stat('ALLOC_SLOWPATH')).toBe(slow);
    expectSound(arena);
  });

  it('of the last flushes them, whoever that is', () => {
    for (const order of [(a: Arena, b: Arena) => [a, b], (a: Arena, b: Arena) => [b, a]]) {
      const { arena, cache, first, second } = setup();
      for (const each of order(first, second)) each.offline();
      expect(cached(arena, cache, 1)).toBe(0);
      expect(arena.onlineThreads).toEqual([0]);
      expect(arena.onlineCpus).toEqual([0]);
      expectSound(arena);
    }
  });

  it('counts a guest of another slot as one of the CPU', () => {
    const { arena, cache, first, second } = setup();
    const guest = Arena.attach(arena.handle);
    guest.online({ thread: 2, cpu: 1 });
    first.offline();
    second.offline();
    expect(cached(arena, cache, 1)).toBeGreaterThan(0);
    guest.offline();
    expect(cached(arena, cache, 1)).toBe(0);
    expectSound(arena);
  });
});

describe('two threads that leave at once', () => {
  it('both offline: the second is the last, though the slot of the first is not free yet', () => {
    const { arena, cache, first, second } = setup();
    cutIn(first, SLAB_MUTEX, 'after unlock', 1, () => second.offline());
    first.offline();
    expect(cached(arena, cache, 1)).toBe(0);
    expect(arena.onlineThreads).toEqual([0]);
    expectSound(arena);
  });

  it('one reaped meanwhile: the other is the last', () => {
    const { arena, cache, second } = setup();
    cutIn(arena, SLAB_MUTEX, 'after unlock', 1, () => second.offline());
    arena.cpuDead(1);
    expect(cached(arena, cache, 1)).toBe(0);
    expect(arena.onlineThreads).toEqual([0]);
    expectSound(arena);
  });
});

describe('cpuDead', () => {
  it('of one of several leaves the sheaves to the others, of the last flushes them', () => {
    const { arena, cache } = setup();
    const before = sheafSizes(arena, cache, 1);
    expect(arena.cpuDead(1)).toEqual({ cpu: 1, heldLocks: [], notes: [] });
    expect(sheafSizes(arena, cache, 1)).toEqual(before);
    expect(arena.onlineThreads).toEqual([0, 3]);
    expect(arena.onlineCpus).toEqual([0, 1]);
    expect(arena.cpuDead(3)).toEqual({ cpu: 1, heldLocks: [], notes: [] });
    expect(cached(arena, cache, 1)).toBe(0);
    expect(arena.onlineCpus).toEqual([0]);
    expectSound(arena);
  });

  it('counts a thread that has died as one of the CPU until it is reaped', () => {
    const { arena, cache, first } = setup();
    first.offline(); // the other one is dead, and nobody has said so
    expect(cached(arena, cache, 1)).toBeGreaterThan(0);
    arena.cpuDead(3);
    expect(cached(arena, cache, 1)).toBe(0);
    expectSound(arena);
  });

  it('does not touch a lock that another thread of the CPU holds', () => {
    const { arena, cache, second } = setup();
    const lock = pcsOf(arena.geometry, 1, cache.desc.slot) + Pcs.lock;
    arena.i32[lock] = second.cpu.locks.owner;
    expect(arena.cpuDead(1).notes).toEqual([]);
    expect(arena.i32[lock]).toBe(second.cpu.locks.owner);
    arena.i32[lock] = 0;
    expectSound(arena);
  });

  it('gives back a lock that the thread held, and keeps what is under it, if it was in no operation there', () => {
    const { arena, cache, first } = setup();
    const before = sheafSizes(arena, cache, 1);
    const lock = pcsOf(arena.geometry, 1, cache.desc.slot) + Pcs.lock;
    arena.i32[lock] = first.cpu.locks.owner;
    expect(arena.cpuDead(1).notes).toEqual([]);
    expect(arena.i32[lock]).toBe(0);
    expect(sheafSizes(arena, cache, 1)).toEqual(before);
    expectSound(arena);
  });

  it('knows a thread that died before it had a CPU', () => {
    const arena = boot({ lockPolicy: 'op', cpus: 2, threads: 4 });
    const record = threadRecordOf(arena.geometry, 3);
    arena.i32[record + ThreadRecord.state] = ThreadState.ONLINE;
    expect(arena.onlineThreads).toEqual([0, 3]);
    expect(arena.onlineCpus).toEqual([0]);
    expect(arena.cpuDead(3)).toEqual({ cpu: 1, heldLocks: [], notes: [] });
    expect(arena.onlineThreads).toEqual([0]);
  });
});

describe('a thread that is terminated while it holds the lock of shared sheaves', () => {
  it('is in the way of the others until it is reaped, and stops nobody', async () => {
    const arena = boot({ lockPolicy: 'op', cpus: 2, threads: 6 });
    const cache = arena.createCache('c', { size: 256 });
    const other = arena.createCache('d', { size: 256 });
    const second = Arena.attach(arena.handle);
    second.online({ cpu: 1 });
    const theirs = second.openCache('c');
    freeMany(second.openCache('d'), allocMany(second.openCache('d'), 20));
    freeMany(theirs, allocMany(theirs, 20));
    const untouched = sheafSizes(arena, other, 1);

    const control = new Control();
    // The first moment of the first allocation: the trylock has been taken.
    const args = { cpu: 1, phase: 0, at: 1 };
    const { worker, exited } = launch('stopAt', { control, handle: arena.handle, args });
    await until(() => control.get(0) !== 0);
    const lock = pcsOf(arena.geometry, 1, cache.desc.slot) + Pcs.lock;
    const dead = ownerThread(arena.i32[lock]!);
    expect(arena.onlineThreads).toEqual([0, 1, dead]);
    await worker.terminate();
    await exited;

    const objects = allocMany(theirs, 10);
    expect(theirs.trylockStats()).toMatchObject({ trylockFailures: 10, allocBypasses: 10 });
    expect(cache.shrink().skippedCpus).toEqual([1]);
    const why = `CPU 1 did not give up its sheaves of c: thread slot ${dead} has their lock`;
    expect(() => cache.destroy()).toThrow(why);
    expect(ownerThread(arena.i32[lock]!), 'nobody took it away').toBe(dead);

    const { cpu, heldLocks, notes } = arena.cpuDead(dead);
    expect({ cpu, heldLocks }).toEqual({ cpu: 1, heldLocks: [] });
    expect(notes.sort()).toEqual([
      'c: the sheaves of CPU 1 were given up, with the objects in them',
      expect.stringMatching(/^died while allocating, cache slot \d+$/),
    ]);
    expect(arena.i32[lock]).toBe(0);
    expect(arena.onlineThreads).toEqual([0, 1]);
    expect(sheafSizes(arena, other, 1), 'the CPU keeps what the thread did not hold').toEqual(untouched);

    const fast = cache.stat('ALLOC_FASTPATH');
    freeMany(theirs, objects);
    objects.splice(0, 10, ...allocMany(theirs, 10));
    expect(cache.stat('ALLOC_FASTPATH')).toBe(fast + 10);
    freeMany(cache, objects);
    expect(cache.shrink().skippedCpus).toEqual([]);
    // The sheaves that were given up are lost with what was in them, and nothing else.
    const findings = arena.validate();
    expect(findings.filter(({ invariant, where }) => invariant !== 'I10' || where !== 'c')).toEqual([]);
    expect(findings.length).toBeLessThanOrEqual(2 * cache.sheafCapacity);
  });
});
