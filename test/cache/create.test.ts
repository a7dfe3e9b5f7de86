import fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import {
  type CacheOptions,
  SLAB_ACCOUNT,
  SLAB_CACHE_DMA,
  SLAB_CACHE_DMA32,
  SLAB_FAILSLAB,
  SLAB_HWCACHE_ALIGN,
  SLAB_NO_MERGE,
  SLAB_NO_USER_FLAGS,
  SLAB_NOLEAKTRACE,
  SLAB_PANIC,
  SLAB_RECLAIM_ACCOUNT,
} from '#src/index.js';
import {
  calculateSizes,
  SLAB_CTOR,
  SLAB_DTOR,
  SLAB_FLAGS_PERMITTED,
  SLAB_KMALLOC,
  SLAB_NO_SHEAVES,
} from '#src/slab/index.js';
import { allocMany, boot, expectSound, footprint, freeMany, secondCpu } from './support/arena.js';

describe('a cache', () => {
  const arena = boot({ cpus: 4 });

  it('is what its options ask for', () => {
    const cache = arena.createCache('mm_struct', {
      size: 1000,
      align: 64,
      flags: SLAB_HWCACHE_ALIGN | SLAB_PANIC,
    });
    expect(cache.name).toBe('mm_struct');
    expect(cache.objectSize).toBe(1000);
    expect(cache.size).toBe(1024);
    expect(cache.desc.align).toBe(64);
    expect(cache.desc.flags & SLAB_HWCACHE_ALIGN).toBe(SLAB_HWCACHE_ALIGN);
    expect(cache.objsPerSlab).toBe(((4096 << cache.order) / 1024) | 0);
    expect(cache.sheafCapacity).toBe(12);
    expect(arena.cacheNames()).toContain('mm_struct');
  });

  it('has the layout that a kernel of so many CPUs computes', () => {
    let n = 0;
    const options = fc.record({
      size: fc.oneof(fc.integer({ min: 1, max: 300 }), fc.integer({ min: 1, max: 100_000 })),
      align: fc.constantFrom(0, 1, 8, 16, 64, 256, 4096),
      hwcache: fc.boolean(),
    });
    fc.assert(
      fc.property(options, ({ size, align, hwcache }) => {
        const cache = arena.createCache(`layout-${n++}`, {
          size,
          align,
          flags: hwcache ? SLAB_HWCACHE_ALIGN : 0,
        });
        const layout = calculateSizes({ objectSize: size, align, hwcacheAlign: hwcache, cpus: 4 });
        const { desc } = cache;
        expect({ ...layout, cpuPartial: 0 }).toEqual({
          size: cache.size,
          redLeftPad: desc.redLeftPad,
          inuse: desc.inuse,
          offset: desc.offset,
          origSize: desc.origSize,
          align: desc.align,
          order: cache.order,
          objects: cache.objsPerSlab,
          minOrder: desc.minOrder,
          minObjects: desc.minObjects,
          minPartial: cache.minPartial,
          cpuPartial: 0,
          sheafCapacity: cache.sheafCapacity,
        });
        const p = cache.alloc();
        expect(p % layout.align).toBe(0);
        cache.free(p);
        expect(cache.destroy().leaked).toBe(0);
      }),
      { numRuns: 60 },
    );
    expectSound(arena);
  });

  it.each([
    SLAB_HWCACHE_ALIGN,
    SLAB_RECLAIM_ACCOUNT,
    SLAB_ACCOUNT,
    SLAB_PANIC,
    SLAB_NO_MERGE,
    SLAB_CACHE_DMA,
    SLAB_CACHE_DMA32,
    SLAB_FAILSLAB,
    SLAB_NO_USER_FLAGS,
    SLAB_NOLEAKTRACE,
  ])('accepts flag 0x%x and keeps it', (flags) => {
    const cache = arena.createCache(`flag-${flags}`, { size: 64, flags });
    expect(cache.desc.flags & flags).toBe(flags); // SLAB_ACCOUNT comes with a word in the object's slot
    expect(cache.destroy().leaked).toBe(0);
  });

  it('refuses every other flag, those of the allocator among them, and throws with SLAB_PANIC or without', () => {
    for (let flag = 1; flag > 0; flag <<= 1) {
      if ((flag & SLAB_FLAGS_PERMITTED) !== 0) continue;
      for (const flags of [flag, flag | SLAB_PANIC]) {
        expect(() => arena.createCache('x', { size: 64, flags }), `0x${flags.toString(16)}`).toThrow(
          RangeError,
        );
      }
    }
    expect(SLAB_FLAGS_PERMITTED & (SLAB_KMALLOC | SLAB_CTOR | SLAB_DTOR | SLAB_NO_SHEAVES)).toBe(0);
  });

  it('gets at least the sheaf capacity it asks for, and is then unmergeable', () => {
    const sizes = [1, 60, 61, 200, 3000, 4096].map((sheafCapacity) => {
      const cache = arena.createCache(`sheaf-${sheafCapacity}`, { size: 64, sheafCapacity });
      expect(cache.desc.flags & SLAB_NO_MERGE).toBe(SLAB_NO_MERGE);
      const held = allocMany(cache, sheafCapacity + 2);
      freeMany(cache, held);
      expectSound(arena);
      expect(cache.destroy().leaked).toBe(0);
      return cache.sheafCapacity;
    });
    expect(sizes).toEqual([60, 60, 61, 200, 3000, 4096]);
    expectSound(arena);
  });

  it('has a name of up to 63 bytes, in any script', () => {
    for (const name of ['x', 'n'.repeat(63), 'größe', '漢字', 'maple_node', 'dma-kmalloc-8:0']) {
      const cache = arena.createCache(name, { size: 64 });
      expect(arena.openCache(name).name).toBe(name);
      expect(arena.openCache(name) === cache).toBe(true);
      cache.destroy();
    }
  });

  it('is one and the same for every CPU', () => {
    const other = secondCpu(arena);
    const cache = arena.createCache('shared', { size: 64 });
    const theirs = other.openCache('shared');
    const p = cache.alloc();
    arena.i32[p >> 2] = 4711;
    expect(other.i32[p >> 2]).toBe(4711);
    theirs.free(p);
    arena.endTurn();
    expect(theirs.alloc()).toBe(p);
    theirs.free(p);
    other.endTurn();
    expect(cache.destroy().leaked).toBe(0);
    other.offline();
  });

  it('can be made as often as there are slots, and again after one is destroyed', () => {
    const arena = boot({ maxCaches: 20 });
    const made = Array.from({ length: 5 }, (_, i) => arena.createCache(`c${i}`, { size: 64 }));
    expect(() => arena.createCache('more', { size: 64 })).toThrow(
      'all 20 cache slots are taken; make the arena with more `maxCaches`',
    );
    made[2]!.destroy();
    expect(arena.createCache('more', { size: 8 }).desc.slot).toBe(made[2]!.desc.slot);
    expectSound(arena);
  });

  it('costs nothing that destroying it does not give back', () => {
    const arena = boot();
    const before = footprint(arena);
    const options: CacheOptions[] = [
      { size: 8 },
      { size: 5000 },
      { size: 64, sheafCapacity: 4000 },
      { size: 1 << 20 },
    ];
    for (let round = 0; round < 3; round++) {
      const caches = options.map((each, i) => arena.createCache(`round-${round}-${i}`, each));
      for (const cache of caches) freeMany(cache, allocMany(cache, 2));
      for (const cache of caches) expect(cache.destroy().leaked).toBe(0);
    }
    expect(footprint(arena)).toEqual(before);
    expectSound(arena);
  });
});
