/** The records that a dead thread's reaper goes by (K1 and K2 in src/cache/rcu/kfreeRcuLists.ts), at the moments that they are for. */
import { expect, it } from 'vitest';
import type { KfreeRcuBatch } from '#src/cache/rcu/kfreeRcuBatch.js';
import {
  type Arena,
  type ArenaOptions,
  type CacheOptions,
  type KmemCache,
  SLAB_ACCOUNT,
  SLAB_TYPESAFE_BY_RCU,
} from '#src/index.js';
import { KfreeRcuCpu, krcpOf } from '#src/rcu/index.js';
import { allocMany, boot, expectSound, inside, secondCpu } from '../cache/support/arena.js';
import { dying } from './support.js';

function setup(
  options: CacheOptions,
  arenaOptions: Partial<ArenaOptions> = {},
): { arena: Arena; cache: KmemCache; other: Arena; theirs: KmemCache } {
  const arena = boot({ bytes: 4 << 20, maxCaches: 30, ...arenaOptions });
  const cache = arena.createCache('c', options);
  const other = secondCpu(arena);
  return { arena, cache, other, theirs: other.openCache('c') };
}

function expectEachOnce(cache: KmemCache, n: number): void {
  const got = allocMany(cache, n);
  expect(new Set(got).size, 'objects handed out twice').toBe(got.length);
}

it('objects that are free already are not freed again, between the free and the note that says so', () => {
  const { arena, cache, other, theirs } = setup({ size: 64, layer: 'none', flags: SLAB_ACCOUNT });
  for (const p of allocMany(theirs, 6)) theirs.freeRcu(p);
  other.endTurn();
  dying(arena, (die) => {
    inside(other).accounting.uncharge = die; // what comes after the free
    other.kfreeRcuBarrier();
  });
  expect(arena.cpuDead(1).notes).toContain('6 objects of c that kfree_rcu was freeing may be lost');
  expectEachOnce(cache, 40);
});

it('nor when their slab is gone with them', () => {
  const { arena, cache, other, theirs } = setup({ size: 1024, layer: 'none', flags: SLAB_ACCOUNT });
  cache.minPartial = 0;
  for (const p of allocMany(theirs, cache.objsPerSlab)) theirs.freeRcu(p);
  other.endTurn();
  dying(arena, (die) => {
    inside(other).accounting.uncharge = die;
    other.kfreeRcuBarrier();
  });
  const notes = arena.cpuDead(1).notes.join();
  expect(notes).toContain(`${cache.objsPerSlab} objects of kmalloc that kfree_rcu was freeing may be lost`);
  expectEachOnce(cache, 40);
});

it('what goes through the batch by itself is freed once, and what that held before is not freed again', () => {
  const { arena, cache, other, theirs } = setup({ size: 64, layer: 'none' });
  for (const p of allocMany(theirs, 6)) theirs.freeRcu(p);
  other.kfreeRcuBarrier();
  const owned = allocMany(cache, 40);
  arena.endTurn();
  const [p] = allocMany(theirs, 1) as [number];
  inside(other).pages.refuseEach(1);
  dying(arena, (die) => {
    const { batch } = inside(other).kfreeRcu as unknown as { batch: KfreeRcuBatch };
    const { putOne } = batch;
    batch.putOne = (krcp, object) => {
      putOne.call(batch, krcp, object);
      die(); // still in hand
    };
    theirs.freeRcu(p);
  });
  expect(arena.cpuDead(1).notes).toEqual([]);
  arena.kfreeRcuBarrier();
  for (const q of owned) cache.free(q);
  arena.endTurn();
  expectSound(arena);
  expectEachOnce(cache, 80);
});

type Give = (theirs: KmemCache, p: number) => void;

const GIVERS: Record<string, { cache: CacheOptions; arena?: Partial<ArenaOptions>; give: Give }> = {
  'no sheaves': { cache: { size: 64, layer: 'none' }, give: (theirs, p) => theirs.freeRcu(p) },
  'a quarantine': { cache: { size: 64, quarantine: 256 }, give: (theirs, p) => theirs.freeRcu(p) },
  'guarded objects': {
    cache: { size: 64 },
    arena: { guard: { every: 1, objects: 60 } },
    give: (theirs, p) => theirs.freeRcu(p),
  },
  'late frees': {
    cache: { size: 64, layer: 'none', flags: SLAB_TYPESAFE_BY_RCU, rcuDebug: true },
    give: (theirs, p) => theirs.free(p),
  },
};

it.each(Object.keys(GIVERS))('the word of an object before is not that of the one in hand: %s', (kind) => {
  const { cache: options, arena: arenaOptions, give } = GIVERS[kind]!;
  const { arena, other, theirs } = setup(options, arenaOptions);
  const [p] = allocMany(theirs, 1) as [number];
  const krcp = krcpOf(arena.geometry, 1);
  arena.i32[krcp + KfreeRcuCpu.handHead] = 4711; // a word of what is somebody's again by now
  other.endTurn();
  dying(arena, (die) => {
    inside(other).kfreeRcu.add = die;
    give(theirs, p);
  });
  expect(arena.i32[krcp + KfreeRcuCpu.hand]).toBe(p);
  inside(arena).pages.refuseEach(1);
  expect(() => arena.cpuDead(1)).toThrow(/no memory for the list of what thread slot 1/);
});

it("nor is a word of a large block that is somebody's again", () => {
  const { arena, other } = setup({ size: 64 });
  const p = other.kmalloc(64 << 10);
  arena.i32[krcpOf(arena.geometry, 1) + KfreeRcuCpu.handHead] = 4711;
  dying(arena, (die) => {
    inside(other).kfreeRcu.add = die;
    other.kfreeRcu(p);
  });
  inside(arena).pages.refuseEach(1);
  expect(() => arena.cpuDead(1)).toThrow(/no memory for the list of what thread slot 1/);
});

it('nothing is linked through a word of an object that is alive', () => {
  const { arena, cache, other, theirs } = setup({ size: 64, layer: 'none' });
  const [p, q] = allocMany(theirs, 2) as [number, number];
  theirs.freeRcu(p, 8);
  other.endTurn();
  arena.kfreeRcuBarrier();
  expect(allocMany(cache, 100)).toContain(p);
  arena.i32[(p + 8) >> 2] = 4711;
  arena.endTurn();
  dying(arena, (die) => {
    inside(other).kfreeRcu.add = die;
    theirs.freeRcu(q);
  });
  inside(arena).pages.refuseEach(1);
  expect(() => arena.cpuDead(1)).toThrow(/no memory for the list/);
  inside(arena).pages.refuseEach(0);
  expect(arena.cpuDead(1).notes).toEqual([]);
  expect(arena.i32[(p + 8) >> 2]).toBe(4711);
  arena.kfreeRcuBarrier();
  arena.endTurn();
  cache.free(p); // was nobody else's to free
  arena.endTurn();
  expectSound(arena);
});
