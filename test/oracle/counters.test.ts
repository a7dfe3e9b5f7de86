/**
 * What the counters must say, derived from the kernel's decision order alone: one CPU, one node, capacity C, O objects
 * per slab. Each trace is exact in every one of the 26 counters.
 */

import { describe, expect, it } from 'vitest';
import type { KmemCache } from '#src/cache/index.js';
import { forEachSlab } from '#src/cache/index.js';
import { type Arena, type LockPolicy, STAT_ITEMS } from '#src/index.js';
import { Page } from '#src/page/index.js';
import { inuseOf } from '#src/slab/index.js';
import { REFINEMENTS, type Refinement } from '#src/struct/index.js';
import {
  allocMany,
  barnSizes,
  boot,
  expectSound,
  freeMany,
  moved,
  partialList,
  sheafSizes,
  sheavesOf,
} from '../cache/support/arena.js';
import { slabAlloc } from '../slab/support.js';

interface Shape {
  size: number;
  C: number;
  O: number;
  sheafCapacity?: number;
}

/** Capacities of every size class, a requested one, and slabs of one object up to hundreds. */
const SHAPES: Shape[] = [
  { size: 8, C: 60, O: 512 },
  { size: 64, C: 60, O: 64 },
  { size: 192, C: 60, O: 21 },
  { size: 256, C: 28, O: 16 },
  { size: 256, C: 32, O: 16, sheafCapacity: 32 },
  { size: 1024, C: 12, O: 16 },
  { size: 4096, C: 4, O: 8 },
  { size: 9000, C: 4, O: 3 },
  { size: 20_000, C: 4, O: 1 },
  { size: 64, C: 300, O: 64, sheafCapacity: 300 },
];
const POLICIES: LockPolicy[] = ['turn', 'op'];
/** How slabs are worked on shows in one place only, T3: each refinement off, and all of them. */
const WITHOUT: Refinement[][] = [...REFINEMENTS.map((name) => [name]), [...REFINEMENTS]];
const CASES = [
  ...POLICIES.flatMap((policy) => SHAPES.map((shape) => ({ policy, without: [] as Refinement[], ...shape }))),
  ...WITHOUT.flatMap((without) =>
    SHAPES.map((shape) => ({ policy: 'turn' as LockPolicy, without, ...shape })),
  ),
];

describe.each(CASES)(
  '$policy, without $without, objects of $size bytes, C = $C, O = $O',
  ({ policy, without, size, C, O, sheafCapacity }) => {
    const CPUS = 3;
    const setup = (): { arena: Arena; cache: KmemCache } => {
      const refinements = Object.fromEntries(without.map((name) => [name, false]));
      const arena = boot({ bytes: 32 << 20, cpus: CPUS, lockPolicy: policy, refinements });
      const cache = arena.createCache('c', { size, ...(sheafCapacity ? { sheafCapacity } : {}) });
      expect([cache.sheafCapacity, cache.objsPerSlab]).toEqual([C, O]);
      return { arena, cache };
    };
    const slabsFor = (objects: number) => Math.ceil(objects / O);

    it('T1: creation allocates a sheaf for every possible CPU', () => {
      const { arena, cache } = setup();
      const stats = cache.stats();
      expect(Object.keys(stats)).toEqual([...STAT_ITEMS]);
      for (const item of STAT_ITEMS) expect(stats[item], item).toBe(item === 'SHEAF_ALLOC' ? CPUS : 0);
      for (let cpu = 0; cpu < CPUS; cpu++)
        expect(sheafSizes(arena, cache, cpu)).toEqual({ main: 0, spare: null });
    });

    it('T2: the first allocation fills a sheaf', () => {
      const { arena, cache } = setup();
      const { main } = sheavesOf(arena, cache);
      expect(moved(cache, () => cache.alloc())).toEqual({
        BARN_GET_FAIL: 1,
        SHEAF_ALLOC: 1,
        ALLOC_SLAB: slabsFor(C),
        SHEAF_REFILL: C,
        ALLOC_FASTPATH: 1,
      });
      expect(sheafSizes(arena, cache)).toEqual({ main: C - 1, spare: 0 });
      expect(sheavesOf(arena, cache).spare!.at).toBe(main.at);
      expect(partialList(arena, cache)).toHaveLength(C % O === 0 ? 0 : 1);
      expectSound(arena);
    });

    it('T3: an allocation stream costs one refill per C objects, and no further sheaf', () => {
      const { arena, cache } = setup();
      cache.alloc();
      expect(moved(cache, () => allocMany(cache, C - 1))).toEqual({ ALLOC_FASTPATH: C - 1 });
      for (let round = 1; round <= 4; round++) {
        const moves = moved(cache, () => allocMany(cache, C));
        const slabs = slabsFor((round + 1) * C) - slabsFor(round * C);
        // An older kernel frees what is left of a partial slab's freelist, which was taken whole.
        const leftover = slabsFor(round * C) * O - round * C > C && without.includes('returnFreelist');
        expect(moves).toEqual({
          BARN_GET_FAIL: 1,
          SHEAF_REFILL: C,
          ALLOC_FASTPATH: C,
          ...(slabs > 0 ? { ALLOC_SLAB: slabs } : {}),
          ...(leftover ? { FREE_ADD_PARTIAL: 1 } : {}),
        });
        expect(sheafSizes(arena, cache)).toEqual({ main: 0, spare: 0 });
      }
      expectSound(arena);
    });

    it('T4 and T5: a free stream fills main, spare and 10 sheaves, then flushes; an allocation stream takes them back', () => {
      const { arena, cache } = setup();
      // From the slabs, so that nothing is cached to begin with; every slab full, none can become empty by C frees.
      const held = slabAlloc(arena, cache, 16 * C);
      expect(moved(cache, () => freeMany(cache, held.splice(0, 2 * C)))).toEqual({
        FREE_FASTPATH: 2 * C,
        SHEAF_ALLOC: 1,
      });
      expect(sheafSizes(arena, cache)).toEqual({ main: C, spare: C });
      for (let full = 1; full <= 10; full++) {
        expect(moved(cache, () => freeMany(cache, held.splice(0, C)))).toEqual({
          FREE_FASTPATH: C,
          SHEAF_ALLOC: 1,
          BARN_PUT: 1,
        });
        expect(barnSizes(arena, cache)).toEqual({ full: new Array(full).fill(C), empty: 0 });
      }
      for (let round = 0; round < 3; round++) {
        const moves = moved(cache, () => freeMany(cache, held.splice(0, C)));
        // Where a flushed object finds its slab says nothing about the sheaves.
        const { FREE_ADD_PARTIAL: _, FREE_REMOVE_PARTIAL: __, FREE_SLAB: ___, ...rest } = moves;
        expect(rest).toEqual({ FREE_FASTPATH: C, BARN_PUT_FAIL: 1, SHEAF_FLUSH: C });
        expect(barnSizes(arena, cache)).toEqual({ full: new Array(10).fill(C), empty: 0 });
      }
      // The most that is cached: 12 sheaves.
      expect(sheafSizes(arena, cache)).toEqual({ main: C, spare: C });
      expectSound(arena);

      expect(moved(cache, () => allocMany(cache, 2 * C))).toEqual({ ALLOC_FASTPATH: 2 * C });
      for (let empty = 1; empty <= 10; empty++) {
        expect(moved(cache, () => allocMany(cache, C))).toEqual({ ALLOC_FASTPATH: C, BARN_GET: 1 });
        expect(barnSizes(arena, cache)).toEqual({ full: new Array(10 - empty).fill(C), empty });
      }
      expect(moved(cache, () => allocMany(cache, C))).toMatchObject({
        ALLOC_FASTPATH: C,
        BARN_GET_FAIL: 1,
        SHEAF_REFILL: C,
      });
      expect(barnSizes(arena, cache)).toEqual({ full: [], empty: 10 });
      expectSound(arena);
    });

    it('T6: ping-pong of one object moves nothing else', () => {
      const { arena, cache } = setup();
      cache.free(cache.alloc());
      const rounds = 3 * C + 1;
      const moves = moved(cache, () => {
        for (let i = 0; i < rounds; i++) cache.free(cache.alloc());
      });
      expect(moves).toEqual({ ALLOC_FASTPATH: rounds, FREE_FASTPATH: rounds });
      expectSound(arena);
    });

    it('T7: what the slabs call in use is what the user holds and what the sheaves hold', () => {
      const { arena, cache } = setup();
      const held = allocMany(cache, 7 * C + 1);
      freeMany(cache, held.splice(0, 4 * C + 3));
      arena.endTurn();
      let inuse = 0;
      forEachSlab(arena.i32, arena.geometry, (page) => {
        if (arena.i32[page + Page.cache] === cache.desc.ptr)
          inuse += inuseOf(arena.i32[page + Page.slabWord]!);
      });
      const { main, spare } = sheafSizes(arena, cache);
      const cached = main + (spare ?? 0) + barnSizes(arena, cache).full.reduce((sum, size) => sum + size, 0);
      expect(inuse).toBe(held.length + cached);
      const info = arena.cacheInfo().find(({ name }) => name === 'c')!;
      expect(info.objects, 'slabinfo counts cached objects as active').toBe(inuse);
    });

    it('T8: flushes and refills are no slow path; a bulk remainder and what misses the sheaves are', () => {
      const { arena, cache } = setup();
      const slow = () => {
        const { ALLOC_SLOWPATH, FREE_SLOWPATH } = cache.stats();
        return [ALLOC_SLOWPATH, FREE_SLOWPATH];
      };
      freeMany(cache, allocMany(cache, 14 * C));
      cache.shrink();
      expect(slow()).toEqual([0, 0]);
      const out = new Int32Array(C + 2);
      expect(cache.allocBulk(out, C + 2)).toBe(true);
      expect(slow()).toEqual([C + 2, 0]);
      expectSound(arena);
    });
  },
);

describe('T1', () => {
  it.each([1, 2, 5, 16])('counts possible CPUs, not those online: %i', (cpus) => {
    const arena = boot({ cpus, bytes: 32 << 20 });
    expect(arena.onlineCpus).toEqual([0]);
    expect(arena.createCache('c', { size: 100 }).stat('SHEAF_ALLOC')).toBe(cpus);
  });
});
