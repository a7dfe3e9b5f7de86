/** Private sets of kmalloc caches. */
import { describe, expect, it } from 'vitest';
import { KMALLOC_SIZES } from '#src/cache/index.js';
import {
  __GFP_ACCOUNT,
  __GFP_ZERO,
  GFP_KERNEL,
  OutOfMemoryError,
  SLAB_ACCOUNT,
  SLAB_NO_MERGE,
  SlabBugError,
  ZERO_SIZE_PTR,
} from '#src/index.js';
import { LAYERS } from '#src/struct/index.js';
import { boot, expectSound, footprint, inside, MiB, secondCpu } from '../cache/support/arena.js';

const nameOf = (size: number): string => (size < 1024 ? `${size}` : `${size / 1024}k`);

describe.each(LAYERS)('a private set of kmalloc caches, layer %s', (layer) => {
  it('has every size, aligned as kmalloc is, in caches of its own', () => {
    const arena = boot({ layer, bytes: 16 * MiB, kmalloc: { types: ['cgroup'] } });
    const names = arena.cacheNames();
    const set = arena.createBuckets('msg', { flags: SLAB_ACCOUNT });
    expect(set.caches.map(({ name }) => name)).toEqual(KMALLOC_SIZES.map((size) => `msg-${nameOf(size)}`));
    expect(arena.cacheNames().slice(names.length)).toEqual(set.caches.map(({ name }) => name));
    const { kmallocs } = inside(arena);
    for (let size = 1; size <= 8192; size += size < 300 ? 1 : 97) {
      const bucket = KMALLOC_SIZES.find((each) => each >= size)!;
      const p = set.alloc(size, GFP_KERNEL | (size % 2 === 0 ? __GFP_ACCOUNT | __GFP_ZERO : 0));
      // Behind an accounted object lies its group, so that one of two pages is aligned to one.
      const alignment = Math.min(bucket & -bucket, 4096);
      expect([kmallocs.cacheOf(p)!.name, p % alignment]).toEqual([`msg-${nameOf(bucket)}`, 0]);
      if (size % 2 === 0) expect(arena.u8.subarray(p, p + bucket).every((byte) => byte === 0)).toBe(true);
      arena.u8.fill(0xff, p, p + bucket);
      if (size % 3 === 0) arena.kfreeSensitive(p);
      else arena.kfree(p);
    }
    for (const { desc } of set.caches) {
      expect(desc.flags & (SLAB_NO_MERGE | SLAB_ACCOUNT)).toBe(SLAB_NO_MERGE | SLAB_ACCOUNT);
      expect(desc.layer).toBe(layer);
    }
    expect(set.destroy()).toEqual({ buckets: 'msg', leaked: 0, caches: [] });
    expect(arena.cacheNames()).toEqual(names);
    expectSound(arena);
  });
});

describe('a private set', () => {
  it('shares no slab with kmalloc, and gives whole pages above 8 KiB', () => {
    const arena = boot();
    const set = arena.createBuckets('msg');
    const page = (p: number): number => p >> 12;
    const mine = new Set(Array.from({ length: 300 }, () => page(set.alloc(64))));
    const others = Array.from({ length: 300 }, () => page(arena.kmalloc(64)));
    expect(others.filter((each) => mine.has(each))).toEqual([]);
    const large = set.alloc(9000);
    expect(arena.ksize(large)).toBe(16_384);
    arena.kfree(large);
    expect(set.alloc(0)).toBe(ZERO_SIZE_PTR);
    expect(() => set.alloc(-1)).toThrow(/size is -1/);
  });

  it('is opened by name in another thread, whose objects it takes', () => {
    const arena = boot();
    const set = arena.createBuckets('msg');
    const other = secondCpu(arena);
    const objects = Array.from({ length: 100 }, (_, i) => other.openBuckets('msg').alloc(i + 1));
    other.endTurn();
    for (const p of objects) arena.kfree(p);
    expect(() => other.openBuckets('none')).toThrow(/no cache is named "none-8"/);
    other.endTurn();
    expect(set.destroy().leaked).toBe(0);
    expect(() => other.openBuckets('msg')).toThrow(/no cache is named "msg-8"/);
    expect(() => set.alloc(5)).toThrow(SlabBugError);
    expect(() => set.destroy()).toThrow(SlabBugError);
    other.offline();
    expectSound(arena);
  });

  it('names each object that was not freed when it is destroyed', () => {
    const arena = boot();
    const set = arena.createBuckets('msg');
    const [a, b, c] = [set.alloc(10), set.alloc(16), set.alloc(2000)] as [number, number, number];
    arena.kfree(set.alloc(500));
    expect(set.destroy()).toEqual({
      buckets: 'msg',
      leaked: 3,
      caches: [
        { cache: 'msg-16', leaked: 2, objects: [a, b].sort((x, y) => x - y) },
        { cache: 'msg-2k', leaked: 1, objects: [c] },
      ],
    });
    expectSound(arena);
  });

  it('is made whole or not at all', () => {
    const arena = boot({ maxCaches: 40 });
    const before = footprint(arena);
    const names = arena.cacheNames();
    const taken = arena.createCache('msg-1k', { size: 100 });
    expect(() => arena.createBuckets('msg')).toThrow(/name is "msg-1k"; a cache of that name exists/);
    taken.destroy();
    arena.createBuckets('one');
    expect(() => arena.createBuckets('two')).toThrow(/all 40 cache slots are taken/);
    arena.openBuckets('one').destroy();
    expect(() => arena.createBuckets('a name')).toThrow(/free of white space/);
    expect(() => arena.createBuckets('x'.repeat(61))).toThrow(/1 to 63 bytes/);
    expect(() => arena.createBuckets('x', { align: 24 })).toThrow(/align is 24/);
    expect(() => arena.createBuckets('x', { flags: 1 << 30 })).toThrow(/flags is/);
    expect(() => arena.createBuckets(5 as never)).toThrow(TypeError);
    expect(() => arena.createBuckets('x', null as never)).toThrow(TypeError);
    const held: number[] = [];
    for (let p = arena.allocPages(0); p !== 0; p = arena.allocPages(0)) held.push(p);
    expect(() => arena.createBuckets('x')).toThrow(OutOfMemoryError);
    for (const p of held) arena.freePages(p, 0);
    expect(arena.cacheNames()).toEqual(names);
    expect(footprint(arena)).toEqual(before);
    expectSound(arena);
  });

  it('takes a larger alignment', () => {
    const arena = boot();
    const set = arena.createBuckets('lines', { align: 64 });
    for (const size of [1, 64, 96, 100, 1000]) expect(set.alloc(size) % 64).toBe(0);
    expect(set.caches[0]!.size).toBe(64);
  });
});
