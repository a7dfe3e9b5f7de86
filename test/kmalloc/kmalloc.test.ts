import fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import { KMALLOC_SIZES } from '#src/cache/index.js';
import {
  __GFP_ZERO,
  Arena,
  GFP_KERNEL,
  KMALLOC_MAX_CACHE_SIZE,
  KMALLOC_MAX_SIZE,
  type LockPolicy,
  SlabBugError,
  ZERO_SIZE_PTR,
} from '#src/index.js';
import { Page, PG_LARGE, virtToPage } from '#src/page/index.js';
import { boot, expectRefused, expectSound, footprint, MiB, secondCpu } from '../cache/support/arena.js';

const bucketOf = (size: number): number => KMALLOC_SIZES.find((bucket) => bucket >= size)!;
const fill = (arena: Arena, p: number, bytes: number, value: number) => arena.u8.fill(value, p, p + bytes);
const isFilled = (arena: Arena, p: number, bytes: number, value: number): boolean =>
  Buffer.from(arena.buffer, p, bytes).equals(Buffer.alloc(bytes, value));

describe('kmalloc', () => {
  const arena = boot({ bytes: 32 * MiB });

  it('serves every size up to 8 KiB from the smallest bucket that holds it', () => {
    for (let size = 1; size <= KMALLOC_MAX_CACHE_SIZE; size++) {
      const p = arena.kmalloc(size);
      if (arena.ksize(p) !== bucketOf(size))
        expect({ size, ksize: arena.ksize(p) }).toEqual({ size, ksize: bucketOf(size) });
      arena.kfree(p);
    }
    expectSound(arena);
  });

  it.each(KMALLOC_SIZES)('bucket %i: its bounds, its alignment, its name', (size) => {
    const smaller = KMALLOC_SIZES[KMALLOC_SIZES.indexOf(size) - 1] ?? 0;
    const objects = [smaller + 1, size - 1, size].filter((n) => n > smaller).map((n) => arena.kmalloc(n));
    for (const p of objects) {
      expect(arena.ksize(p)).toBe(size);
      expect(p % (size & -size)).toBe(0);
    }
    const cache = arena.openCache(size < 1024 ? `kmalloc-${size}` : `kmalloc-${size / 1024}k`);
    expect([cache.objectSize, cache.size]).toEqual([size, size]);
    for (const p of objects) arena.kfree(p);
    expectSound(arena);
  });

  it('of nothing is a pointer that is not NULL and not memory either', () => {
    const before = footprint(arena);
    expect(arena.kmalloc(0)).toBe(ZERO_SIZE_PTR);
    expect(arena.kzalloc(0)).toBe(ZERO_SIZE_PTR);
    expect(arena.ksize(ZERO_SIZE_PTR)).toBe(0);
    expect(arena.ksize(0)).toBe(0);
    arena.kfree(ZERO_SIZE_PTR);
    arena.kfree(0);
    expect(footprint(arena)).toEqual(before);
    expect(ZERO_SIZE_PTR).toBe(16);
  });

  it.each([8193, 12_288, 12_289, 16_384, 100_000, 1 << 20, (1 << 22) - 1, 1 << 22])(
    'of %i bytes is whole pages, of the smallest order',
    (size) => {
      const before = arena.meminfo().usedPages;
      const p = arena.kmalloc(size);
      const pages = 2 ** Math.ceil(Math.log2(size / 4096));
      expect(arena.meminfo().usedPages - before).toBe(pages);
      expect(p % (pages * 4096)).toBe(0);
      expect(arena.ksize(p)).toBe(pages * 4096);
      expect(arena.i32[virtToPage(arena.geometry, p) + Page.flags]! & PG_LARGE).toBe(PG_LARGE);
      expectSound(arena);
      arena.kfree(p);
      expect(arena.meminfo().usedPages).toBe(before);
      expectSound(arena);
    },
  );

  it('has a largest size', () => {
    expect(KMALLOC_MAX_SIZE).toBe(4 * MiB);
    for (const size of [
      KMALLOC_MAX_SIZE + 1,
      -1,
      0.5,
      100.5,
      Number.NaN,
      2 ** 32,
      2 ** 32 + 8,
      Number.POSITIVE_INFINITY,
    ]) {
      expectRefused(
        arena,
        () => arena.kmalloc(size),
        RangeError,
        /size is .*; it must be an integer from 0 to 4194304/,
      );
    }
    for (const size of ['8', null, undefined, {}]) {
      expectRefused(arena, () => arena.kmalloc(size as number), TypeError, /size is .*; it must be a number/);
    }
    expect(() => arena.kmalloc(8n as never)).toThrow(TypeError);
  });

  it.each([1, 8, 96, 192, 8192, 9000, 1 << 20])('kzalloc(%i) is zeroed to the end of its block', (size) => {
    const used = arena.kmalloc(size);
    const usable = arena.ksize(used);
    fill(arena, used, usable, 0xff);
    arena.kfree(used);
    const p = arena.kzalloc(size);
    expect(p).toBe(used);
    expect(isFilled(arena, p, usable, 0)).toBe(true);
    fill(arena, p, usable, 0xff);
    arena.kfree(p);
    expect(arena.kmalloc(size, GFP_KERNEL | __GFP_ZERO)).toBe(used);
    expect(isFilled(arena, p, usable, 0)).toBe(true);
    arena.kfree(used);
  });

  it('for a node comes from that node', () => {
    const arena = boot({ cpus: 2, nodes: 2 });
    for (const size of [64, 8192, 50_000]) {
      const blocks = [0, 1].map((node) => arena.kmalloc(size, GFP_KERNEL, node));
      expect(blocks[0]!).toBeLessThan(blocks[1]!);
      const half = (arena.geometry.firstPfn + arena.geometry.endPfn) / 2;
      expect(blocks.map((p) => p / 4096 >= Math.floor(half))).toEqual([false, true]);
      for (const p of blocks) arena.kfree(p);
    }
    expectSound(arena);
  });
});

describe('krealloc', () => {
  const arena = boot({ bytes: 32 * MiB });

  it('keeps the contents, whatever the way', () => {
    const size = fc.oneof(fc.integer({ min: 1, max: 300 }), fc.integer({ min: 1, max: 20_000 }));
    fc.assert(
      fc.property(fc.array(size, { minLength: 2, maxLength: 8 }), (sizes) => {
        let p = 0;
        let have = 0;
        for (const [i, next] of sizes.entries()) {
          const q = arena.krealloc(p, next);
          expect(q).not.toBe(0);
          expect(isFilled(arena, q, Math.min(have, next), i)).toBe(true);
          expect(arena.ksize(q)).toBeGreaterThanOrEqual(next);
          fill(arena, q, next, i + 1);
          p = q;
          have = next;
        }
        arena.kfree(p);
      }),
      { numRuns: 100 },
    );
    expectSound(arena);
  });

  it('stays in place when the block is large enough', () => {
    const p = arena.kmalloc(100);
    expect(arena.krealloc(p, 128)).toBe(p);
    expect(arena.krealloc(p, 1)).toBe(p);
    expect(arena.krealloc(p, 129)).not.toBe(p);
    const large = arena.kmalloc(9000);
    expect(arena.krealloc(large, 16_384)).toBe(large);
  });

  it('of nothing is kmalloc, to nothing is kfree', () => {
    const before = footprint(arena);
    const p = arena.krealloc(0, 50);
    const q = arena.krealloc(ZERO_SIZE_PTR, 50);
    expect([arena.ksize(p), arena.ksize(q)]).toEqual([64, 64]);
    expect(arena.krealloc(p, 0)).toBe(ZERO_SIZE_PTR);
    expect(arena.krealloc(q, 0)).toBe(ZERO_SIZE_PTR);
    expect(arena.krealloc(0, 0)).toBe(ZERO_SIZE_PTR);
    // Before the footprint is taken, which shrinks: then p's slab may be gone, and the report another.
    expectRefused(arena, () => arena.kfree(p), SlabBugError, /Object already free/);
    expect(footprint(arena)).toEqual(before);
  });

  it('that fails leaves the old block as it was', () => {
    const small = boot({ bytes: 4 * MiB });
    const p = small.kmalloc(8192);
    fill(small, p, 8192, 7);
    expect(small.krealloc(p, 4 * MiB)).toBe(0);
    expect(isFilled(small, p, 8192, 7)).toBe(true);
    expect(small.ksize(p)).toBe(8192);
    small.kfree(p);
    expectSound(small);
  });

  it('refuses wrong sizes and wrong blocks before it does anything', () => {
    const p = arena.kmalloc(100);
    expectRefused(arena, () => arena.krealloc(p, -1), RangeError, /size is -1/);
    expectRefused(arena, () => arena.krealloc(p, KMALLOC_MAX_SIZE + 1), RangeError, /size is 4194305/);
    expectRefused(arena, () => arena.krealloc(p + 8, 500), SlabBugError, /8 bytes into an object of 128/);
    arena.kfree(p);
    expectRefused(arena, () => arena.krealloc(p, 500), SlabBugError, /Object already free/);
  });
});

describe.each(['turn', 'op'] as LockPolicy[])('kfree, policy %s', (lockPolicy) => {
  const arena = boot({ lockPolicy, bytes: 4 * MiB });
  const cache = arena.createCache('c', { size: 300 });

  it('takes objects of any cache, as the kernel does', () => {
    const p = cache.alloc();
    arena.kfree(p);
    expect(cache.alloc()).toBe(p);
    cache.free(p);
  });

  it('takes what another CPU allocated', () => {
    const other = secondCpu(arena);
    const blocks = [10, 500, 8192, 100_000].map((size) => other.kmalloc(size));
    other.endTurn();
    for (const p of blocks) arena.kfree(p);
    other.offline();
    expectSound(arena);
  });

  it('refuses what did not come from kmalloc, and says why', () => {
    const large = arena.kmalloc(50_000);
    const page = arena.allocPages(1);
    const freed = arena.kmalloc(50_000);
    arena.kfree(freed);
    const small = arena.kmalloc(100);
    const cases: Array<[number, RegExp]> = [
      [large + 4096, /did not come from kmalloc/],
      [large + 8, /it is not the start of a block/],
      [page, /its page is free, or was allocated with allocPages/],
      [freed, /its page is free, or was allocated with allocPages/],
      [small + 16, /16 bytes into an object of 128/],
      [64, /64 is not an address of the heap/],
      [-small, /is not an address of the heap/],
      [Number.NaN, /NaN is not an address of the heap/],
      [arena.geometry.bytes, /is not an address of the heap/],
    ];
    for (const [p, message] of cases) {
      expectRefused(arena, () => arena.kfree(p), SlabBugError, message);
      if (p === page) continue;
      expectRefused(arena, () => arena.ksize(p), SlabBugError, message);
    }
    arena.kfree(large);
    arena.kfree(small);
    arena.freePages(page, 1);
    expectRefused(arena, () => arena.kfree(large), SlabBugError, /its page is free/);
    expectRefused(arena, () => arena.kfree(small), SlabBugError, /Object already free/);
    expectSound(arena);
  });

  it('kfreeBulk takes objects of different caches and large blocks in one list', () => {
    const before = footprint(arena);
    const sizes = [8, 9, 100, 192, 193, 8192, 8193, 64_000, 8];
    const list = Int32Array.from([
      ...sizes.map((size) => arena.kmalloc(size)),
      0,
      ZERO_SIZE_PTR,
      cache.alloc(),
    ]);
    arena.kfreeBulk(list, list.length);
    expect(footprint(arena)).toEqual(before);
    expectSound(arena);
  });
});

describe('the end of a 2 GiB arena', () => {
  it('is as good as its middle: the last block can be zeroed and freed', () => {
    const arena = Arena.create({ bytes: 2 ** 31, cpus: 1, check: 'none', maxCaches: 16 });
    arena.online();
    const blocks: number[] = [];
    const last = 2 ** 31 - 4 * MiB;
    for (let i = 0; i < 600 && !blocks.includes(last); i++) blocks.push(arena.kmalloc(4 * MiB));
    expect(blocks).toContain(last);
    arena.u8.fill(0xff, last, last + 64);
    arena.u8.fill(0xff, 2 ** 31 - 64, 2 ** 31);
    arena.kfree(last);
    expect(arena.kzalloc(4 * MiB)).toBe(last);
    expect(arena.u8[last]).toBe(0);
    expect(arena.u8[2 ** 31 - 1]).toBe(0);
    arena.kfree(last);
    // Two objects of 2 MiB in one slab: the second ends where the arena ends.
    const cache = arena.createCache('c', { size: 2 * MiB });
    for (const p of blocks) if (p !== last) arena.kfree(p);
    const objects: number[] = [];
    const top = 2 ** 31 - 2 * MiB;
    for (let p = cache.alloc(); p !== 0 && !objects.includes(top); p = cache.alloc()) objects.push(p);
    expect(objects).toContain(top);
    arena.u8[2 ** 31 - 1] = 0xff;
    cache.free(top);
    expect(cache.alloc(GFP_KERNEL | __GFP_ZERO)).toBe(top);
    expect(arena.u8[2 ** 31 - 1]).toBe(0);
  });
});
