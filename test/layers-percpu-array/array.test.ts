import { describe, expect, it } from 'vitest';
import { Pcs, pcsOf, STAT_ITEMS } from '#src/cpu/index.js';
import {
  __GFP_ZERO,
  GFP_ATOMIC,
  GFP_KERNEL,
  GFP_NOWAIT,
  NUMA_NO_NODE,
  OutOfMemoryError,
  SLAB_NO_MERGE,
} from '#src/index.js';
import { PercpuArray, percpuArrayBytes, SHEAF_OBJECTS, Sheaf } from '#src/sheaf/index.js';
import {
  allocMany,
  boot,
  expectRefused,
  expectSound,
  footprint,
  freeMany,
  secondCpu,
} from '../cache/support/arena.js';
import { slabAlloc } from '../slab/support.js';
import { arrayOf, counted, expectBalanced, MODES, POLICIES, setup, usedOf } from './support.js';

describe.each(MODES)('the array, policy $lockPolicy, check $check', (mode) => {
  it('fetches half when it is empty, and gives the last one first', () => {
    const { arena, cache } = setup(mode);
    let p = 0;
    expect(counted(cache, () => (p = cache.alloc()))).toMatchObject({ ALLOC_PCA: 1, PCA_REFILL: 4 });
    expect(usedOf(arena, cache)).toBe(3);
    const [, , top] = arrayOf(arena, cache);
    expect(cache.alloc()).toBe(top);
    cache.free(p);
    expect(cache.alloc()).toBe(p);
    arena.endTurn();
    expectSound(arena);
  });

  it('gives half back when it is full: the last ones', () => {
    const { arena, cache } = setup(mode);
    const held = slabAlloc(arena, cache, 9);
    freeMany(cache, held.slice(0, 8));
    expect(usedOf(arena, cache)).toBe(8);
    expect(counted(cache, () => cache.free(held[8]!))).toMatchObject({ FREE_PCA: 1, PCA_FLUSH: 4 });
    expect(usedOf(arena, cache)).toBe(5);
    expect(arrayOf(arena, cache)).toEqual([...held.slice(0, 4), held[8]]);
    expectSound(arena);
  });

  it('counts what it gives and takes, and nothing of it as a fast path', () => {
    const { arena, cache } = setup(mode, 64);
    const held = allocMany(cache, 32);
    freeMany(cache, held);
    for (let i = 0; i < 1000; i++) cache.free(cache.alloc());
    arena.endTurn();
    expect(cache.layerStats()).toEqual({ ALLOC_PCA: 1032, FREE_PCA: 1032, PCA_REFILL: 32, PCA_FLUSH: 0 });
    expect(cache.stats()).toMatchObject({ ALLOC_FASTPATH: 0, FREE_FASTPATH: 0, SHEAF_REFILL: 0 });
    expect(Object.keys(cache.stats())).toEqual([...STAT_ITEMS]);
  });

  it('leaves callers that may not wait to the slabs when it is empty', () => {
    const { arena, cache } = setup(mode);
    for (const gfp of [GFP_NOWAIT, GFP_ATOMIC]) {
      const moves = counted(cache, () => expect(cache.alloc(gfp)).not.toBe(0));
      expect(moves).toMatchObject({ ALLOC_SLOWPATH: 1 });
      expect(moves).not.toHaveProperty('PCA_REFILL');
    }
    cache.prefillArray(3);
    expect(counted(cache, () => cache.alloc(GFP_NOWAIT))).toEqual({ ALLOC_PCA: 1 });
    expect(usedOf(arena, cache)).toBe(2);
    expectSound(arena);
  });

  it('zeroes what was in it when asked', () => {
    const { arena, cache } = setup(mode);
    const p = cache.alloc();
    arena.u8.fill(0xff, p, p + 256);
    cache.free(p);
    expect(cache.alloc(GFP_KERNEL | __GFP_ZERO)).toBe(p);
    expect(arena.u8.subarray(p, p + 256).some((byte) => byte !== 0)).toBe(false);
  });

  it('serves bulk calls with what it has and has room for', () => {
    const { arena, cache } = setup(mode);
    cache.prefillArray(6);
    const out = new Int32Array(20);
    const alloc = counted(cache, () => expect(cache.allocBulk(out, 20)).toBe(true));
    expect(alloc).toMatchObject({ ALLOC_PCA: 6, ALLOC_SLOWPATH: 14 });
    expect(alloc).not.toHaveProperty('PCA_REFILL');
    expect(new Set(out).size).toBe(20);
    expect(usedOf(arena, cache)).toBe(0);
    const free = counted(cache, () => cache.freeBulk(out, 20));
    expect(free).toMatchObject({ FREE_PCA: 8, FREE_SLOWPATH: 12 });
    expect(free).not.toHaveProperty('PCA_FLUSH');
    expect(usedOf(arena, cache)).toBe(8);
    expectBalanced(cache, 0);
    expectSound(arena);
  });

  it('is prefilled to what was asked for, and no further', () => {
    const { arena, cache } = setup(mode, 100);
    expect(counted(cache, () => expect(cache.prefillArray(70)).toBe(true))).toMatchObject({ PCA_REFILL: 70 });
    expect(usedOf(arena, cache)).toBe(70);
    expect(counted(cache, () => expect(cache.prefillArray(70)).toBe(true))).toEqual({});
    expect(cache.prefillArray(0)).toBe(true);
    allocMany(cache, 10);
    expect(counted(cache, () => cache.prefillArray(100))).toMatchObject({ PCA_REFILL: 40 });
    expectRefused(arena, () => cache.prefillArray(101), RangeError, /count is 101; .* from 0 to 100/);
    arena.failPageAlloc(1);
    allocMany(cache, 100);
    expect(cache.prefillArray(100)).toBe(false);
    arena.failPageAlloc(0);
    arena.endTurn();
    expectSound(arena);
  });

  it('works with room for one object', () => {
    const { arena, cache } = setup(mode, 1);
    const held = allocMany(cache, 10);
    freeMany(cache, held);
    expect(usedOf(arena, cache)).toBe(1);
    expectBalanced(cache, 0);
    expectSound(arena);
  });

  it('passes requests for a node by', () => {
    const { arena, cache } = setup({ ...mode, nodes: 2 });
    cache.prefillArray(4);
    expect(counted(cache, () => cache.allocNode(0))).toMatchObject({ ALLOC_SLOWPATH: 1 });
    expect(counted(cache, () => cache.allocNode(1))).toMatchObject({ ALLOC_SLOWPATH: 1 });
    expect(usedOf(arena, cache)).toBe(4);
    expect(counted(cache, () => cache.allocNode(NUMA_NO_NODE))).toEqual({ ALLOC_PCA: 1 });
    expectSound(arena);
  });

  it.skipIf(mode.check === 'none')(
    'refuses what is no allocated object, in bulk with nothing changed',
    () => {
      const { arena, cache } = setup(mode);
      const held = allocMany(cache, 3);
      cache.free(held[2]!);
      arena.endTurn();
      expectRefused(arena, () => cache.free(held[2]!), Error, /already free/);
      expectRefused(arena, () => cache.free(held[0]! + 8), Error, /8 bytes into/);
      const list = Int32Array.of(held[0]!, held[1]!, held[2]!);
      expectRefused(arena, () => cache.freeBulk(list, 3), Error, /already free/);
      cache.freeBulk(list, 2);
      expect(usedOf(arena, cache)).toBe(4);
    },
  );
});

describe('the size of the array', () => {
  it('is what two sheaves would hold, or what was asked for', () => {
    const arena = boot({ layer: 'percpu-array' });
    const info = () => arena.cacheInfo().find(({ name }) => name === 'c')!;
    for (const [size, expected] of [
      [64, 120],
      [300, 56],
      [1024, 24],
      [4096, 8],
    ] as const) {
      const cache = arena.createCache('c', { size });
      expect(info()).toMatchObject({ layer: 'percpu-array', array_size: expected, sheaf_capacity: 0 });
      expect(info().layer_stats).toEqual({ ALLOC_PCA: 0, FREE_PCA: 0, PCA_REFILL: 0, PCA_FLUSH: 0 });
      cache.destroy();
    }
    arena.createCache('c', { size: 64, arraySize: 16384 });
    expect(info().array_size).toBe(16384);
    expectSound(arena);
  });

  it.each([
    [0, RangeError, /arraySize is 0; .* from 1 to 16384/],
    [16385, RangeError, /arraySize is 16385/],
    [1.5, RangeError, /arraySize is 1.5/],
    ['8', TypeError, /arraySize is "8"/],
  ])('is not %s', (arraySize, type, message) => {
    const arena = boot({ layer: 'percpu-array' });
    const options = { size: 64, arraySize: arraySize as number };
    expectRefused(arena, () => arena.createCache('c', options), type as typeof RangeError, message);
  });

  it('is refused for other layers', () => {
    const arena = boot();
    const make = (layer?: 'none') =>
      arena.createCache('c', { size: 64, arraySize: 8, ...(layer && { layer }) });
    expectRefused(arena, () => make(), RangeError, /arraySize is 8; only the layer 'percpu-array'/);
    expectRefused(arena, () => make('none'), RangeError, /this cache's is 'none'/);
  });

  it('comes in whole cache lines, a header like a sheaf first', () => {
    expect([1, 12, 13, 120].map(percpuArrayBytes)).toEqual([64, 64, 128, 512]);
    expect([PercpuArray.used, PercpuArray.SIZEOF]).toEqual([Sheaf.size, SHEAF_OBJECTS]);
  });
});

describe.each(POLICIES)('setupPercpuArray, policy %s', (lockPolicy) => {
  const none = () => {
    const arena = boot({ lockPolicy });
    return { arena, cache: arena.createCache('c', { size: 64, layer: 'none', flags: SLAB_NO_MERGE }) };
  };

  it('puts an array in front of a cache that is in use', () => {
    const { arena, cache } = none();
    const held = allocMany(cache, 20);
    const other = secondCpu(arena);
    const theirs = other.openCache('c');
    const late = allocMany(theirs, 5);
    const mine = cache.setupPercpuArray(16);
    expect([mine.layer, cache.layer]).toEqual(['percpu-array', 'none']);
    expect(arena.openCache('c')).toBe(mine);
    freeMany(mine, held);
    expect(usedOf(arena, mine)).toBe(12);
    // Handles from before go to the slabs, until the cache is opened again.
    freeMany(theirs, late);
    other.endTurn();
    expect(arrayOf(arena, mine, 1)).toEqual([]);
    const again = other.openCache('c');
    expect(again.layer).toBe('percpu-array');
    freeMany(again, allocMany(again, 3));
    other.endTurn();
    expect(arrayOf(arena, mine, 1)).toHaveLength(8);
    expectSound(arena);
    other.offline();
    // An old handle ends the whole cache.
    expect(cache.destroy()).toEqual({ cache: 'c', leaked: 0, objects: [] });
    expect(() => mine.alloc()).toThrow(/destroyed/);
  });

  it('is -EINVAL for a cache that has one, may merge, has another layer, or is the arena’s own', () => {
    const { arena, cache } = none();
    const refused = (name: string, why: RegExp) =>
      expectRefused(arena, () => arena.openCache(name).setupPercpuArray(8), RangeError, why);
    cache.setupPercpuArray(8);
    refused('c', /cache c cannot get a percpu array: it has one already/);
    arena.createCache('merges', { size: 64, layer: 'none' });
    refused('merges', /made without SLAB_NO_MERGE/);
    arena.createCache('sheaves', { size: 64, flags: SLAB_NO_MERGE });
    refused('sheaves', /its layer is 'sheaves', and it must be 'none'/);
    refused('kmalloc-64', /one of the arena's own/);
    refused('kmem_cache', /one of the arena's own/);
    expectRefused(arena, () => cache.setupPercpuArray(0), RangeError, /count is 0/);
    expectRefused(
      arena,
      () => arena.openCache('sheaves').prefillArray(1),
      RangeError,
      /'sheaves' and no array/,
    );
  });

  it('is -ENOMEM when an array does not fit, and leaves the cache as it was', () => {
    const { arena, cache } = none();
    const before = footprint(arena);
    arena.failPageAlloc(2);
    expect(() => cache.setupPercpuArray(16384)).toThrow(OutOfMemoryError);
    arena.failPageAlloc(0);
    expect(cache.layer).toBe('none');
    expect(arena.openCache('c')).toBe(cache);
    for (let cpu = 0; cpu < 2; cpu++) {
      expect(arena.i32[pcsOf(arena.geometry, cpu, cache.desc.slot) + Pcs.main]).toBe(0);
    }
    expect(footprint(arena)).toEqual(before);
    expectSound(arena);
  });
});
