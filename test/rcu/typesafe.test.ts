/** SLAB_TYPESAFE_BY_RCU: objects are reused at once, the pages of a slab stay until nobody reads; step by step. */

import { describe, expect, it, vi } from 'vitest';
import {
  __GFP_ZERO,
  type Arena,
  type ArenaOptions,
  GFP_KERNEL,
  type KmemCache,
  RcuStallError,
  SLAB_TYPESAFE_BY_RCU,
  SlabBugError,
} from '#src/index.js';
import { Page, virtToPage } from '#src/page/index.js';
import { KmemCacheNode, nodeOf } from '#src/slab/index.js';
import {
  allocMany,
  boot,
  expectRefused,
  expectSound,
  footprint,
  freeMany,
  inside,
  secondCpu,
} from '../cache/support/arena.js';

const LAYERS = ['sheaves', 'percpu-array', 'cpu-slab', 'none'] as const;

function setup(options: Partial<ArenaOptions> = {}, flags = SLAB_TYPESAFE_BY_RCU) {
  const arena = boot({ cpus: 4, ...options });
  const cache = arena.createCache('c', { size: 64, flags });
  return { arena, other: secondCpu(arena), cache };
}

/** The cache that the page of an address belongs to; 0 for none. */
const ownerOf = (arena: Arena, p: number): number => arena.i32[virtToPage(arena.geometry, p) + Page.cache]!;

const nodeStruct = (arena: Arena, cache: KmemCache): number => nodeOf(arena.i32, cache.desc, 0);

/** Fills ten slabs and more, and empties them again. */
function fillAndEmpty(cache: KmemCache): number[] {
  const objects = allocMany(cache, 12 * cache.objsPerSlab);
  freeMany(cache, objects);
  return objects;
}

describe.each(LAYERS)('a slab that nobody uses, layer %s', (layer) => {
  it('keeps its pages while somebody reads, and gives them back afterwards', () => {
    const { arena, other, cache } = setup({ layer });
    const before = arena.meminfo().usedPages;
    const [p] = fillAndEmpty(cache);
    other.rcu.readLock();
    const peak = arena.meminfo().usedPages;
    expect(cache.shrink().slabs).toBe(0);
    expect(arena.i32[nodeStruct(arena, cache) + KmemCacheNode.nrSlabs]).toBe(0);
    expect(ownerOf(arena, p!)).toBe(cache.desc.ptr);
    expect(arena.meminfo().usedPages).toBeGreaterThan(peak - 4);
    expectSound(arena);
    other.rcu.readUnlock();
    other.endTurn();
    cache.shrink();
    expect(ownerOf(arena, p!)).toBe(0);
    expect(arena.meminfo().usedPages).toBeLessThanOrEqual(before);
    expectSound(arena);
    expect(cache.destroy().leaked).toBe(0);
  });

  it('is of another type at once without the flag', () => {
    const { arena, other, cache } = setup({ layer }, 0);
    const [p] = fillAndEmpty(cache);
    other.rcu.readLock();
    cache.shrink();
    expect(ownerOf(arena, p!)).toBe(0);
    other.rcu.readUnlock();
    other.endTurn();
  });

  it('is not waited for when nobody reads', () => {
    const { arena, cache } = setup({ layer });
    const [p] = fillAndEmpty(cache);
    cache.shrink();
    expect(ownerOf(arena, p!)).toBe(0);
    expectSound(arena);
  });
});

describe('objects', () => {
  it('are given out again at once, though somebody reads', () => {
    const { arena, other, cache } = setup();
    const p = cache.alloc();
    other.rcu.readLock();
    cache.free(p);
    expect(cache.alloc()).toBe(p);
    other.rcu.readUnlock();
    other.endTurn();
    cache.free(p);
    expectSound(arena);
  });

  it('wait for the grace period with freeRcu, and their pages for another', () => {
    const { arena, other, cache } = setup();
    const p = cache.alloc();
    other.rcu.readLock();
    cache.freeRcu(p);
    const more = allocMany(cache, 200);
    expect(more).not.toContain(p);
    freeMany(cache, more);
    other.rcu.readUnlock();
    other.endTurn();
    cache.rcuBarrier();
    other.rcu.readLock();
    cache.shrink();
    expect(ownerOf(arena, p)).toBe(cache.desc.ptr);
    other.rcu.readUnlock();
    other.endTurn();
    expectSound(arena);
    expect(cache.destroy().leaked).toBe(0);
  });

  it.each(LAYERS)('are not written to while they are free, layer %s', (layer) => {
    const { arena, cache } = setup({ layer });
    const objects = allocMany(cache, 500);
    const image = (p: number): number[] => [...arena.i32.subarray(p >> 2, (p + cache.objectSize) >> 2)];
    for (const p of objects) arena.i32.fill(p, p >> 2, (p + cache.objectSize) >> 2);
    freeMany(cache, objects);
    arena.endTurn();
    const kept = objects.filter((p) => image(p).every((word) => word === p));
    expect(kept).toHaveLength(objects.length);
    const again = allocMany(cache, 500);
    for (const p of again.filter((q) => objects.includes(q))) expect(image(p)[0]).toBe(p);
    const zeroed = cache.alloc(GFP_KERNEL | __GFP_ZERO);
    expect(image(zeroed).every((word) => word === 0)).toBe(true);
  });

  it('may give a word of theirs to the allocator', () => {
    const arena = boot();
    const cache = arena.createCache('c', { size: 64, flags: SLAB_TYPESAFE_BY_RCU, freeptrOffset: 16 });
    expect(cache.size, 'nothing lies behind the object').toBe(64);
    const objects = allocMany(cache, 300);
    for (const p of objects) arena.i32.fill(p, p >> 2, (p + 64) >> 2);
    freeMany(cache, objects);
    cache.flushThisCpu();
    arena.endTurn();
    const touched = new Set<number>();
    for (const p of objects) {
      if (ownerOf(arena, p) === 0) continue;
      for (let at = 0; at < 16; at++) if (arena.i32[(p >> 2) + at] !== p) touched.add(at * 4);
    }
    expect([...touched]).toEqual([16]);
    expectSound(arena);
  });
});

describe('slabs that wait', () => {
  it('are freed by a callback of the thread that discarded them', async () => {
    const { arena, other, cache } = setup();
    const [p] = fillAndEmpty(cache);
    other.rcu.readLock();
    cache.shrink();
    other.rcu.readUnlock();
    other.endTurn();
    expect(ownerOf(arena, p!)).toBe(cache.desc.ptr);
    await arena.rcu.barrierAsync();
    expect(ownerOf(arena, p!)).toBe(0);
    expectSound(arena);
  });

  it('are freed for a new slab, by whichever CPU needs one, though their thread never looks again', () => {
    const { arena, other, cache } = setup({ layer: 'none' });
    const theirs = other.openCache('c');
    const objects = allocMany(theirs, 12 * cache.objsPerSlab);
    arena.rcu.readLock();
    freeMany(theirs, objects);
    theirs.shrink();
    arena.rcu.readUnlock();
    other.endTurn();
    arena.endTurn();
    const n = nodeStruct(arena, cache);
    expect(arena.i32[n + KmemCacheNode.rcuHead]).not.toBe(0);
    const held = allocMany(cache, 1);
    expect(arena.i32[n + KmemCacheNode.rcuHead]).toBe(0);
    freeMany(cache, held);
    expectSound(arena);
  });

  it('outlive a thread that died, and are found by reclaim', () => {
    const { arena, other, cache } = setup({ bytes: 2 << 20, maxCaches: 24 });
    const theirs = other.openCache('c');
    const reader = secondCpu(arena, 2);
    const [p] = fillAndEmpty(theirs);
    reader.rcu.readLock();
    theirs.shrink();
    other.endTurn();
    arena.cpuDead(1);
    reader.rcu.readUnlock();
    reader.endTurn();
    expect(ownerOf(arena, p!)).toBe(cache.desc.ptr);
    const pages: number[] = [];
    for (let q = arena.allocPages(0); q !== 0; q = arena.allocPages(0)) pages.push(q);
    expect(arena.i32[nodeStruct(arena, cache) + KmemCacheNode.rcuHead]).toBe(0);
    for (const q of pages) arena.freePages(q, 0);
    expectSound(arena);
  });

  it('are waited for by destroy, which changes nothing when that takes too long', () => {
    const arena = boot({ cpus: 4 });
    const before = footprint(arena);
    const cache = arena.createCache('c', { size: 64, flags: SLAB_TYPESAFE_BY_RCU });
    const other = secondCpu(arena);
    const objects = allocMany(cache, 12 * cache.objsPerSlab);
    other.rcu.readLock();
    freeMany(cache, objects);
    Object.assign(arena.rcu, { limitMs: 20, onStall: vi.fn() });
    expect(() => cache.destroy()).toThrow(RcuStallError);
    freeMany(cache, allocMany(cache, 100)); // it lives on
    expectSound(arena);
    other.rcu.readUnlock();
    other.endTurn();
    expect(cache.destroy().leaked).toBe(0);
    expectSound(arena);
    expect(footprint(arena)).toEqual(before);
  });

  it('show in validate when they are not what they should be', () => {
    const { arena, other, cache } = setup();
    fillAndEmpty(cache);
    other.rcu.readLock();
    cache.shrink();
    const tail = nodeStruct(arena, cache) + KmemCacheNode.rcuTail;
    const page = arena.i32[tail]!;
    arena.i32[tail] = 0;
    expect(arena.validate().map(({ invariant }) => invariant)).toEqual(['I14']);
    arena.i32[tail] = page;
    arena.i32[page + Page.next] = page;
    expect(arena.validate().map(({ invariant }) => invariant)).toContain('I14');
    arena.i32[page + Page.next] = 0;
    other.rcu.readUnlock();
    other.endTurn();
    expectSound(arena);
  });
});

describe('a callback of a thread whose cache another thread destroys', () => {
  it('keeps the memory of the cache where it is until it is done', () => {
    const { arena, other, cache } = setup({ layer: 'none' });
    const theirs = other.openCache('c');
    freeMany(theirs, allocMany(theirs, 10));
    theirs.freeRcu(theirs.alloc());
    Object.assign(arena.rcu, { limitMs: 20, onStall: vi.fn() });
    // In the middle of what frees the object, this thread destroys the cache.
    const { kfreeRcu } = inside(other);
    const free = theirs.freeAfterGracePeriod.bind(theirs);
    let refused: unknown;
    theirs.freeAfterGracePeriod = (p) => {
      theirs.freeAfterGracePeriod = free;
      try {
        cache.destroy();
      } catch (error) {
        refused = error;
      }
      free(p);
    };
    kfreeRcu.submitOwn();
    other.rcu.quiescent();
    expect(refused).toBeInstanceOf(RcuStallError);
    expect((refused as RcuStallError).cpus).toEqual([1]);
    other.endTurn();
    expectSound(arena);
    expect(cache.destroy().leaked).toBe(0);
    expectSound(arena);
  });
});

describe.each(LAYERS)('rcuDebug, layer %s', (layer) => {
  const debug = (options: Partial<ArenaOptions> = {}) => {
    const arena = boot({ cpus: 4, layer, ...options });
    const cache = arena.createCache('c', { size: 64, flags: SLAB_TYPESAFE_BY_RCU, rcuDebug: true });
    return { arena, other: secondCpu(arena), cache };
  };

  it.each(['turn', 'op'] as const)('puts each free off for a grace period, policy %s', (lockPolicy) => {
    const { arena, other, cache } = debug({ lockPolicy });
    const objects = allocMany(cache, 40);
    other.rcu.readLock();
    freeMany(cache, objects.slice(0, 20));
    cache.freeBulk(Int32Array.from(objects.slice(20)), 20);
    const more = allocMany(cache, 300);
    expect(more.filter((p) => objects.includes(p))).toEqual([]);
    expect(() => cache.free(objects[0]!), 'it is free').toThrow(SlabBugError);
    expect(() => cache.freeBulk(Int32Array.of(more[0]!, more[0]!), 2)).toThrow(SlabBugError);
    expectSound(arena);
    other.rcu.readUnlock();
    other.endTurn();
    cache.rcuBarrier();
    expect(allocMany(cache, 1500).filter((p) => objects.includes(p))).toHaveLength(40);
    expectSound(arena);
  });

  it('counts each free once, and destroy waits for them', () => {
    const { arena, other, cache } = debug();
    const objects = allocMany(cache, 100);
    arena.rcu.barrier();
    freeMany(cache, objects);
    other.openCache('c').free(other.openCache('c').alloc());
    other.endTurn();
    const { ALLOC_FASTPATH, ALLOC_SLOWPATH, FREE_FASTPATH, FREE_SLOWPATH } = cache.stats();
    cache.rcuBarrier();
    const after = cache.stats();
    if (layer !== 'percpu-array') {
      expect(FREE_FASTPATH + FREE_SLOWPATH).toBe(0);
      expect(after.FREE_FASTPATH + after.FREE_SLOWPATH).toBe(ALLOC_FASTPATH + ALLOC_SLOWPATH);
    }
    freeMany(cache, allocMany(cache, 10));
    expect(cache.destroy().leaked).toBe(0);
    expectSound(arena);
  });

  it('lets kfree_rcu wait only once', () => {
    const { arena, other, cache } = debug();
    const p = cache.alloc();
    cache.freeRcu(p);
    cache.rcuBarrier();
    other.rcu.readLock();
    expect(allocMany(cache, 300)).toContain(p);
    other.rcu.readUnlock();
    other.endTurn();
    expectSound(arena);
  });
});

describe('options', () => {
  it('that only go with the flag are refused without it, and wrong ones anyway', () => {
    const arena = boot();
    const flags = SLAB_TYPESAFE_BY_RCU;
    const refuse = (options: object, type: ErrorConstructor | typeof RangeError, message: RegExp): void =>
      expectRefused(arena, () => arena.createCache('c', { size: 64, ...options }), type as never, message);
    refuse({ rcuDebug: true }, RangeError, /rcuDebug is true; only caches with SLAB_TYPESAFE_BY_RCU/);
    refuse({ rcuDebug: 1, flags }, TypeError, /rcuDebug is 1; it must be a boolean/);
    refuse({ freeptrOffset: 8 }, RangeError, /freeptrOffset is 8; without SLAB_TYPESAFE_BY_RCU/);
    refuse({ freeptrOffset: 12, flags }, RangeError, /freeptrOffset is 12; it must be a multiple of 8/);
    refuse({ freeptrOffset: 64, flags }, RangeError, /freeptrOffset is 64/);
  });
});
