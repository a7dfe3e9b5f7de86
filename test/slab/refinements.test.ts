/** The three refinements of newer kernels, each on and off: what is handed out, where slabs end up, what is counted. */

import { describe, expect, it } from 'vitest';
import type { KmemCache } from '#src/cache/index.js';
import type { Arena, ArenaOptions } from '#src/index.js';
import { PAGE_SIZE } from '#src/struct/index.js';
import { LockClass } from '#src/sync/index.js';
import {
  boot,
  expectSound,
  inside,
  moved,
  nodeCounts,
  partialList,
  secondCpu,
} from '../cache/support/arena.js';
import { cutIn, fullSlabs, listLocks, refill, slabAlloc, slabFree } from './support.js';

type Refinements = NonNullable<ArenaOptions['refinements']>;

const C = 4;
const O = 8;

function setup(refinements: Refinements): { arena: Arena; cache: KmemCache } {
  const arena = boot({ refinements, lockStat: 'contended', bytes: 16 << 20 });
  const cache = arena.createCache('c', { size: 4096 });
  expect([cache.sheafCapacity, cache.objsPerSlab, cache.minPartial]).toEqual([C, O, 6]);
  return { arena, cache };
}

/** Partial slabs with so many free objects, in this order on the list. */
function withFree(arena: Arena, cache: KmemCache, free: number[]): number[][] {
  const slabs = fullSlabs(arena, cache, free.length);
  for (const [i, slab] of slabs.entries()) slabFree(arena, cache, slab.slice(0, free[i]));
  return slabs;
}

/** The partial list as indices into `slabs`, with free objects. */
function listed(arena: Arena, cache: KmemCache, slabs: number[][]): string[] {
  return partialList(arena, cache).map(({ address, objects, inuse }) => {
    return `${slabs.findIndex((slab) => slab[0] === address)}: ${objects - inuse}`;
  });
}

/** From which of `slabs` each object is. */
const sources = (objects: number[], slabs: number[][]) =>
  objects.map((p) => slabs.findIndex((slab) => slab.includes(p)));

describe.each([true, false])('lazyFreelist %s', (lazyFreelist) => {
  const SIZE = 192;
  const PER_SLAB = 21;
  const STALE = 0x5a5a5a5a;

  /** An arena whose next slab lies in a page full of known bytes. */
  const onStalePage = () => {
    const arena = boot({ refinements: { lazyFreelist } });
    const cache = arena.createCache('c', { size: SIZE });
    const page = arena.allocPages(0);
    arena.u8.fill(0x5a, page, page + PAGE_SIZE);
    arena.freePages(page, 0);
    const linkOf = (p: number) => arena.i32[(p + cache.desc.offset) >> 2]!;
    return { arena, cache, page, linkOf };
  };

  it('links what is left, and before that only as an older kernel does', () => {
    const { arena, cache, page, linkOf } = onStalePage();
    const got = refill(arena, cache, 5, 5);
    const objects = Array.from({ length: PER_SLAB }, (_, i) => page + i * SIZE);
    expect(got).toEqual(objects.slice(0, 5));
    const next = (i: number) => (i + 1 < PER_SLAB ? objects[i + 1]! : 0);
    for (const [i, p] of objects.entries()) {
      expect(linkOf(p), `link of object ${i}`).toBe(lazyFreelist && i < 5 ? STALE : next(i));
    }
    expect(partialList(arena, cache)).toMatchObject([{ inuse: 5, freelist: 6 }]);
    expectSound(arena);
  });

  it('links nothing of a slab that is handed out whole, unless it always links', () => {
    const { arena, cache, page, linkOf } = onStalePage();
    expect(refill(arena, cache, PER_SLAB, PER_SLAB)).toHaveLength(PER_SLAB);
    expect(linkOf(page)).toBe(lazyFreelist ? STALE : page + SIZE);
    expect(partialList(arena, cache)).toEqual([]);
    expect(nodeCounts(arena, cache)).toEqual({ partial: 0, slabs: 1, objects: PER_SLAB });
    expectSound(arena);
  });

  it('serves the same objects in the same order, and counts the same', () => {
    const { arena, cache } = setup({ lazyFreelist });
    expect(moved(cache, () => slabAlloc(arena, cache, 2))).toEqual({ ALLOC_SLOWPATH: 2, ALLOC_SLAB: 1 });
    const before = listLocks(arena);
    let got: number[] = [];
    expect(moved(cache, () => (got = refill(arena, cache, 2 * O, 2 * O)))).toEqual({ ALLOC_SLAB: 2 });
    const [base] = got;
    expect(got.slice(0, 6)).toEqual(Array.from({ length: 6 }, (_, i) => base! + i * 4096));
    expect(nodeCounts(arena, cache)).toEqual({ partial: 1, slabs: 3, objects: 3 * O });
    expect(listLocks(arena), 'the partial slab, and each new one').toBe(before + 3);
    expectSound(arena);
  });

  it('falls back to the smaller order as a whole', () => {
    const arena = boot({ refinements: { lazyFreelist } });
    const cache = arena.createCache('c', { size: 1024 });
    arena.failPageAlloc(2);
    arena.allocPages(0);
    const [p] = slabAlloc(arena, cache);
    arena.failPageAlloc(0);
    expect(partialList(arena, cache)).toMatchObject([{ address: p, objects: 4, inuse: 1, freelist: 2 }]);
    expect(slabAlloc(arena, cache, 3)).toEqual([1, 2, 3].map((i) => p! + i * 1024));
    expectSound(arena);
  });
});

describe('the unused rest of a freelist', () => {
  it('with returnFreelist goes back by one exchange, which counts nothing', () => {
    const { arena, cache } = setup({});
    const slabs = withFree(arena, cache, [3, 2]);
    const before = listLocks(arena);
    let got: number[] = [];
    expect(moved(cache, () => (got = refill(arena, cache, 2, 2)))).toEqual({});
    expect(sources(got, slabs)).toEqual([0, 0]);
    expect(listed(arena, cache, slabs)).toEqual(['1: 2', '0: 1']);
    expect(listLocks(arena)).toBe(before + 2);
    expectSound(arena);
  });

  it('without it is freed as a chain: a full slab becomes partial, at the tail', () => {
    const { arena, cache } = setup({ returnFreelist: false });
    const slabs = withFree(arena, cache, [7, 2]);
    const order = slabs[0]!.slice(0, 7).reverse(); // freed last, handed out first
    const before = listLocks(arena);
    let got: number[] = [];
    expect(moved(cache, () => (got = refill(arena, cache, 2, 2)))).toEqual({ FREE_ADD_PARTIAL: 1 });
    expect(got).toEqual(order.slice(0, 2));
    expect(listed(arena, cache, slabs)).toEqual(['1: 2', '0: 5']);
    expect(listLocks(arena)).toBe(before + 2);
    expectSound(arena);
    expect(slabAlloc(arena, cache, 2).every((p) => slabs[1]!.includes(p))).toBe(true);
    expect(slabAlloc(arena, cache, 5), 'the chain is as it was').toEqual(order.slice(2));
    expectSound(arena);
  });

  it('without it joins what another CPU freed meanwhile, and the slab stays where that put it', () => {
    const { arena, cache } = setup({ returnFreelist: false });
    const slabs = withFree(arena, cache, [6]);
    const other = secondCpu(arena);
    const theirs = other.openCache('c');
    // The push without the lock was refused, the slab being full; by the time we have the lock it is not.
    cutIn(arena, LockClass.ListLock, 'before lock', 2, () => slabFree(other, theirs, [slabs[0]![7]!]));
    expect(moved(cache, () => expect(refill(arena, cache, 2, 2)).toHaveLength(2))).toEqual({
      FREE_ADD_PARTIAL: 1, // theirs
    });
    expect(listed(arena, cache, slabs)).toEqual(['0: 5']);
    expectSound(arena);
  });

  it('goes to the head with returnFreelist but without batchDetach, with the unused slabs', () => {
    const { arena, cache } = setup({ batchDetach: false });
    const slabs = withFree(arena, cache, [3, 2, 1]);
    // Reversed: the rest is one of slab 0, which was detached first.
    expect(sources(refill(arena, cache, 3, 3), slabs)).toEqual([0, 0, 0]);
    expect(listed(arena, cache, slabs)).toEqual(['1: 2', '2: 1']);
    const got = refill(arena, cache, 2, 2);
    expect(sources(got, slabs)).toEqual([1, 1]);
    slabFree(arena, cache, got);
    expect(listed(arena, cache, slabs)).toEqual(['2: 1', '1: 2']);
    expect(sources(refill(arena, cache, 2, 2), slabs), 'slab 1 was detached last').toEqual([1, 1]);
    expect(listed(arena, cache, slabs)).toEqual(['2: 1']);
    expectSound(arena);
  });
});

describe('partial slabs for a refill', () => {
  it('with batchDetach are used in list order; the last keeps the rest and goes to the tail', () => {
    const { arena, cache } = setup({});
    const slabs = withFree(arena, cache, [1, 2, 6, 3]);
    expect(sources(refill(arena, cache, 4, 4), slabs)).toEqual([0, 1, 1, 2]);
    expect(listed(arena, cache, slabs)).toEqual(['3: 3', '2: 5']);
    expectSound(arena);
  });

  it('without it are used in reverse; the first keeps the rest', () => {
    for (const returnFreelist of [true, false]) {
      const { arena, cache } = setup({ batchDetach: false, returnFreelist });
      const slabs = withFree(arena, cache, [3, 2, 6, 3]);
      const got = refill(arena, cache, 6, 6);
      // 3 + 2 are not enough, with slab 2 there are 11: it was detached last and alone has six.
      expect(sources(got, slabs)).toEqual([2, 2, 2, 2, 2, 2]);
      // Not needed: 1, then 0, one by one to the head.
      expect(listed(arena, cache, slabs)).toEqual(['0: 3', '1: 2', '3: 3']);
      expect(sources(refill(arena, cache, 4, 4), slabs)).toEqual([1, 1, 0, 0]);
      expect(listed(arena, cache, slabs)).toEqual(returnFreelist ? ['0: 1', '3: 3'] : ['3: 3', '0: 1']);
      expectSound(arena);
    }
  });

  it('are cut off the list whole, in part, or not at all', () => {
    for (const batchDetach of [true, false]) {
      const { arena, cache } = setup({ batchDetach });
      const slabs = withFree(arena, cache, [2, 2, 2]);
      expect(refill(arena, cache, 0, 1), 'the first has more than the maximum').toEqual([]);
      expect(listed(arena, cache, slabs)).toEqual(['0: 2', '1: 2', '2: 2']);
      expect(sources(refill(arena, cache, 2, 2), slabs)).toEqual([0, 0]);
      expect(listed(arena, cache, slabs)).toEqual(['1: 2', '2: 2']);
      expect(nodeCounts(arena, cache)).toEqual({ partial: 2, slabs: 3, objects: 3 * O });
      expectSound(arena);
      expect(refill(arena, cache, 4, 4)).toHaveLength(4);
      expect(nodeCounts(arena, cache)).toEqual({ partial: 0, slabs: 3, objects: 3 * O });
      expectSound(arena);
    }
  });

  /** The first slab to be used gets so many objects that no other is needed; `empty` becomes empty meanwhile. */
  const withUnused = (batchDetach: boolean, minPartial: number) => {
    const { arena, cache } = setup({ batchDetach });
    const order = batchDetach ? [1, 2, 6, 1, 1] : [5, 2, 1, 1, 1]; // three of them make 8
    const slabs = withFree(arena, cache, order);
    cache.minPartial = minPartial;
    const other = secondCpu(arena);
    const theirs = other.openCache('c');
    const [first, empty] = batchDetach ? [0, 2] : [2, 0];
    cutIn(arena, LockClass.ListLock, 'after unlock', 1, () => {
      slabFree(other, theirs, slabs[first]!.slice(order[first], 8));
      slabFree(other, theirs, slabs[empty]!.slice(order[empty], 8));
    });
    const used = arena.meminfo().usedPages;
    const before = listLocks(arena);
    let got: number[] = [];
    const moves = moved(cache, () => (got = refill(arena, cache, 8, 8)));
    expect(sources(got, slabs)).toEqual(new Array(8).fill(first));
    return {
      list: listed(arena, cache, slabs),
      moves,
      locks: listLocks(arena) - before,
      freed: used - arena.meminfo().usedPages,
      slabs: nodeCounts(arena, cache).slabs,
      arena,
    };
  };

  it('that were not needed go back to the tail in one piece, empty or not', () => {
    const { list, moves, locks, freed, slabs, arena } = withUnused(true, 0);
    expect(list).toEqual(['3: 1', '4: 1', '1: 2', '2: 8']);
    // Detach, the two last frees of the other CPU, and the splice.
    expect({ moves, locks, freed, slabs }).toEqual({ moves: {}, locks: 4, freed: 0, slabs: 5 });
    expectSound(arena);
  });

  it('without batchDetach go to the head one by one, and what is empty is discarded', () => {
    const { list, moves, freed, slabs, arena } = withUnused(false, 2);
    expect(list).toEqual(['1: 2', '3: 1', '4: 1']);
    expect({ moves, freed, slabs }).toEqual({ moves: {}, freed: 8, slabs: 4 });
    expectSound(arena);
  });

  it('without batchDetach keep even the empty ones while the node has few', () => {
    const { list, freed, slabs, arena } = withUnused(false, 4);
    expect(list).toEqual(['0: 8', '1: 2', '3: 1', '4: 1']);
    expect({ freed, slabs }).toEqual({ freed: 0, slabs: 5 });
    expectSound(arena);
  });
});

describe('the refinements', () => {
  it('are all on, and can be switched one by one', () => {
    const bits = (refinements?: Refinements) =>
      boot(refinements === undefined ? {} : { refinements }).geometry.refinements;
    expect(bits()).toBe(7);
    expect(bits({ lazyFreelist: false })).toBe(6);
    expect(bits({ returnFreelist: false })).toBe(5);
    expect(bits({ batchDetach: false, lazyFreelist: true })).toBe(3);
  });

  it.each(Array.from({ length: 8 }, (_, bits) => bits))('leave a sound arena in combination %i', (bits) => {
    const { arena, cache } = setup({
      lazyFreelist: (bits & 1) !== 0,
      returnFreelist: (bits & 2) !== 0,
      batchDetach: (bits & 4) !== 0,
    });
    let seed = 42 + bits;
    const random = (below: number) => {
      seed = (Math.imul(seed, 1103515245) + 12345) & 0x7fffffff;
      return seed % below;
    };
    const held: number[] = [];
    for (let round = 0; round < 300; round++) {
      if (random(2) === 0) held.push(...refill(arena, cache, 1 + random(5), 5 + random(20)));
      else
        for (let n = random(20); n > 0 && held.length > 0; n--) {
          slabFree(arena, cache, held.splice(random(held.length), 1));
        }
      expect(new Set(held).size).toBe(held.length);
      if (round % 30 === 0) expectSound(arena);
    }
    slabFree(arena, cache, held);
    inside(arena).slabs.shrinkNode(cache.desc, 0);
    expect(nodeCounts(arena, cache)).toEqual({ partial: 0, slabs: 0, objects: 0 });
    expectSound(arena);
  });
});
