/** Frees to a slab, row by row of the table in the kernel's __slab_free, and the order of the partial list. */

import { describe, expect, it } from 'vitest';
import type { KmemCache } from '#src/cache/index.js';
import type { Arena } from '#src/index.js';
import { Page, PG_PARTIAL, virtToPage } from '#src/page/index.js';
import { addPartialTail, nodeOf, removePartial } from '#src/slab/index.js';
import { LockClass } from '#src/sync/index.js';
import {
  boot,
  expectSound,
  inside,
  moved,
  nodeCounts,
  partialList,
  secondCpu,
  slabAt,
} from '../cache/support/arena.js';
import { cutIn, fullSlabs, listLocks, mark, slabAlloc, slabFree, slabFreeMany } from './support.js';

const O = 21;

function setup(): { arena: Arena; cache: KmemCache } {
  const arena = boot({ lockStat: 'contended' });
  const cache = arena.createCache('c', { size: 192 });
  expect([cache.objsPerSlab, cache.minPartial]).toEqual([O, 5]);
  return { arena, cache };
}

const addresses = (arena: Arena, cache: KmemCache) => partialList(arena, cache).map(({ address }) => address);

describe('a free to a slab', () => {
  it('that stays partial takes no lock (row 1)', () => {
    const { arena, cache } = setup();
    const [slab] = fullSlabs(arena, cache, 1);
    slabFree(arena, cache, slab!.slice(0, 1));
    const locks = listLocks(arena);
    expect(moved(cache, () => slabFree(arena, cache, slab!.slice(1, 20)))).toEqual({});
    expect(listLocks(arena)).toBe(locks);
    expect(partialList(arena, cache)).toMatchObject([{ inuse: 1, freelist: 20 }]);
    expectSound(arena);
  });

  it('that a refiller holds leaves it to the refiller, even when it becomes empty (row 2)', () => {
    const { arena, cache } = setup();
    cache.minPartial = 0;
    const [slab] = fullSlabs(arena, cache, 1);
    slabFree(arena, cache, slab!.slice(0, 1));
    const [{ page }] = partialList(arena, cache) as [ReturnType<typeof slabAt>];
    const n = nodeOf(arena.i32, cache.desc, 0);
    removePartial(arena.i32, n, page);
    const locks = listLocks(arena);
    expect(moved(cache, () => slabFree(arena, cache, slab!.slice(1)))).toEqual({});
    expect(listLocks(arena), 'only the last free looks').toBe(locks + 1);
    expect(nodeCounts(arena, cache)).toEqual({ partial: 0, slabs: 1, objects: O });
    expect(slabAt(arena, page)).toMatchObject({ inuse: 0, freelist: 21 });
    addPartialTail(arena.i32, n, page);
    expectSound(arena);
  });

  it('that becomes empty is given back when the node has enough (row 3)', () => {
    const { arena, cache } = setup();
    cache.minPartial = 2;
    const slabs = fullSlabs(arena, cache, 2);
    for (const slab of slabs) slabFree(arena, cache, slab.slice(0, 1));
    const used = arena.meminfo().usedPages;
    expect(moved(cache, () => slabFree(arena, cache, slabs[0]!.slice(1)))).toEqual({
      FREE_REMOVE_PARTIAL: 1,
      FREE_SLAB: 1,
    });
    expect(addresses(arena, cache)).toEqual([slabs[1]![0]]);
    expect(nodeCounts(arena, cache)).toEqual({ partial: 1, slabs: 1, objects: O });
    expect(arena.meminfo().usedPages).toBe(used - 1);
    expectSound(arena);
  });

  it('that becomes empty stays when the node has too few (row 4)', () => {
    const { arena, cache } = setup();
    cache.minPartial = 2;
    const [slab] = fullSlabs(arena, cache, 1);
    expect(moved(cache, () => slabFree(arena, cache, slab!))).toEqual({ FREE_ADD_PARTIAL: 1 });
    expect(partialList(arena, cache)).toMatchObject([{ inuse: 0 }]);
    expect(nodeCounts(arena, cache)).toEqual({ partial: 1, slabs: 1, objects: O });
    expectSound(arena);
  });

  it('of a single object: gone at once when the node has enough (row 5), else kept at the tail (row 6)', () => {
    const arena = boot({ lockStat: 'contended' });
    const cache = arena.createCache('big', { size: 20_000 });
    expect(cache.objsPerSlab).toBe(1);
    cache.minPartial = 1;
    const slabs = slabAlloc(arena, cache, 3);
    expect(moved(cache, () => slabFree(arena, cache, [slabs[0]!]))).toEqual({ FREE_ADD_PARTIAL: 1 });
    expect(moved(cache, () => slabFree(arena, cache, [slabs[1]!]))).toEqual({ FREE_SLAB: 1 });
    expect(addresses(arena, cache)).toEqual([slabs[0]]);
    expect(nodeCounts(arena, cache)).toEqual({ partial: 1, slabs: 2, objects: 2 });
    expectSound(arena);
  });

  it('that was full puts it at the tail of the list (row 6)', () => {
    const { arena, cache } = setup();
    const slabs = fullSlabs(arena, cache, 3);
    expect(addresses(arena, cache)).toEqual([]);
    for (const i of [1, 0, 2]) {
      expect(moved(cache, () => slabFree(arena, cache, [slabs[i]![4]!]))).toEqual({ FREE_ADD_PARTIAL: 1 });
    }
    expect(addresses(arena, cache)).toEqual([1, 0, 2].map((i) => slabs[i]![0]));
    expectSound(arena);
  });

  it('of all its objects at once: full, then nothing', () => {
    const { arena, cache } = setup();
    cache.minPartial = 0;
    const [slab] = fullSlabs(arena, cache, 1);
    const locks = listLocks(arena);
    expect(moved(cache, () => slabFreeMany(arena, cache, slab!))).toEqual({ FREE_SLAB: 1 });
    expect(listLocks(arena)).toBe(locks + 1);
    expect(nodeCounts(arena, cache)).toEqual({ partial: 0, slabs: 0, objects: 0 });
    expectSound(arena);
  });
});

describe('a free that loses the race for the slab word', () => {
  /** Runs `between` once, after a free has read the slab word and before its compare-exchange. */
  const beforeExchange = (arena: Arena, between: () => void): void => {
    const slabs = inside(arena).slabs as unknown as { firstFree(...args: unknown[]): number };
    const original = slabs.firstFree;
    slabs.firstFree = (...args) => {
      slabs.firstFree = original;
      between();
      return original.apply(slabs, args);
    };
  };

  it('looks again, counts it, and ends as the new state wants', () => {
    const { arena, cache } = setup();
    const other = secondCpu(arena);
    const theirs = other.openCache('c');
    const [slab] = fullSlabs(arena, cache, 1);
    slabFree(arena, cache, [slab![0]!]);
    beforeExchange(arena, () => slabFree(other, theirs, [slab![2]!]));
    expect(moved(cache, () => slabFree(arena, cache, [slab![1]!]))).toEqual({ CMPXCHG_DOUBLE_FAIL: 1 });
    expect(partialList(arena, cache)).toMatchObject([{ inuse: 18, freelist: 2 }]);
    expectSound(arena);
  });

  it('that saw a full slab looks afresh once it has the lock', () => {
    const { arena, cache } = setup();
    const other = secondCpu(arena);
    const theirs = other.openCache('c');
    const [slab] = fullSlabs(arena, cache, 1);
    // Before we have the lock, another CPU frees into the slab and lists it: FREE_ADD_PARTIAL is its, not ours.
    cutIn(arena, LockClass.ListLock, 'before lock', 1, () => slabFree(other, theirs, [slab![0]!]));
    expect(moved(cache, () => slabFree(arena, cache, [slab![1]!]))).toEqual({ FREE_ADD_PARTIAL: 1 });
    expect(partialList(arena, cache)).toMatchObject([{ inuse: 19, freelist: 2 }]);
    expectSound(arena);
  });

  it('two last frees of one slab: one of them gives it back, and only one', () => {
    const { arena, cache } = setup();
    const other = secondCpu(arena);
    const theirs = other.openCache('c');
    cache.minPartial = 1;
    const [slab] = fullSlabs(arena, cache, 1);
    slabFree(arena, cache, slab!.slice(0, 19));
    // Two objects are left: we free the last but one as we believe, and another CPU comes first.
    const callOff = cutIn(arena, LockClass.ListLock, 'before lock', 1, () => {
      expect.unreachable('a free that leaves the slab partial needs no lock');
    });
    slabFree(arena, cache, [slab![19]!]);
    callOff();
    cutIn(arena, LockClass.ListLock, 'before lock', 1, () => {
      // Our last free waits for the lock; an allocation takes the slab's objects meanwhile.
      const taken = slabAlloc(other, theirs, 2);
      expect(taken.every((p) => slab!.includes(p))).toBe(true);
    });
    expect(moved(cache, () => slabFree(arena, cache, [slab![20]!]))).toEqual({ ALLOC_SLOWPATH: 2 });
    expect(partialList(arena, cache)).toMatchObject([{ inuse: 2 }]);
    expectSound(arena);
  });
});

describe('the partial list', () => {
  it('gets new slabs at the head', () => {
    const { arena, cache } = setup();
    const old = fullSlabs(arena, cache, 1)[0]!;
    slabFree(arena, cache, [old[0]!]);
    // Every slab on the list is taken out by hand, so that the next allocation makes a new one beside it.
    const n = nodeOf(arena.i32, cache.desc, 0);
    const page = virtToPage(arena.geometry, old[0]!);
    removePartial(arena.i32, n, page);
    const fresh = slabAlloc(arena, cache)[0]!;
    addPartialTail(arena.i32, n, page);
    expect(addresses(arena, cache)).toEqual([fresh, old[0]]);
    const third = inside(arena).slabs.newSlab(cache.desc, 0, -1);
    const out = new Int32Array(1);
    inside(arena).slabs.allocFromNewSlab(cache.desc, third, 1, out, 0);
    mark(arena, cache, [out[0]!], true);
    expect(addresses(arena, cache)).toEqual([out[0], fresh, old[0]]);
    expectSound(arena);
  });

  it('links both ways, whichever end or middle is taken out', () => {
    const { arena, cache } = setup();
    const slabs = fullSlabs(arena, cache, 5);
    for (const slab of slabs) slabFree(arena, cache, [slab[0]!]);
    const n = nodeOf(arena.i32, cache.desc, 0);
    const pages = slabs.map(([p]) => virtToPage(arena.geometry, p!));
    for (const i of [2, 0, 4]) {
      removePartial(arena.i32, n, pages[i]!);
      expect(arena.i32[pages[i]! + Page.flags]! & PG_PARTIAL).toBe(0);
    }
    expect(partialList(arena, cache).map(({ page }) => page)).toEqual([pages[1], pages[3]]);
    for (const i of [4, 0, 2]) addPartialTail(arena.i32, n, pages[i]!);
    expect(partialList(arena, cache).map(({ page }) => page)).toEqual([1, 3, 4, 0, 2].map((i) => pages[i]));
    expectSound(arena);
  });

  it('keeps empty slabs while it is shorter than min_partial, the slab itself counted', () => {
    const { arena, cache } = setup();
    for (const minPartial of [5, 3, 0]) {
      cache.minPartial = minPartial;
      const slabs = fullSlabs(arena, cache, 8);
      slabFree(arena, cache, slabs.flat());
      expect(partialList(arena, cache).filter(({ inuse }) => inuse === 0)).toHaveLength(
        Math.max(0, minPartial - 1),
      );
      inside(arena).slabs.shrinkNode(cache.desc, 0);
    }
    expect(() => {
      cache.minPartial = -1;
    }).toThrow('minPartial is -1; it must be an integer from 0');
    expectSound(arena);
  });

  it('has a full slab nowhere until its first free', () => {
    const { arena, cache } = setup();
    const [slab] = fullSlabs(arena, cache, 1);
    const page = virtToPage(arena.geometry, slab![0]!);
    expect(arena.i32[page + Page.flags]! & PG_PARTIAL).toBe(0);
    expect(nodeCounts(arena, cache)).toEqual({ partial: 0, slabs: 1, objects: O });
    slabFree(arena, cache, [slab![20]!]);
    expect(arena.i32[page + Page.flags]! & PG_PARTIAL).toBe(PG_PARTIAL);
    expect(nodeCounts(arena, cache)).toEqual({ partial: 1, slabs: 1, objects: O });
  });
});
