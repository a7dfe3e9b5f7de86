/** Two CPUs, interleaved where it hurts: another CPU frees, takes or flushes between two steps of an operation. */

import { describe, expect, it } from 'vitest';
import { lockRemotePcs, unlockRemotePcs } from '#src/cache/remote.js';
import { pcsOf } from '#src/cpu/index.js';
import { LockClass } from '#src/sync/index.js';
import { expectSound, freeMany, partialList } from '../cache/support/arena.js';
import { cutIn } from '../slab/support.js';
import { cpuView, fillSlabs, movedAll, O, POLICIES, setup, slabOf } from './support.js';

const { ListLock, Zone } = LockClass;

describe.each(POLICIES)('policy %s', (lockPolicy) => {
  const begin = () => {
    const scene = setup({ lockPolicy });
    const settle = (): void => {
      scene.arena.endTurn();
      scene.other.endTurn();
      expectSound(scene.arena);
    };
    return { ...scene, settle };
  };

  it.each([
    ['some', 2],
    ['all', O - 1],
  ])('%s objects of a slab come back after it was unfrozen and before it is on the list', (_, n) => {
    const { arena, cache, other, theirs, settle } = begin();
    cache.minPartial = 0;
    const [objects] = fillSlabs(cache, 1) as [number[]];
    cache.free(objects[0]!);
    arena.endTurn();
    let between = {};
    cutIn(arena, ListLock, 'before lock', 1, () => {
      expect(slabOf(arena, objects[0]!)).toMatchObject({ frozen: false, inuse: O - 1 });
      between = movedAll(theirs, () => freeMany(theirs, objects.slice(1, 1 + n)));
      other.endTurn();
    });
    expect(movedAll(cache, () => cache.flushThisCpu())).toEqual({
      ...between,
      CPUSLAB_FLUSH: 1,
      DEACTIVATE_TO_HEAD: 1,
    });
    expect(between).toEqual({ FREE_SLOWPATH: n });
    expect(partialList(arena, cache)).toMatchObject([{ inuse: O - 1 - n }]);
    settle();
    freeMany(cache, objects.slice(1 + n));
    settle();
    expect(cache.destroy()).toMatchObject({ leaked: 0 });
    settle();
  });

  it('a list that is drained gets frees meanwhile', () => {
    const { cache, theirs, arena, settle } = begin();
    cache.minPartial = 0;
    const slabs = fillSlabs(cache, 4);
    for (const objects of slabs.slice(0, 2)) cache.free(objects[0]!);
    let between = {};
    cutIn(arena, ListLock, 'before lock', 1, () => {
      between = movedAll(theirs, () => freeMany(theirs, slabs[1]!.slice(1)));
    });
    const moves = movedAll(cache, () => cache.free(slabs[2]![0]!));
    expect(between).toEqual({ FREE_SLOWPATH: O - 1, FREE_FROZEN: O - 1 });
    expect(moves).toMatchObject({
      CPU_PARTIAL_DRAIN: 1,
      DEACTIVATE_EMPTY: 1,
      FREE_SLAB: 1,
      FREE_ADD_PARTIAL: 1,
    });
    expect(partialList(arena, cache).map(({ address }) => address)).toEqual([slabs[0]![0]]);
    settle();
  });

  it('another CPU takes the only partial slab while we wait for the list: we make a new one', () => {
    const { cache, theirs, arena, other, settle } = begin();
    const [objects] = fillSlabs(cache, 1) as [number[]];
    cache.free(objects[0]!);
    cache.flushThisCpu();
    expect(partialList(arena, cache)).toHaveLength(1);
    let stolen = 0;
    cutIn(arena, ListLock, 'before lock', 1, () => {
      stolen = theirs.alloc();
      other.endTurn();
    });
    expect(movedAll(cache, () => expect(cache.alloc()).not.toBe(objects[0]))).toEqual({
      ALLOC_SLOWPATH: 2,
      ALLOC_FROM_PARTIAL: 1,
      ALLOC_SLAB: 1,
    });
    expect(stolen).toBe(objects[0]);
    settle();
  });

  it('another CPU freezes the slab whose last object we are about to free', () => {
    const { cache, theirs, arena, other, settle } = begin();
    cache.minPartial = 0;
    const [objects] = fillSlabs(cache, 1) as [number[]];
    freeMany(cache, objects.slice(1));
    cache.flushThisCpu();
    expect(slabOf(arena, objects[0]!)).toMatchObject({ inuse: 1, frozen: false });
    let p = 0;
    cutIn(arena, ListLock, 'before lock', 1, () => {
      p = theirs.alloc();
      other.endTurn();
    });
    expect(movedAll(cache, () => cache.free(objects[0]!))).toEqual({
      ALLOC_SLOWPATH: 1,
      ALLOC_FROM_PARTIAL: 1,
      FREE_SLOWPATH: 1,
      FREE_FROZEN: 1,
    });
    expect(slabOf(arena, p)).toMatchObject({ frozen: true });
    expect(cpuView(arena, cache, 1).slab).toBe(objects[0]);
    theirs.free(p);
    settle();
    cache.shrink();
    expect(cache.destroy()).toMatchObject({ leaked: 0 });
    settle();
  });

  it('the CPU gets a slab of its own while the new one is made: the first is put on the list', () => {
    const { cache, arena, settle } = begin();
    const held: number[] = [];
    // As when memory has to be reclaimed first, which may use any cache.
    cutIn(arena, Zone, 'before lock', 1, () => {
      held.push(cache.alloc());
    });
    expect(movedAll(cache, () => held.push(cache.alloc()))).toEqual({
      ALLOC_SLOWPATH: 2,
      ALLOC_SLAB: 2,
      CPUSLAB_FLUSH: 1,
      DEACTIVATE_TO_HEAD: 1,
    });
    expect(cpuView(arena, cache).slab).toBe(held[1]);
    expect(partialList(arena, cache)).toMatchObject([{ address: held[0], inuse: 1 }]);
    settle();
  });

  it('another CPU has our lock when the new slab is there: it is used unfrozen', () => {
    const { cache, arena, other, settle } = begin();
    const pcs = pcsOf(arena.geometry, 0, cache.desc.slot);
    cutIn(arena, Zone, 'after unlock', 1, () => {
      expect(lockRemotePcs(other.cpu, pcs)).toBe(true);
    });
    let p = 0;
    expect(movedAll(cache, () => (p = cache.alloc()))).toEqual({ ALLOC_SLOWPATH: 1, ALLOC_SLAB: 1 });
    expect(cpuView(arena, cache).slab).toBe(null);
    expect(partialList(arena, cache)).toMatchObject([{ address: p, inuse: 1 }]);
    // And so is everything until it gives the lock back.
    const held: number[] = [];
    const out = new Int32Array(2 * O);
    expect(
      movedAll(cache, () => {
        for (let i = 0; i < O; i++) held.push(cache.alloc());
        expect(cache.allocBulk(out, out.length)).toBe(true);
      }),
    ).toEqual({ ALLOC_SLOWPATH: 3 * O, ALLOC_SLAB: 3 });
    expect(new Set([p, ...held, ...out]).size).toBe(1 + 3 * O);
    expect(partialList(arena, cache)).toMatchObject([{ inuse: 1 }]);
    expect(
      movedAll(cache, () => {
        cache.free(p);
        freeMany(cache, held);
        cache.freeBulk(out, out.length);
      }),
    ).toEqual({ FREE_SLOWPATH: 1 + 3 * O, FREE_ADD_PARTIAL: 3 });
    unlockRemotePcs(other.cpu, pcs);
    settle();
    expect(movedAll(cache, () => (p = cache.alloc()))).toMatchObject({
      ALLOC_SLOWPATH: 1,
      ALLOC_FROM_PARTIAL: 1,
    });
    cache.free(p);
    settle();
    cache.shrink();
    expect(cache.destroy()).toMatchObject({ leaked: 0 });
    settle();
  });

  it('without our lock we take one object; another CPU freezes the slab before the rest is returned', () => {
    const { cache, theirs, arena, other, settle } = begin();
    const [objects] = fillSlabs(cache, 1) as [number[]];
    freeMany(cache, objects.slice(0, 3));
    cache.flushThisCpu();
    const pcs = pcsOf(arena.geometry, 0, cache.desc.slot);
    expect(lockRemotePcs(other.cpu, pcs)).toBe(true);
    // The second time is when the objects that are not wanted go back: the slab is full and nobody's.
    cutIn(arena, ListLock, 'before lock', 2, () => {
      expect(slabOf(arena, objects[5]!)).toMatchObject({ inuse: O, frozen: false });
      expect(movedAll(theirs, () => theirs.free(objects[5]!))).toEqual({
        FREE_SLOWPATH: 1,
        CPU_PARTIAL_FREE: 1,
      });
      other.endTurn();
    });
    const p = cache.alloc();
    expect(objects.slice(0, 3)).toContain(p);
    expect(partialList(arena, cache)).toEqual([]);
    expect(cpuView(arena, cache, 1).partial).toEqual([objects[0]]);
    expect(slabOf(arena, p)).toMatchObject({ inuse: O - 3, frozen: true });
    unlockRemotePcs(other.cpu, pcs);
    settle();
  });

  it('a shrink while a new slab is made finds nothing, and takes it afterwards', () => {
    const { cache, theirs, arena, other, settle } = begin();
    const [objects] = fillSlabs(cache, 1) as [number[]];
    cutIn(arena, Zone, 'before lock', 1, () => {
      expect(theirs.shrink()).toEqual({ slabs: 1, skippedCpus: [] });
      other.endTurn();
    });
    const p = cache.alloc();
    expect(cpuView(arena, cache).slab).toBe(p);
    freeMany(cache, objects);
    cache.free(p);
    settle();
    expect(theirs.shrink()).toEqual({ slabs: 0, skippedCpus: [] });
    settle();
  });
});
