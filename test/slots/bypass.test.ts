/**
 * Two threads of one CPU, driven from this thread: one is preempted with the lock of the sheaves held, the other passes
 * the sheaves by. The kernel has the same when an interrupt or a preempting task finds the local trylock taken.
 */

import { describe, expect, it } from 'vitest';
import type { KmemCache } from '#src/cache/index.js';
import { Pcs, pcsOf } from '#src/cpu/index.js';
import { Arena, type ArenaOptions, type TrylockStats } from '#src/index.js';
import { LockClass } from '#src/sync/index.js';
import {
  allocMany,
  barnSizes,
  boot,
  expectSound,
  freeMany,
  inside,
  moved,
  sheafSizes,
  slabAt,
} from '../cache/support/arena.js';
import { cutIn } from '../slab/support.js';

const NONE: TrylockStats = { trylockFailures: 0, allocBypasses: 0, freeBypasses: 0 };

/** Two threads on CPU 0, and a cache with one full sheaf in the barn, nothing in main and spare. */
function setup(options: Partial<ArenaOptions> = {}) {
  const arena = boot({ lockPolicy: 'op', cpus: 1, threads: 2, ...options });
  const cache = arena.createCache('c', { size: 64, sheafCapacity: 8 });
  const capacity = cache.sheafCapacity;
  const held = allocMany(cache, 4 * capacity);
  freeMany(cache, held.splice(0, 3 * capacity));
  held.push(...allocMany(cache, 2 * capacity));
  expect(barnSizes(arena, cache).full).toEqual([capacity]);
  expect(sheafSizes(arena, cache)).toEqual({ main: 0, spare: 0 });
  const other = Arena.attach(arena.handle);
  other.online();
  expect(other.cpu.id).toBe(0);
  return { arena, cache, held, capacity, other, theirs: other.openCache('c') };
}

/** This thread's next allocation is stopped on its way to the barn, its CPU's sheaves locked; then `action` runs. */
function whilePreempted(arena: Arena, cache: KmemCache, action: () => void): number {
  let ran = false;
  const callOff = cutIn(arena, LockClass.Barn, 'before lock', 1, () => {
    ran = true;
    action();
  });
  const p = cache.alloc();
  callOff();
  expect(ran).toBe(true);
  return p;
}

describe('while another thread of the CPU holds the lock', () => {
  it('an object comes from its slab, and the bypass is counted', () => {
    const { arena, cache, held, theirs } = setup();
    let theirObject = 0;
    const ours = whilePreempted(arena, cache, () => {
      const counts = moved(theirs, () => {
        theirObject = theirs.alloc();
      });
      expect(counts).toMatchObject({ ALLOC_SLOWPATH: 1 });
      expect(counts).not.toHaveProperty('ALLOC_FASTPATH');
      expect(theirs.trylockStats()).toEqual({ ...NONE, trylockFailures: 1, allocBypasses: 1 });
    });
    expect(theirObject).not.toBe(0);
    expect(ours).not.toBe(theirObject);
    expect(new Set([...held, ours, theirObject]).size).toBe(held.length + 2);
    freeMany(cache, [...held, ours, theirObject]);
    expectSound(arena);
    expect(cache.destroy().leaked).toBe(0);
    expectSound(arena);
  });

  it('a freed object goes to its slab, and may be had again', () => {
    const { arena, cache, held, theirs } = setup();
    const p = held.pop()!;
    const page = inside(arena).slabs.slabOf(p);
    const { inuse } = slabAt(arena, page);
    const ours = whilePreempted(arena, cache, () => {
      const counts = moved(theirs, () => theirs.free(p));
      expect(counts).toMatchObject({ FREE_SLOWPATH: 1 });
      expect(counts).not.toHaveProperty('FREE_FASTPATH');
      expect(theirs.trylockStats()).toEqual({ ...NONE, trylockFailures: 1, freeBypasses: 1 });
      expect(slabAt(arena, page).inuse).toBe(inuse - 1);
    });
    freeMany(theirs, [...held, ours]);
    expectSound(arena);
    expect(cache.destroy().leaked).toBe(0);
  });

  it('bulk calls pass by with all their objects; a node request does too', () => {
    const { arena, cache, held, theirs } = setup();
    const out = new Int32Array(5);
    const ours = whilePreempted(arena, cache, () => {
      expect(theirs.allocBulk(out, 5)).toBe(true);
      expect(theirs.trylockStats()).toEqual({ ...NONE, trylockFailures: 1, allocBypasses: 5 });
      theirs.freeBulk(out, 5);
      expect(theirs.trylockStats()).toEqual({ trylockFailures: 2, allocBypasses: 5, freeBypasses: 5 });
      held.push(theirs.allocNode(0));
      expect(theirs.trylockStats()).toEqual({ trylockFailures: 3, allocBypasses: 6, freeBypasses: 5 });
    });
    freeMany(cache, [...held, ours]);
    expectSound(arena);
    expect(cache.destroy().leaked).toBe(0);
  });

  it('other caches are not concerned', () => {
    const { arena, cache, held, other } = setup();
    const elsewhere = arena.createCache('d', { size: 64 });
    const theirs = other.openCache('d');
    const ours = whilePreempted(arena, cache, () => theirs.free(theirs.alloc()));
    expect(elsewhere.trylockStats()).toEqual(NONE);
    freeMany(cache, [...held, ours]);
    expectSound(arena);
  });
});

describe('when the lock is taken by another between two steps of one operation', () => {
  /** From the first list_lock that this thread gives back, the other one holds the lock, as if stopped in an operation. */
  function stealAt(arena: Arena, cache: KmemCache, other: Arena): () => void {
    const lock = pcsOf(arena.geometry, 0, cache.desc.slot) + Pcs.lock;
    const callOff = cutIn(arena, LockClass.ListLock, 'after unlock', 1, () => {
      expect(arena.i32[lock], 'given up before list_lock was taken').toBe(0);
      arena.i32[lock] = other.cpu.locks.owner;
    });
    return () => {
      callOff();
      expect(arena.i32[lock]).toBe(other.cpu.locks.owner);
      arena.i32[lock] = 0;
    };
  }

  it('a sheaf that was filled meanwhile goes to the barn, the object comes from a slab', () => {
    const arena = boot({ lockPolicy: 'op', cpus: 1, threads: 2 });
    const cache = arena.createCache('c', { size: 64, sheafCapacity: 8 });
    const other = Arena.attach(arena.handle);
    other.online();
    const giveBack = stealAt(arena, cache, other);
    const p = cache.alloc();
    giveBack();
    expect(p).not.toBe(0);
    expect(cache.trylockStats()).toEqual({ ...NONE, trylockFailures: 1, allocBypasses: 1 });
    expect(barnSizes(arena, cache).full).toEqual([cache.sheafCapacity]);
    expect(cache.stats()).toMatchObject({ ALLOC_SLOWPATH: 1, ALLOC_FASTPATH: 0 });
    expectSound(arena);
    cache.free(p);
    expect(cache.destroy().leaked).toBe(0);
  });
});

describe('statistics', () => {
  it('are exact over the threads of a CPU, each with counters of its own', () => {
    const { arena, cache, held, theirs } = setup();
    const before = cache.stats();
    const mine = allocMany(cache, 30);
    const others = allocMany(theirs, 20);
    freeMany(cache, others);
    freeMany(theirs, mine);
    const { ALLOC_FASTPATH, FREE_FASTPATH, ALLOC_SLOWPATH, FREE_SLOWPATH } = cache.stats();
    expect(ALLOC_FASTPATH + ALLOC_SLOWPATH - before.ALLOC_FASTPATH - before.ALLOC_SLOWPATH).toBe(50);
    expect(FREE_FASTPATH + FREE_SLOWPATH - before.FREE_FASTPATH - before.FREE_SLOWPATH).toBe(50);
    expect(theirs.stats()).toEqual(cache.stats());
    expect(cache.trylockStats(), 'nobody was in the way').toEqual(NONE);
    freeMany(cache, held);
    expectSound(arena);
  });

  it('are in cacheInfo', () => {
    const { arena, cache, theirs } = setup();
    whilePreempted(arena, cache, () => theirs.free(theirs.alloc()));
    const info = arena.cacheInfo().find(({ name }) => name === 'c');
    expect(info).toMatchObject({ trylockFailures: 2, allocBypasses: 1, freeBypasses: 1 });
    expect(info!.stats).toEqual(cache.stats());
  });

  it('agree with the lock statistics, where an arena keeps them', () => {
    const { arena, cache, theirs } = setup({ lockStat: 'contended' });
    whilePreempted(arena, cache, () => theirs.free(theirs.alloc()));
    const row = arena.lockStat().find(({ name }) => name === 'cpu_sheaves->lock');
    expect(row!.tryFailed).toBe(2);
    expect(arena.cacheInfo().reduce((sum, info) => sum + info.trylockFailures, 0)).toBe(2);
  });

  it('of a cache without sheaves: there is nothing to pass by', () => {
    const arena = boot({ lockPolicy: 'op', cpus: 1, threads: 2, layer: 'none' });
    const cache = arena.createCache('c', { size: 64 });
    const other = Arena.attach(arena.handle);
    other.online();
    const theirs = other.openCache('c');
    const callOff = cutIn(arena, LockClass.ListLock, 'before lock', 1, () => theirs.free(theirs.alloc()));
    cache.free(cache.alloc());
    callOff();
    const { allocBypasses, freeBypasses } = cache.trylockStats();
    expect({ allocBypasses, freeBypasses }).toEqual({ allocBypasses: 0, freeBypasses: 0 });
    expectSound(arena);
  });
});
