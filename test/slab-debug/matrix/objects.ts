/** What objects go through besides: sheaves that hold them twice, reallocation, constructors, leaks, and the options that guard them. */
import { expect } from 'vitest';
import { __GFP_ZERO, type Arena, GFP_KERNEL, type PrefilledSheaf } from '#src/index.js';
import { SHEAF_OBJECTS } from '#src/sheaf/index.js';
import { inside } from '../../cache/support/arena.js';
import type { Case, Outcome } from './run.js';
import { CONSTRUCTED, freeAll, type Scene } from './scene.js';

const inAll = (outcome: Outcome): Case['is'] => ({ plain: outcome, debug: outcome, hardened: outcome });

/** A sheaf is an array of addresses: nothing in it says whether they are right, but the whole cache does. */
const IN_SHEAVES = inAll({ findings: 2, putBack: true });

const borrowed = new WeakMap<Scene, PrefilledSheaf[]>();

/** Two borrowed sheaves of three objects; `forge` gets the words of each. */
function sheafCase(name: string, forge: (scene: Scene, one: number, two: number) => void): Case {
  return {
    name,
    prepare: (scene) => {
      borrowed.set(scene, [scene.cache.prefill(3)!, scene.cache.prefill(3)!]);
    },
    act: (scene) => {
      const [one, two] = borrowed.get(scene)!;
      forge(scene, one!.at + SHEAF_OBJECTS, two!.at + SHEAF_OBJECTS);
    },
    after: (scene) => {
      for (const sheaf of borrowed.get(scene)!) scene.cache.return(sheaf);
    },
    is: IN_SHEAVES,
  };
}

/** What is there twice is one finding, and what should be there, and is lost, another. */
const SHEAVES: Case[] = [
  sheafCase('the same object in two sheaves', ({ arena: { i32 } }, one, two) => {
    i32[two] = i32[one]!;
  }),
  sheafCase('the same object twice in a sheaf', ({ arena: { i32 } }, one) => {
    i32[one] = i32[one + 1]!;
  }),
  sheafCase('an allocated object in a sheaf', ({ arena: { i32 }, p }, one) => {
    i32[one] = p;
  }),
  sheafCase('another cache`s object in a sheaf', ({ arena: { i32 } }, one) => {
    i32[one] = (one - SHEAF_OBJECTS) << 2;
  }),
];

/** Sizes from `from` to `to` bytes that kmalloc serves with one block. */
function kmallocSizes({ layout }: Scene): [from: number, to: number, bucket: number] {
  const bucket = 2 ** Math.ceil(Math.log2(Math.max(16, Math.min(layout.size, 2048))));
  // Above the caches between the powers of two.
  return [(bucket >> 1) + (bucket >> 2) + 1, bucket - 1, bucket];
}

const bytes = ({ arena }: Scene, p: number, from: number, to: number): Set<number> =>
  new Set(arena.u8.subarray(p + from, p + to));

const KMALLOC_DEBUG = { debug: { slabDebug: 'FZPU,victim*,kmalloc-*' } };

/** Errors of the kmalloc cache of a block. */
function errorsAt({ arena }: Scene, p: number): { first: number; second: number } {
  const { debug } = arena.openCache(inside(arena).kmallocs.cacheOf(p)!.name);
  return { first: debug.validate().errors, second: debug.validate().errors };
}

/** Two places in the source, in copies of their own where there are copies. */
function twoSites(arena: Arena) {
  const one = arena.kmallocSite({ site: 1 });
  for (let site = 2; site < 100; site++) {
    const two = arena.kmallocSite({ site });
    if (two.copy !== one.copy || arena.geometry.kmallocCopies === 0) return { one, two };
  }
  throw new Error('all sites have the same copy');
}

/** Blocks of two sites in turn, each written too far, within its slab. Returns whose are hit. */
function overflow(scene: Scene): { own: number; others: number; blocks: number[] } {
  const { arena } = scene;
  const { one, two } = twoSites(arena);
  const [, , bucket] = kmallocSizes(scene);
  const mine = new Set<number>();
  const theirs = new Set<number>();
  for (let i = 0; i < 40; i++) {
    mine.add(one.alloc(bucket));
    theirs.add(two.alloc(bucket));
  }
  const { slabs } = inside(arena);
  const isInSlab = (p: number): boolean => slabs.slabOf(p) === slabs.slabOf(p + bucket);
  const hits = (set: Set<number>): number =>
    [...mine].filter((p) => set.has(p + bucket) && isInSlab(p)).length;
  return { own: hits(mine), others: hits(theirs), blocks: [...mine, ...theirs] };
}

const KMALLOC: Case[] = [
  {
    name: 'krealloc within the block, with __GFP_ZERO',
    options: KMALLOC_DEBUG,
    act: (scene) => {
      const { arena } = scene;
      const [from, to] = kmallocSizes(scene);
      const gfp = GFP_KERNEL | __GFP_ZERO;
      const p = arena.kmalloc(from, gfp);
      arena.u8.fill(0xff, p, p + from);
      expect(arena.krealloc(p, to, gfp)).toBe(p);
      expect(bytes(scene, p, from, to), 'grown').toEqual(new Set([0]));
      expect(bytes(scene, p, 0, from), 'kept').toEqual(new Set([0xff]));
      arena.u8.fill(0xff, p, p + to);
      expect(arena.krealloc(p, from, gfp)).toBe(p);
      expect(arena.krealloc(p, to, gfp)).toBe(p);
      expect(bytes(scene, p, from, to), 'shrunk and grown').toEqual(new Set([0]));
      arena.kfree(p);
    },
    is: inAll({}),
  },
  {
    name: 'krealloc into another block, with __GFP_ZERO',
    options: KMALLOC_DEBUG,
    act: (scene) => {
      const { arena } = scene;
      const [from, , bucket] = kmallocSizes(scene);
      // What is given next was used before.
      const used = arena.kmalloc(2 * bucket);
      arena.u8.fill(0xee, used, used + 2 * bucket);
      arena.kfree(used);
      const p = arena.kmalloc(from, GFP_KERNEL | __GFP_ZERO);
      arena.u8.fill(0xff, p, p + from);
      const q = arena.krealloc(p, 2 * bucket, GFP_KERNEL | __GFP_ZERO);
      expect(bytes(scene, q, 0, from)).toEqual(new Set([0xff]));
      expect(bytes(scene, q, from, 2 * bucket)).toEqual(new Set([0]));
      arena.kfree(q);
    },
    is: inAll({}),
  },
  {
    name: 'a byte behind what kmalloc was asked for',
    options: KMALLOC_DEBUG,
    act: (scene) => {
      const { arena, column } = scene;
      const [from] = kmallocSizes(scene);
      const p = arena.kmalloc(from);
      arena.u8[p + from] = 1;
      if (column === 'debug') expect(errorsAt(scene, p)).toEqual({ first: 2, second: 0 });
      arena.kfree(p);
    },
    is: { plain: {}, debug: {}, hardened: {} },
  },
  {
    name: 'one site`s block written into another`s',
    options: KMALLOC_DEBUG,
    act: (scene) => {
      const { arena, column } = scene;
      const [, , bucket] = kmallocSizes(scene);
      const { own, others, blocks } = overflow(scene);
      if (column === 'plain') expect(others).toBeGreaterThan(0);
      // Its neighbours are its own: with red zones there are none.
      else expect(others).toBe(0);
      if (column === 'hardened') expect(own).toBeGreaterThan(0);
      if (column === 'debug') {
        arena.u8[blocks[0]! + bucket] = 1;
        expect(errorsAt(scene, blocks[0]!)).toEqual({ first: 2, second: 0 });
      }
      for (const p of blocks) arena.kfree(p);
    },
    is: { plain: {}, debug: {}, hardened: {} },
  },
];

const CONSTRUCTORS: Case[] = [
  {
    name: 'a constructed object is free: no poison, no zeroes',
    layout: { ctor: true },
    act: (scene) => {
      const { arena, cache, p } = scene;
      const { objectSize } = cache;
      arena.u8.fill(CONSTRUCTED, p, p + objectSize);
      cache.free(p);
      expect(bytes(scene, p, 0, objectSize)).toEqual(new Set([CONSTRUCTED]));
    },
    is: inAll({}),
  },
  {
    name: 'a write into a freed object of a cache with a constructor',
    layout: { ctor: true },
    act: ({ arena, cache, p }) => {
      cache.free(p);
      arena.u8[p] = 1;
    },
    is: inAll({}),
  },
];

/** Arrays are freed as a whole, or nothing is done to any of them. */
const REFUSED: Case[] = [
  {
    name: 'an object twice in a bulk free that would wipe it',
    act: (scene) => {
      const { arena, cache, p } = scene;
      arena.u8.fill(0x33, p, p + cache.objectSize);
      try {
        cache.freeBulk(Int32Array.of(p, p), 2);
      } finally {
        expect(bytes(scene, p, 0, cache.objectSize)).toEqual(new Set([0x33]));
      }
    },
    is: {
      plain: { refused: 'double-free' },
      debug: { refused: 'double-free', errors: 2 },
      hardened: { refused: 'double-free' },
    },
  },
];

const LEAKS: Case[] = [
  {
    name: 'a cache destroyed with an object left',
    act: (scene) => {
      const { cache, p, seen } = scene;
      seen.delete(p);
      freeAll(scene);
      expect(cache.destroy()).toMatchObject({ leaked: 1, objects: [p] });
    },
    is: inAll({ errors: 2, what: 'Objects remaining', destroyed: true, leaked: 1 }),
  },
  {
    name: 'a cache destroyed with all of them left',
    act: ({ cache, seen }) => {
      expect(cache.destroy()).toMatchObject({ leaked: seen.size - 1 });
    },
    is: inAll({
      // One of each slab, and one of each object.
      errors: ({ arena, seen }) =>
        new Set([...seen].map((p) => inside(arena).slabs.slabOf(p))).size + seen.size - 1,
      what: 'Objects remaining',
      destroyed: true,
      leaked: 1,
    }),
  },
];

const QUARANTINE = { hardened: { quarantine: 1 << 16 } };
const GUARD = { hardened: { guard: { every: 1, objects: 4 } } };

/** In the hardened column the guarded object of the cache, else the victim. */
function guarded({ arena, p, seen }: Scene): number {
  return [...seen].find((q) => inside(arena).guards.owns(q)) ?? p;
}

const GUARDS: Case[] = [
  {
    name: 'a write into an object in quarantine',
    options: QUARANTINE,
    layouts: ({ ctor }) => ctor !== true,
    act: ({ arena, cache, p }) => {
      cache.free(p);
      arena.u8[p] = ~arena.u8[p]!;
      if (arena.geometry.quarantine > 0) cache.shrink();
    },
    is: {
      plain: {},
      debug: { errors: 2, what: 'Poison overwritten' },
      hardened: { errors: 2, what: 'Quarantine overwritten' },
    },
  },
  {
    name: 'a second free of an object in quarantine',
    options: QUARANTINE,
    act: ({ cache, p }) => {
      cache.free(p);
      cache.free(p);
    },
    is: {
      plain: { refused: 'double-free' },
      debug: { refused: 'double-free', errors: 2 },
      hardened: { refused: 'double-free' },
    },
  },
  {
    name: 'the byte behind a guarded object',
    options: GUARD,
    layouts: ({ ctor }) => ctor !== true,
    act: (scene) => {
      const { arena, cache } = scene;
      const p = guarded(scene);
      const at = p + Math.min(cache.objectSize, scene.column === 'plain' ? cache.size - 1 : cache.objectSize);
      arena.u8[at] = ~arena.u8[at]!;
      expect(arena.scanGuards()).toBe(scene.column === 'hardened' ? 1 : 0);
      expect(arena.scanGuards()).toBe(0);
    },
    is: { plain: {}, debug: { errors: 2, what: 'Right Redzone' }, hardened: { errors: 1 } },
  },
  {
    name: 'a write into a guarded object after its free',
    options: GUARD,
    layouts: ({ ctor }) => ctor !== true,
    act: (scene) => {
      const { arena, cache } = scene;
      const p = guarded(scene);
      cache.free(p);
      arena.u8[p] = ~arena.u8[p]!;
      expect(arena.scanGuards()).toBe(scene.column === 'hardened' ? 1 : 0);
    },
    is: {
      plain: {},
      debug: { errors: 2, what: 'Poison overwritten' },
      hardened: { errors: 1, what: 'use-after-free write' },
    },
  },
  {
    name: 'a second free of a guarded object',
    options: GUARD,
    layouts: ({ ctor }) => ctor !== true,
    act: (scene) => {
      const p = guarded(scene);
      scene.cache.free(p);
      scene.cache.free(p);
    },
    is: {
      plain: { refused: 'double-free' },
      debug: { refused: 'double-free', errors: 2 },
      hardened: { refused: 'double-free', errors: 1, what: 'invalid free' },
    },
  },
];

export const OBJECTS: Case[] = [...SHEAVES, ...KMALLOC, ...CONSTRUCTORS, ...REFUSED, ...LEAKS, ...GUARDS];
