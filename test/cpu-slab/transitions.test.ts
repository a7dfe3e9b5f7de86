/** Every way in which a slab comes to a CPU and leaves it, with the kernel's counters for each, exactly. */

import { describe, expect, it } from 'vitest';
import { expectSound, freeMany, nodeCounts, partialList } from '../cache/support/arena.js';
import { cpuView, fillSlabs, movedAll, O, P, POLICIES, setup, slabOf } from './support.js';

const CASES = POLICIES.flatMap((lockPolicy) => [1, 2].map((nodes) => ({ lockPolicy, nodes })));

describe.each(CASES)('policy $lockPolicy, $nodes nodes', (options) => {
  const begin = () => {
    const scene = setup(options);
    expect(scene.cache.objsPerSlab).toBe(O);
    expect(scene.cache.desc.cpuPartialSlabs).toBe(P);
    /** Ends both turns and checks everything. */
    const settle = (): void => {
      scene.arena.endTurn();
      scene.other.endTurn();
      expectSound(scene.arena);
    };
    return { ...scene, settle };
  };

  it('a new slab becomes the cpu slab, and all of it the freelist', () => {
    const { arena, cache, settle } = begin();
    let p = 0;
    expect(movedAll(cache, () => (p = cache.alloc()))).toEqual({ ALLOC_SLOWPATH: 1, ALLOC_SLAB: 1 });
    const { slab, free, partial } = cpuView(arena, cache);
    expect([slab, free.length, partial]).toEqual([p, O - 1, []]);
    expect(slabOf(arena, p)).toMatchObject({ inuse: O, freelist: 0, frozen: true });
    expect(nodeCounts(arena, cache)).toEqual({ partial: 0, slabs: 1, objects: O });
    settle();
  });

  it('its objects are handed out in the order of their addresses; freed ones first', () => {
    const { arena, cache, settle } = begin();
    const [first] = fillSlabs(cache, 1);
    expect(first).toEqual([...first!].sort((a, b) => a - b));
    expect(movedAll(cache, () => freeMany(cache, [first![3]!, first![5]!]))).toEqual({ FREE_FASTPATH: 2 });
    expect(cpuView(arena, cache).free).toEqual([first![5], first![3]]);
    let p = 0;
    expect(movedAll(cache, () => (p = cache.alloc()))).toEqual({ ALLOC_FASTPATH: 1 });
    expect(p).toBe(first![5]);
    settle();
  });

  it('a used up slab is let go, full and on no list', () => {
    const { arena, cache, settle } = begin();
    let objects: number[] = [];
    expect(movedAll(cache, () => ([objects] = fillSlabs(cache, 1) as [number[]]))).toEqual({
      ALLOC_SLOWPATH: 1,
      ALLOC_SLAB: 1,
      ALLOC_FASTPATH: O - 1,
    });
    expect(slabOf(arena, objects[0]!).frozen, 'until the next allocation').toBe(true);
    expect(movedAll(cache, () => cache.alloc())).toEqual({
      ALLOC_SLOWPATH: 1,
      DEACTIVATE_BYPASS: 1,
      ALLOC_SLAB: 1,
    });
    expect(slabOf(arena, objects[0]!)).toMatchObject({ inuse: O, freelist: 0, frozen: false });
    expect(partialList(arena, cache)).toEqual([]);
    settle();
  });

  it('what another CPU frees into the cpu slab is taken over when the freelist is used up', () => {
    const { arena, cache, theirs, settle } = begin();
    const [objects] = fillSlabs(cache, 1) as [number[]];
    expect(movedAll(theirs, () => freeMany(theirs, objects.slice(0, 3)))).toEqual({
      FREE_SLOWPATH: 3,
      FREE_FROZEN: 3,
    });
    expect(cpuView(arena, cache, 1)).toEqual({ slab: null, free: [], partial: [] });
    expect(movedAll(cache, () => cache.alloc())).toEqual({ ALLOC_SLOWPATH: 1, ALLOC_REFILL: 1 });
    expect(cpuView(arena, cache).free).toEqual([objects[1], objects[0]]);
    expect(slabOf(arena, objects[0]!)).toMatchObject({ inuse: O, freelist: 0, frozen: true });
    settle();
  });

  it('a full slab with a first free goes to the partial list of the CPU that frees', () => {
    const { arena, cache, theirs, settle } = begin();
    const [full, , last] = fillSlabs(cache, 3) as [number[], number[], number[]];
    expect(movedAll(theirs, () => theirs.free(full[0]!))).toEqual({ FREE_SLOWPATH: 1, CPU_PARTIAL_FREE: 1 });
    expect(cpuView(arena, cache, 1)).toEqual({ slab: null, free: [], partial: [full[0]] });
    expect(slabOf(arena, full[0]!)).toMatchObject({ inuse: O - 1, frozen: true });
    expect(partialList(arena, cache)).toEqual([]);
    expect(movedAll(cache, () => cache.free(full[1]!))).toEqual({ FREE_SLOWPATH: 1, FREE_FROZEN: 1 });
    expect(cpuView(arena, cache)).toEqual({ slab: last[0], free: [], partial: [] });
    settle();
  });

  it('a cpu partial list that is full goes to the nodes as a whole', () => {
    const { arena, cache, settle } = begin();
    const slabs = fillSlabs(cache, 4);
    for (const [p] of slabs.slice(0, P)) cache.free(p!);
    expect(cpuView(arena, cache).partial).toEqual([slabs[1]![0], slabs[0]![0]]);
    expect(movedAll(cache, () => cache.free(slabs[2]![0]!))).toEqual({
      FREE_SLOWPATH: 1,
      CPU_PARTIAL_FREE: 1,
      CPU_PARTIAL_DRAIN: 1,
      FREE_ADD_PARTIAL: P,
    });
    expect(cpuView(arena, cache).partial).toEqual([slabs[2]![0]]);
    expect(partialList(arena, cache).map(({ address }) => address)).toEqual([slabs[1]![0], slabs[0]![0]]);
    expect(slabOf(arena, slabs[0]![0]!).frozen).toBe(false);
    settle();
  });

  it('empty slabs of such a list are given back, past min_partial', () => {
    const { arena, cache, settle } = begin();
    cache.minPartial = 1;
    const slabs = fillSlabs(cache, 4);
    for (const objects of slabs.slice(0, P)) freeMany(cache, objects);
    const used = arena.meminfo().usedPages;
    expect(movedAll(cache, () => cache.free(slabs[2]![0]!))).toEqual({
      FREE_SLOWPATH: 1,
      CPU_PARTIAL_FREE: 1,
      CPU_PARTIAL_DRAIN: 1,
      FREE_ADD_PARTIAL: 1,
      DEACTIVATE_EMPTY: 1,
      FREE_SLAB: 1,
    });
    expect(arena.meminfo().usedPages).toBe(used - O);
    settle();
  });

  it('the last free of a slab on the partial list of its node gives it back', () => {
    const { arena, cache, settle } = begin();
    cache.minPartial = 0;
    const slabs = fillSlabs(cache, 4);
    for (const [p] of slabs.slice(0, 3)) cache.free(p!);
    const rest = slabs[0]!.slice(1);
    expect(movedAll(cache, () => freeMany(cache, rest))).toEqual({
      FREE_SLOWPATH: O - 1,
      FREE_REMOVE_PARTIAL: 1,
      FREE_SLAB: 1,
    });
    expect(partialList(arena, cache)).toHaveLength(1);
    settle();
  });

  it('a cpu partial slab is the next cpu slab', () => {
    const { arena, cache, settle } = begin();
    const slabs = fillSlabs(cache, 2);
    freeMany(cache, slabs[0]!.slice(0, 2));
    expect(movedAll(cache, () => cache.alloc())).toEqual({
      ALLOC_SLOWPATH: 1,
      DEACTIVATE_BYPASS: 1,
      CPU_PARTIAL_ALLOC: 1,
    });
    expect(cpuView(arena, cache)).toEqual({ slab: slabs[0]![0], free: [slabs[0]![0]], partial: [] });
    settle();
  });

  it('slabs of the node come with half a cpu partial list', () => {
    const { arena, cache, other, settle } = begin();
    const slabs = fillSlabs(cache, 6);
    for (const [p] of slabs) cache.free(p!);
    arena.endTurn();
    other.endTurn();
    expect(cache.shrink()).toEqual({ slabs: 6, skippedCpus: [] });
    const listed = partialList(arena, cache).map(({ address }) => address);
    expect(listed).toHaveLength(6);
    expect(movedAll(cache, () => cache.alloc())).toEqual({
      ALLOC_SLOWPATH: 1,
      ALLOC_FROM_PARTIAL: 1,
      CPU_PARTIAL_NODE: P / 2 + 1,
    });
    expect(cpuView(arena, cache)).toEqual({ slab: listed[0], free: [], partial: [listed[2], listed[1]] });
    expect(partialList(arena, cache).map(({ address }) => address)).toEqual(listed.slice(3));
    settle();
  });

  it('a shrink flushes every CPU: head of the list, or tail after frees by others, or nothing left', () => {
    const { arena, cache, theirs, other, settle } = begin();
    const mine = cache.alloc();
    const [objects] = fillSlabs(theirs, 1) as [number[]];
    const spare = theirs.alloc(); // lets the full one go
    cache.free(objects[0]!);
    cache.free(spare);
    theirs.free(mine);
    arena.endTurn();
    other.endTurn();
    expect(movedAll(cache, () => expect(cache.shrink()).toEqual({ slabs: 1, skippedCpus: [] }))).toEqual({
      CPUSLAB_FLUSH: 2,
      DEACTIVATE_REMOTE_FREES: 2,
      DEACTIVATE_TO_TAIL: 2,
      FREE_ADD_PARTIAL: 1,
    });
    for (const cpu of [0, 1])
      expect(cpuView(arena, cache, cpu)).toEqual({ slab: null, free: [], partial: [] });
    const last = theirs.alloc();
    other.endTurn();
    expect(last).toBe(objects[0]);
    expect(movedAll(cache, () => cache.shrink())).toEqual({ CPUSLAB_FLUSH: 1, DEACTIVATE_FULL: 1 });
    freeMany(cache, objects);
    settle();
    expect(cache.destroy()).toEqual({ cache: 'c', leaked: 0, objects: [] });
    settle();
  });

  it('the slabs of a CPU that goes offline are everybody’s', () => {
    const { arena, cache, other, theirs } = begin();
    const held = fillSlabs(theirs, 3);
    theirs.free(held[0]![0]!);
    theirs.free(held[2]![0]!);
    other.offline();
    expect(cpuView(arena, cache, 1)).toEqual({ slab: null, free: [], partial: [] });
    expectSound(arena);
    for (const objects of held) freeMany(cache, objects.slice(objects === held[1] ? 0 : 1));
    expect(cache.destroy()).toMatchObject({ leaked: 0 });
    expectSound(arena);
  });

  it('destroy names what is not free', () => {
    const { arena, cache, other, theirs } = begin();
    const [objects] = fillSlabs(theirs, 1) as [number[]];
    freeMany(cache, objects.slice(1));
    arena.endTurn();
    other.endTurn();
    expect(cache.destroy()).toEqual({ cache: 'c', leaked: 1, objects: [objects[0]] });
  });
});
