/** An empty main: the decision order of the kernel's __pcs_replace_empty_main, and refilling from the slabs. */

import { describe, expect, it } from 'vitest';
import type { KmemCache } from '#src/cache/index.js';
import { Pcs, pcsOf } from '#src/cpu/index.js';
import { __GFP_THISNODE, type Arena, GFP_KERNEL, type LockPolicy } from '#src/index.js';
import { virtToPage } from '#src/page/index.js';
import { KmemCacheStruct } from '#src/slab/index.js';
import { LockClass } from '#src/sync/index.js';
import {
  allocMany,
  barnSizes,
  boot,
  expectSound,
  freeMany,
  inside,
  moved,
  nodeCounts,
  pagesOf,
  partialList,
  secondCpu,
  sheafSizes,
  sheavesOf,
} from '../cache/support/arena.js';
import { cutIn, fullSlabs, listLocks, refill, slabAlloc, slabFree } from '../slab/support.js';

const POLICIES: LockPolicy[] = ['turn', 'op'];
const C = 4;

const setup = (lockPolicy: LockPolicy = 'turn') => {
  const arena = boot({ lockPolicy, lockStat: 'contended', bytes: 16 << 20 });
  const cache = arena.createCache('c', { size: 4096 });
  expect([cache.sheafCapacity, cache.objsPerSlab]).toEqual([C, 8]);
  return { arena, cache, pcs: pcsOf(arena.geometry, 0, cache.desc.slot) };
};

describe.each(POLICIES)('an empty main, policy %s', (policy) => {
  it('1: is exchanged for a spare with objects, which nothing counts', () => {
    const { arena, cache } = setup(policy);
    const held = allocMany(cache, 2 * C);
    freeMany(cache, held);
    allocMany(cache, C);
    expect(sheafSizes(arena, cache)).toEqual({ main: 0, spare: C });
    expect(moved(cache, () => cache.alloc())).toEqual({ ALLOC_FASTPATH: 1 });
    expect(sheafSizes(arena, cache)).toEqual({ main: C - 1, spare: 0 });
    expectSound(arena);
  });

  it('2: goes to the barn for a full sheaf, the spare stays', () => {
    const { arena, cache } = setup(policy);
    freeMany(cache, allocMany(cache, 4 * C));
    allocMany(cache, 2 * C);
    expect(sheafSizes(arena, cache)).toEqual({ main: 0, spare: 0 });
    expect(barnSizes(arena, cache)).toEqual({ full: [C, C], empty: 0 });
    const { main, spare } = sheavesOf(arena, cache);
    expect(moved(cache, () => cache.alloc())).toEqual({ BARN_GET: 1, ALLOC_FASTPATH: 1 });
    expect(sheavesOf(arena, cache).spare).toEqual(spare);
    expect(barnSizes(arena, cache)).toEqual({ full: [C], empty: 1 });
    expect(sheavesOf(arena, cache).main.at).not.toBe(main.at);
    expectSound(arena);
  });

  it('3: the barn has none: the empty spare is refilled, and the old main becomes the spare', () => {
    const { arena, cache } = setup(policy);
    allocMany(cache, C);
    expect(sheafSizes(arena, cache)).toEqual({ main: 0, spare: 0 });
    const { main, spare } = sheavesOf(arena, cache);
    expect(moved(cache, () => cache.alloc())).toEqual({
      BARN_GET_FAIL: 1,
      SHEAF_REFILL: C,
      ALLOC_FASTPATH: 1,
    });
    expect(sheavesOf(arena, cache)).toMatchObject({
      main: { at: spare!.at, size: C - 1 },
      spare: { at: main.at },
    });
    expectSound(arena);
  });

  it('4: without a spare, a new sheaf is allocated', () => {
    const { arena, cache } = setup(policy);
    expect(moved(cache, () => cache.alloc())).toEqual({
      BARN_GET_FAIL: 1,
      SHEAF_ALLOC: 1,
      ALLOC_SLAB: 1,
      SHEAF_REFILL: C,
      ALLOC_FASTPATH: 1,
    });
    expect(sheafSizes(arena, cache)).toEqual({ main: C - 1, spare: 0 });
    expectSound(arena);
  });

  it('5: no memory for a sheaf: the slow path', () => {
    const { arena, cache } = setup(policy);
    inside(arena).allocEmptySheaf = () => 0 as never;
    expect(moved(cache, () => expect(cache.alloc()).not.toBe(0))).toEqual({
      BARN_GET_FAIL: 1,
      ALLOC_SLOWPATH: 1,
      ALLOC_SLAB: 1,
    });
    expect(sheafSizes(arena, cache)).toEqual({ main: 0, spare: null });
    expectSound(arena);
  });

  it('6: a refill that comes short gives back what it got, and the slow path serves', () => {
    const { arena, cache } = setup(policy);
    const [slab] = fullSlabs(arena, cache, 1);
    slabFree(arena, cache, slab!.slice(0, 3));
    arena.failPageAlloc(1);
    let p = 0;
    expect(moved(cache, () => (p = cache.alloc()))).toEqual({
      BARN_GET_FAIL: 1,
      SHEAF_ALLOC: 1,
      SHEAF_REFILL: 3,
      SHEAF_FLUSH: 3,
      FREE_ADD_PARTIAL: 1,
      SHEAF_FREE: 1,
      ALLOC_SLOWPATH: 1,
    });
    expect(slab!.slice(0, 3)).toContain(p);
    arena.failPageAlloc(0);
    expect(sheafSizes(arena, cache)).toEqual({ main: 0, spare: null });
    expect(partialList(arena, cache)).toMatchObject([{ inuse: 6 }]);
    expectSound(arena);
  });

  it('7: no memory at all: 0, with nothing lost', () => {
    const { arena, cache } = setup(policy);
    arena.failPageAlloc(1);
    expect(moved(cache, () => expect(cache.alloc()).toBe(0))).toEqual({
      BARN_GET_FAIL: 1,
      SHEAF_ALLOC: 1,
      SHEAF_FREE: 1,
      ALLOC_SLOWPATH: 1,
    });
    arena.failPageAlloc(0);
    expect(sheafSizes(arena, cache)).toEqual({ main: 0, spare: null });
    expectSound(arena);
  });

  it('8: whoever wants our lock meanwhile gets it: the filled sheaf goes to the barn', () => {
    const { arena, cache, pcs } = setup(policy);
    slabAlloc(arena, cache); // a partial slab, so that the refill takes list_lock
    cutIn(arena, LockClass.ListLock, 'after unlock', 1, () => {
      arena.i32[pcs + Pcs.request] = 0x99;
    });
    expect(moved(cache, () => expect(cache.alloc()).not.toBe(0))).toEqual({
      BARN_GET_FAIL: 1,
      SHEAF_ALLOC: 1,
      SHEAF_REFILL: C,
      BARN_PUT: 1,
      ALLOC_SLOWPATH: 1,
    });
    arena.i32[pcs + Pcs.request] = 0;
    expect(sheafSizes(arena, cache)).toEqual({ main: 0, spare: null });
    expect(barnSizes(arena, cache)).toEqual({ full: [C], empty: 0 });
    expectSound(arena);
  });
});

/**
 * While a sheaf is filled from new slabs the lock is free: here the same CPU uses its sheaves in between, as an
 * interrupt may.
 */
describe('a filled sheaf that comes home', () => {
  const scene = (between: (cache: KmemCache, held: number[]) => void) => {
    const { arena, cache } = setup('op');
    const held = allocMany(cache, 5 * C);
    held.push(...slabAlloc(arena, cache)); // a partial slab with too few objects, so that the refill needs a new one
    expect(partialList(arena, cache)).toMatchObject([{ inuse: 8 - C + 1 }]);
    expect(sheafSizes(arena, cache)).toEqual({ main: 0, spare: 0 });
    let fired = 0;
    cutIn(arena, LockClass.Zone, 'before lock', 1, () => {
      fired++;
      between(cache, held);
    });
    const moves = moved(cache, () => held.push(cache.alloc()));
    expect(fired).toBe(1);
    expectSound(arena);
    return { arena, cache, moves };
  };

  it('(i) becomes main when main is empty, which becomes the spare', () => {
    const { arena, cache, moves } = scene(() => {});
    expect(moves).toEqual({
      BARN_GET_FAIL: 1,
      SHEAF_REFILL: C,
      ALLOC_FASTPATH: 1,
      ALLOC_SLAB: expect.any(Number),
    });
    expect(sheafSizes(arena, cache)).toEqual({ main: C - 1, spare: 0 });
  });

  it('(ii) becomes the spare when main has objects and there is none', () => {
    const { arena, cache } = scene((cache, held) => freeMany(cache, held.splice(0, 2)));
    expect(sheafSizes(arena, cache)).toEqual({ main: 1, spare: C });
    expect(barnSizes(arena, cache)).toEqual({ full: [], empty: 0 });
  });

  it('(iii) becomes the spare for an empty one, which goes to the barn', () => {
    const { arena, cache } = scene((cache, held) => {
      // A full main and a new one make the old the spare; emptied and swapped, an empty spare remains.
      freeMany(cache, held.splice(0, C + 1));
      held.push(...allocMany(cache, C));
    });
    expect(sheafSizes(arena, cache)).toEqual({ main: 0, spare: C });
    expect(barnSizes(arena, cache)).toEqual({ full: [], empty: 1 });
  });

  it('(iv) goes to the barn when main and spare have objects', () => {
    const { arena, cache, moves } = scene((cache, held) => freeMany(cache, held.splice(0, C + 2)));
    expect(sheafSizes(arena, cache)).toEqual({ main: 1, spare: C });
    expect(barnSizes(arena, cache)).toEqual({ full: [C], empty: 0 });
    expect(moves).toMatchObject({ BARN_PUT: 1 });
  });
});

describe('a refill from the slabs', () => {
  /** Partial slabs with so many free objects, in this order on the list. */
  const withFree = (arena: Arena, cache: KmemCache, free: number[]): number[][] => {
    const slabs = fullSlabs(arena, cache, free.length);
    for (const [i, slab] of slabs.entries()) slabFree(arena, cache, slab.slice(0, free[i]));
    return slabs;
  };
  const frees = (arena: Arena, cache: KmemCache) =>
    partialList(arena, cache).map(({ objects, inuse }) => objects - inuse);

  it('takes slabs in list order until it has enough, and puts the rest of the last one at the tail', () => {
    const { arena, cache } = setup();
    const slabs = withFree(arena, cache, [3, 5, 2]);
    const before = listLocks(arena);
    const got = refill(arena, cache, 6, 6);
    expect(got.slice(0, 3).every((p) => slabs[0]!.includes(p))).toBe(true);
    expect(got.slice(3).every((p) => slabs[1]!.includes(p))).toBe(true);
    expect(got).toHaveLength(6);
    expect(frees(arena, cache)).toEqual([2, 2]);
    expect(partialList(arena, cache)[1]!.address).toBe(slabs[1]![0]);
    expect(listLocks(arena), 'one to take, one to return').toBe(before + 2);
    expectSound(arena);
  });

  it('stops before a slab that would exceed the maximum once it has the minimum', () => {
    const { arena, cache } = setup();
    withFree(arena, cache, [3, 5, 2]);
    expect(refill(arena, cache, 3, 7)).toHaveLength(3);
    expect(frees(arena, cache)).toEqual([5, 2]);
    expect(refill(arena, cache, 4, 7)).toHaveLength(7);
    expect(frees(arena, cache)).toEqual([]);
    expectSound(arena);
  });

  it('makes new slabs for the rest, the leftover of the last at the head', () => {
    const { arena, cache } = setup();
    withFree(arena, cache, [3]);
    expect(moved(cache, () => expect(refill(arena, cache, 13, 13)).toHaveLength(13))).toEqual({
      ALLOC_SLAB: 2,
    });
    expect(frees(arena, cache)).toEqual([6]);
    expect(nodeCounts(arena, cache)).toEqual({ partial: 1, slabs: 3, objects: 24 });
    expectSound(arena);
  });

  it('puts slabs back that it did not need because frees filled the first', () => {
    const { arena, cache } = setup();
    const slabs = withFree(arena, cache, [3, 2, 1]);
    const other = secondCpu(arena);
    const theirs = other.openCache('c');
    // The batch is off the list and the lock given up when another CPU frees into its first slab.
    cutIn(arena, LockClass.ListLock, 'after unlock', 1, () => slabFree(other, theirs, slabs[0]!.slice(3, 6)));
    const got = refill(arena, cache, 5, 5);
    expect(got.every((p) => slabs[0]!.includes(p))).toBe(true);
    expect(got).toHaveLength(5);
    expect(frees(arena, cache)).toEqual([1, 1, 2]);
    expectSound(arena);
  });

  it('returns the rest of a freelist object by object when another CPU freed into the slab meanwhile', () => {
    const { arena, cache } = setup();
    const slabs = withFree(arena, cache, [6]);
    const other = secondCpu(arena);
    const theirs = other.openCache('c');
    // Lock 1 takes the slab, lock 2 would return the rest: by then the slab is on the list for another's object.
    cutIn(arena, LockClass.ListLock, 'before lock', 2, () => slabFree(other, theirs, [slabs[0]![7]!]));
    const got = refill(arena, cache, 2, 2);
    expect(got).toHaveLength(2);
    expect(frees(arena, cache)).toEqual([5]);
    expect(theirs.stats()).toMatchObject({ FREE_ADD_PARTIAL: expect.any(Number) });
    expectSound(arena);
  });

  it('is not fooled by a slab word that came back to the same value', () => {
    const { arena, cache } = setup();
    const slabs = withFree(arena, cache, [6]);
    const other = secondCpu(arena);
    const theirs = other.openCache('c');
    cutIn(arena, LockClass.ListLock, 'before lock', 2, () => {
      slabFree(other, theirs, [slabs[0]![7]!]);
      expect(slabAlloc(other, theirs)).toEqual([slabs[0]![7]]);
    });
    expect(refill(arena, cache, 2, 2)).toHaveLength(2);
    expect(frees(arena, cache)).toEqual([4]);
    expectSound(arena);
  });
});

describe('a refill with several nodes', () => {
  const setupNodes = () => {
    const arena = boot({ cpus: 2, nodes: 2, bytes: 16 << 20, lockStat: 'contended' });
    const cache = arena.createCache('c', { size: 4096 });
    const nodeOf = (p: number) => pagesOf(arena).nodeOf(virtToPage(arena.geometry, p));
    /** More partial slabs on node 1 than it wants to keep. */
    const surplus = (slabs: number) => {
      cache.minPartial = 2;
      const held = Array.from({ length: slabs }, () =>
        slabAlloc(arena, cache, 8, GFP_KERNEL | __GFP_THISNODE, 1),
      );
      for (const slab of held) slabFree(arena, cache, slab.slice(0, 2));
      expect(nodeCounts(arena, cache, 1).partial).toBe(slabs);
    };
    return { arena, cache, nodeOf, surplus };
  };

  it('takes from another node what that has above min_partial', () => {
    const { arena, cache, nodeOf, surplus } = setupNodes();
    surplus(3);
    const got = refill(arena, cache, 2, 2);
    expect(got.map(nodeOf)).toEqual([1, 1]);
    expect(nodeCounts(arena, cache, 1).partial).toBe(2);
    expect(refill(arena, cache, 2, 2).map(nodeOf)).toEqual([0, 0]);
    expectSound(arena);
  });

  it('does not with __GFP_THISNODE, or when the defrag ratio is 0', () => {
    const { arena, cache, nodeOf, surplus } = setupNodes();
    surplus(4);
    expect(refill(arena, cache, 2, 2, GFP_KERNEL | __GFP_THISNODE).map(nodeOf)).toEqual([0, 0]);
    const own = partialList(arena, cache, 0)[0]!;
    refill(arena, cache, own.objects - own.inuse, own.objects - own.inuse);
    arena.i32[cache.desc.ptr + KmemCacheStruct.defragRatio] = 0;
    expect(refill(arena, cache, 2, 2).map(nodeOf)).toEqual([0, 0]);
    expect(nodeCounts(arena, cache, 1).partial).toBe(4);
    expectSound(arena);
  });

  it('does not stand in line for the other node: a trylock, and a new slab if that fails', () => {
    const { arena, cache, nodeOf, surplus } = setupNodes();
    surplus(4);
    const n = arena.i32[cache.desc.ptr + KmemCacheStruct.SIZEOF + 1]!;
    arena.i32[n] = 0x77;
    const failed = () => arena.lockStat()[LockClass.ListLock]!.tryFailed;
    const before = failed();
    expect(refill(arena, cache, 2, 2).map(nodeOf)).toEqual([0, 0]);
    expect(failed()).toBe(before + 1);
    arena.i32[n] = 0;
    expectSound(arena);
  });
});
