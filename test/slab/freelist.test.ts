/** One word holds freelist and count: single pops under list_lock, pushes and take-alls without it. */

import fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import { freelistIndices, type KmemCache } from '#src/cache/index.js';
import type { Arena } from '#src/index.js';
import { virtToPage } from '#src/page/index.js';
import type { SlabAllocator } from '#src/slab/index.js';
import { boot, expectSound, inside, nodeCounts, partialList } from '../cache/support/arena.js';
import { fullSlabs, listLocks, mark, refill, slabAlloc, slabFree, slabFreeMany } from './support.js';

const O = 21;
const setup = () => {
  const arena = boot({ lockStat: 'contended' });
  const cache = arena.createCache('c', { size: 192 });
  return { arena, cache };
};

describe('the freelist of a slab', () => {
  it('is last in, first out', () => {
    const { arena, cache } = setup();
    const [slab] = fullSlabs(arena, cache, 1);
    const freed = [slab![3]!, slab![17]!, slab![0]!, slab![20]!];
    slabFree(arena, cache, freed);
    expect(
      freelistIndices(arena.i32, arena.geometry, cache.desc, virtToPage(arena.geometry, slab![0]!)),
    ).toEqual([20, 0, 17, 3]);
    expect(slabAlloc(arena, cache, 4)).toEqual(freed.reverse());
    expectSound(arena);
  });

  it('is popped under list_lock, once per object', () => {
    const { arena, cache } = setup();
    slabAlloc(arena, cache);
    const before = listLocks(arena);
    slabAlloc(arena, cache, 10);
    expect(listLocks(arena)).toBe(before + 10);
  });

  it('is pushed to without it, a chain of one slab in one exchange', () => {
    const { arena, cache } = setup();
    const [slab] = fullSlabs(arena, cache, 1);
    slabFree(arena, cache, [slab![0]!]);
    const before = listLocks(arena);
    slabFreeMany(arena, cache, slab!.slice(1, 20));
    expect(listLocks(arena)).toBe(before);
    expect(partialList(arena, cache)).toMatchObject([{ inuse: 1 }]);
    expectSound(arena);
  });

  it('is taken whole with one list_lock for a batch of slabs', () => {
    const { arena, cache } = setup();
    const slabs = fullSlabs(arena, cache, 3);
    for (const slab of slabs) slabFree(arena, cache, slab.slice(0, 7));
    const before = listLocks(arena);
    const got = refill(arena, cache, O, O);
    expect(new Set(got)).toEqual(new Set(slabs.flatMap((slab) => slab.slice(0, 7))));
    expect(listLocks(arena)).toBe(before + 1);
    expect(partialList(arena, cache)).toEqual([]);
    expectSound(arena);
  });

  it('keeps what it holds, in any order of single frees, chains, pops and take-alls', () => {
    const { arena, cache } = setup();
    const steps = fc.array(
      fc.record({
        kind: fc.constantFrom('pop', 'push', 'chain', 'takeAll'),
        n: fc.integer({ min: 1, max: 30 }),
      }),
      { maxLength: 30 },
    );
    fc.assert(
      fc.property(steps, (list) => {
        const held: number[] = [];
        for (const { kind, n } of list) {
          if (kind === 'pop') held.push(...slabAlloc(arena, cache, n));
          else if (kind === 'takeAll') held.push(...refill(arena, cache, n, n));
          else if (kind === 'push') slabFree(arena, cache, held.splice(0, n));
          else if (held.length > 0) slabFreeMany(arena, cache, held.splice(-n));
          expect(new Set(held).size, 'nothing is handed out twice').toBe(held.length);
        }
        expectSound(arena);
        if (held.length > 0) slabFreeMany(arena, cache, held);
      }),
      { numRuns: 40 },
    );
    inside(arena).slabs.shrinkNode(cache.desc, 0);
    expectSound(arena);
  });
});

describe('freeing many objects', () => {
  /** Lengths of the chains that reach the slabs, in order. */
  const chainsOf = (arena: Arena, free: (slabs: SlabAllocator) => void): number[] => {
    const { slabs } = inside(arena);
    const chains: number[] = [];
    const original = slabs.pushChain;
    slabs.pushChain = (s, page, head, tail, cnt) => {
      chains.push(cnt);
      return original.call(slabs, s, page, head, tail, cnt);
    };
    free(slabs);
    slabs.pushChain = original;
    return chains;
  };

  it('gathers the objects of a slab, however they are mixed with others', () => {
    const { arena, cache } = setup();
    const full = fullSlabs(arena, cache, 4);
    const mixed = Array.from({ length: O }, (_, i) => full.map((slab) => slab[i]!)).flat();
    const list = Int32Array.from(mixed);
    mark(arena, cache, mixed, false);
    const chains = chainsOf(arena, (slabs) => slabs.freeObjects(cache.desc, list, 0, list.length));
    expect(chains.reduce((a, b) => a + b)).toBe(4 * O);
    expect(chains.length, 'compare-exchanges for 84 objects').toBeLessThanOrEqual(8);
    expect(nodeCounts(arena, cache)).toMatchObject({ partial: 4, slabs: 4 });
    expectSound(arena);
  });

  it('leaves what lies outside of its range alone', () => {
    const { arena, cache } = setup();
    const [slab] = fullSlabs(arena, cache, 1);
    const list = Int32Array.from([1, ...slab!.slice(5, 8), 1]);
    mark(arena, cache, slab!.slice(5, 8), false);
    expect(chainsOf(arena, (slabs) => slabs.freeObjects(cache.desc, list, 1, 3))).toEqual([3]);
    expect([list[0], list[4]]).toEqual([1, 1]);
    expect(partialList(arena, cache)).toMatchObject([{ inuse: O - 3 }]);
    expectSound(arena);
  });

  it('does so for more slabs than it can gather at a time, and for slabs far apart', () => {
    const { arena, cache } = setup();
    const full = fullSlabs(arena, cache, 200);
    const random = fc.sample(fc.shuffledSubarray(full.flat(), { minLength: 3000, maxLength: 3000 }), 1)[0]!;
    const list = Int32Array.from(random);
    mark(arena, cache, random, false);
    const chains = chainsOf(arena, (slabs) => slabs.freeObjects(cache.desc, list, 0, list.length));
    expect(chains.reduce((a, b) => a + b)).toBe(3000);
    const freed = new Set(random);
    const left = full.flat().filter((p) => !freed.has(p));
    expect(nodeCounts(arena, cache).slabs).toBe(
      new Set(left.map((p) => p >> 12)).size + emptySlabs(arena, cache),
    );
    expectSound(arena);
    slabFreeMany(arena, cache, left);
    expectSound(arena);
  });

  const emptySlabs = (arena: Arena, cache: KmemCache): number =>
    partialList(arena, cache).filter(({ inuse }) => inuse === 0).length;

  it.each([8, 24, 104, 192, 1000, 1032, 4096, 5000, 30_000, 1 << 17, 1 << 20])(
    'finds the index of each object of %i bytes',
    (size) => {
      const arena = boot({ bytes: 16 << 20 });
      const cache = arena.createCache('c', { size });
      const objects = slabAlloc(arena, cache, cache.objsPerSlab);
      cache.minPartial = 100;
      slabFreeMany(arena, cache, objects);
      const page = virtToPage(arena.geometry, objects[0]!);
      const indices = freelistIndices(arena.i32, arena.geometry, cache.desc, page);
      expect(indices.toSorted((a, b) => a - b)).toEqual(objects.map((_, i) => i));
      expectSound(arena);
    },
  );
});
