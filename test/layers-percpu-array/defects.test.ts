/**
 * What was wrong with the patch as it was posted (seed 003), each as a scene in which it would lose
 * an object, run for ever, or say what is not so.
 */
import { describe, expect, it } from 'vitest';
import { Pcs, pcsOf } from '#src/cpu/index.js';
import { GFP_KERNEL } from '#src/index.js';
import { LockClass } from '#src/sync/index.js';
import {
  allocMany,
  expectSound,
  footprint,
  freeMany,
  inside,
  nodeCounts,
  secondCpu,
} from '../cache/support/arena.js';
import { cutIn, fullSlabs, slabAlloc } from '../slab/support.js';
import { arrayOf, counted, expectBalanced, inUse, MODES, setup, stealLock, usedOf } from './support.js';

describe.each(MODES)('policy $lockPolicy, check $check:', (mode) => {
  it('(1) an object that is freed while somebody else has the lock goes to its slab', () => {
    const { arena, cache } = setup(mode);
    const held = allocMany(cache, 3);
    arena.endTurn();
    const giveBack = stealLock(arena, cache);
    expect(counted(cache, () => freeMany(cache, held))).toMatchObject({ FREE_SLOWPATH: 3 });
    giveBack();
    expectSound(arena);
    expectBalanced(cache, 0);
    expect(inUse(arena, cache)).toBe(0);
  });

  it('(1) nor is one lost that finds the array full and the lock gone after the flush', () => {
    const { arena, cache } = setup(mode);
    const held = fullSlabs(arena, cache, 2).flat();
    const first = held.splice(0, 8);
    freeMany(cache, first);
    let giveBack = (): void => {};
    cutIn(arena, LockClass.ListLock, 'before lock', 1, () => {
      giveBack = stealLock(arena, cache);
    });
    const moves = counted(cache, () => cache.free(held.pop()!));
    giveBack();
    expect(moves).toMatchObject({ PCA_FLUSH: 4, FREE_SLOWPATH: 1 });
    expect(moves).not.toHaveProperty('FREE_PCA');
    expect(usedOf(arena, cache)).toBe(4);
    expectSound(arena);
    expect(inUse(arena, cache)).toBe(held.length);
  });

  it('(2) destroy gives the arrays back', () => {
    const { arena, cache } = setup(mode);
    cache.destroy();
    const before = footprint(arena);
    const { freePages } = arena.meminfo();
    for (const arraySize of [1, 8, 100, 1000, 16384]) {
      const fresh = arena.createCache('c', { size: 64, layer: 'percpu-array', arraySize });
      freeMany(fresh, allocMany(fresh, arraySize + 3));
      expect(fresh.destroy()).toMatchObject({ leaked: 0 });
      expect(footprint(arena)).toEqual(before);
      expect(arena.meminfo().freePages).toBe(freePages);
    }
  });

  it('(3) an array of more than 64 is refilled and flushed in rounds of 32, to the half', () => {
    const { arena, cache } = setup(mode, 300, 64);
    const { slabs } = inside(arena);
    const batches: number[] = [];
    const { refillObjects, freeObjects } = slabs;
    slabs.refillObjects = (s, out, at, min, max, gfp) => {
      if (s === cache.desc) batches.push(max);
      return refillObjects.call(slabs, s, out, at, min, max, gfp);
    };
    slabs.freeObjects = (s, list, at, n) => {
      if (s === cache.desc) batches.push(n);
      freeObjects.call(slabs, s, list, at, n);
    };
    expect(counted(cache, () => cache.alloc())).toMatchObject({ PCA_REFILL: 150, ALLOC_PCA: 1 });
    expect(batches.splice(0)).toEqual([32, 32, 32, 32, 22]);
    expect(usedOf(arena, cache)).toBe(149);
    const held = slabAlloc(arena, cache, 152);
    expect(counted(cache, () => freeMany(cache, held))).toMatchObject({ PCA_FLUSH: 150, FREE_PCA: 152 });
    expect(batches).toEqual([32, 32, 32, 32, 22]);
    expect(usedOf(arena, cache)).toBe(151);
    expectSound(arena);
  });

  it('(4) a bulk allocation that fails hands nothing out, and the array is as it was', () => {
    const { arena, cache } = setup(mode);
    cache.prefillArray(6);
    arena.endTurn();
    const array = arrayOf(arena, cache);
    const { objects } = nodeCounts(arena, cache);
    const out = new Int32Array(1000);
    arena.failPageAlloc(1);
    expect(cache.allocBulk(out, 1000)).toBe(false);
    arena.failPageAlloc(0);
    arena.endTurn();
    expect(arrayOf(arena, cache)).toEqual(array);
    expect(nodeCounts(arena, cache).objects).toBeLessThanOrEqual(objects);
    expectBalanced(cache, 0);
    expectSound(arena);
    if (mode.check !== 'none') expect(() => cache.free(array[0]!)).toThrow(/already free/);
    expect(inUse(arena, cache)).toBe(0);
  });

  it('(5) a bulk free counts what it freed, also when it met a bad address', () => {
    const { arena, cache } = setup(mode);
    const list = Int32Array.from(slabAlloc(arena, cache, 20));
    expect(counted(cache, () => cache.freeBulk(list.subarray(0, 5), 5))).toMatchObject({ FREE_PCA: 5 });
    expect(counted(cache, () => cache.freeBulk(list.subarray(5, 15), 10))).toMatchObject({
      FREE_PCA: 3,
      FREE_SLOWPATH: 7,
    });
    allocMany(cache, 8);
    if (mode.check !== 'none') {
      const bad = Int32Array.of(list[15]!, list[16]!, list[5]! + 4, list[17]!);
      const moves = counted(cache, () => expect(() => cache.freeBulk(bad, 4)).toThrow(/Invalid object/));
      expect(moves).toEqual({});
    }
    expect(counted(cache, () => cache.freeBulk(list.subarray(15), 5))).toMatchObject({ FREE_PCA: 5 });
    expect(usedOf(arena, cache)).toBe(5);
  });

  it('(6) an allocation that loses the lock after its refill still gets an object, and the batch is not lost', () => {
    const { arena, cache } = setup(mode, 64);
    let giveBack = (): void => {};
    cutIn(arena, LockClass.ListLock, 'before lock', 1, () => {
      giveBack = stealLock(arena, cache);
    });
    let p = 0;
    expect(counted(cache, () => (p = cache.alloc()))).toMatchObject({ ALLOC_SLOWPATH: 1 });
    expect(p).not.toBe(0);
    giveBack();
    expect(usedOf(arena, cache)).toBe(0);
    expectSound(arena);
    expect(inUse(arena, cache)).toBe(1);
  });

  it('(6) every call ends with what it was asked for while somebody drains the array whenever the lock is free', () => {
    const { arena, cache } = setup(mode, 128);
    const other = secondCpu(arena);
    const theirs = other.openCache('c');
    let drained = 0;
    let callOff = (): void => {};
    const drainNext = (): void => {
      callOff = cutIn(arena, LockClass.ListLock, 'before lock', 1, () => {
        arena.i32[request] = 0; // nobody waits: the drain finds the lock free or goes away
        if (arena.i32[pcs + Pcs.lock] === 0) {
          theirs.detachPcs(pcs);
          theirs.flushDetachedPcs();
          drained++;
        }
        drainNext();
      });
    };
    const pcs = pcsOf(arena.geometry, 0, cache.desc.slot);
    const request = pcs + Pcs.request;
    drainNext();
    const held = allocMany(cache, 300);
    const list = Int32Array.from(held.splice(0, 100));
    freeMany(cache, held);
    cache.freeBulk(list, 100);
    callOff();
    expect(drained).toBeGreaterThan(10);
    other.endTurn();
    arena.endTurn();
    expectSound(arena);
    expectBalanced(cache, 0);
    expect(inUse(arena, cache)).toBe(0);
  });

  it('(6) a refill that runs out of memory in a later round uses what the earlier ones brought', () => {
    const { arena, cache } = setup(mode, 128, 2048);
    // A slab has 16 objects or fewer, so that the first round of 32 needs some and the second finds none left.
    const perRound = Math.ceil(32 / cache.objsPerSlab);
    const { newSlab } = inside(arena).slabs;
    let made = 0;
    inside(arena).slabs.newSlab = (s, gfp, node) =>
      s === cache.desc && made++ >= perRound ? (0 as never) : newSlab.call(inside(arena).slabs, s, gfp, node);
    expect(counted(cache, () => expect(cache.alloc()).not.toBe(0))).toMatchObject({
      PCA_REFILL: 32,
      ALLOC_PCA: 1,
    });
    expect(usedOf(arena, cache)).toBe(31);
    expectSound(arena);
    expectBalanced(cache, 1);
  });

  it('an array that was filled meanwhile gives the excess back', () => {
    const { arena, cache } = setup(mode, 8);
    const held = fullSlabs(arena, cache, 1).flat();
    const callOff = cutIn(arena, LockClass.ListLock, 'before lock', 1, () =>
      freeMany(cache, held.splice(0, 8)),
    );
    const moves = counted(cache, () => expect(cache.alloc()).not.toBe(0));
    callOff();
    expect(moves).toMatchObject({ FREE_PCA: 8, ALLOC_PCA: 1 });
    expect(moves).not.toHaveProperty('PCA_REFILL');
    expect(usedOf(arena, cache)).toBe(7);
    expectSound(arena);
    expect(inUse(arena, cache)).toBe(held.length + 1);
  });

  it('(7) destroy and shrink empty every CPU’s array, of CPUs without a thread as well', () => {
    const { arena, cache } = setup({ ...mode, cpus: 3 });
    for (const cpu of [1, 2]) {
      const other = secondCpu(arena, cpu);
      other.openCache('c').prefillArray(8);
      other.endTurn();
      if (cpu === 1) other.offline();
    }
    cache.prefillArray(5);
    expect([0, 1, 2].map((cpu) => usedOf(arena, cache, cpu))).toEqual([5, 0, 8]);
    expect(counted(cache, () => expect(cache.shrink()).toEqual({ slabs: 0, skippedCpus: [] }))).toMatchObject(
      {
        PCA_FLUSH: 13,
      },
    );
    expect([0, 1, 2].map((cpu) => usedOf(arena, cache, cpu))).toEqual([0, 0, 0]);
    // As a thread that is gone leaves it.
    cache.prefillArray(5);
    secondCpu(arena, 1).openCache('c').prefillArray(7);
    expect(arena.cpuDead(1)).toEqual({ cpu: 1, heldLocks: [], notes: [] });
    expect(usedOf(arena, cache, 1)).toBe(0);
    expectSound(arena);
    expect(cache.destroy()).toEqual({ cache: 'c', leaked: 0, objects: [] });
  });

  it('(8) objects of another node go to their slab, singly and in bulk, and none accumulate', () => {
    const { arena, cache } = setup({ ...mode, nodes: 2 });
    const other = secondCpu(arena);
    const theirs = other.openCache('c');
    expect([arena.cpu.node, other.cpu.node]).toEqual([0, 1]);
    const held = allocMany(theirs, 40);
    other.endTurn();
    expect(counted(cache, () => freeMany(cache, held.splice(0, 10)))).toMatchObject({ FREE_SLOWPATH: 10 });
    const own = allocMany(cache, 4);
    arena.endTurn();
    const mixed = Int32Array.from([...held.splice(0, 10), ...own, ...held.splice(0, 10)]);
    const moves = counted(cache, () => cache.freeBulk(mixed, mixed.length));
    expect(moves).toMatchObject({ FREE_SLOWPATH: 20, FREE_PCA: 4 });
    expect(usedOf(arena, cache)).toBe(4);
    expect(arrayOf(arena, cache).sort()).toEqual([...own].sort());
    expectSound(arena);
    expect(inUse(arena, cache)).toBe(10);
  });
});

describe('check free', () => {
  it('a prefill that loses the lock leaks nothing, and says that memory was there', () => {
    const { arena, cache } = setup({ lockPolicy: 'op', check: 'free' }, 64);
    let giveBack = (): void => {};
    cutIn(arena, LockClass.ListLock, 'before lock', 1, () => {
      giveBack = stealLock(arena, cache);
    });
    expect(cache.prefillArray(40, GFP_KERNEL)).toBe(true);
    giveBack();
    expect(usedOf(arena, cache)).toBe(0);
    expectSound(arena);
    expect(inUse(arena, cache)).toBe(0);
  });
});
