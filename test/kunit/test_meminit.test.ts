/**
 * The kernel's test_meminit, lib/tests/test_meminit.c: what is zero when it is handed out, and what must not be touched.
 */
import { describe, expect, it } from 'vitest';
import type { KmemCache } from '#src/cache/index.js';
import { __GFP_ZERO, type Arena, type DefinedCache, defineCache, GFP_KERNEL } from '#src/index.js';
import { SLAB_TYPESAFE_BY_RCU } from '#src/slab/index.js';
import { boot, expectSound } from '../cache/support/arena.js';

const SIZES = Array.from({ length: 10 }, (_, i) => 8 << i);
const ROUNDS = 10;
const LONG = process.env.GRANARY_LONG !== undefined;
const BULK_ROUNDS = LONG ? 1024 : 64;

const MODES = [
  ['init_on_alloc', { initOnAlloc: true }],
  ['init_on_free', { initOnFree: true }],
  ['both', { initOnAlloc: true, initOnFree: true }],
] as const;

function isZero({ u8 }: Arena, p: number, size: number): boolean {
  for (let at = p; at < p + size; at++) if (u8[at] !== 0) return false;
  return true;
}

/** Kernel: `fill_with_garbage`. */
const fillWithGarbage = (arena: Arena, p: number, size: number): void => {
  arena.u8.fill(0xa5, p, p + size);
};

/** A cache whose objects keep their contents over a free. */
const rcuCache = (arena: Arena, size: number): KmemCache =>
  arena.createCache(`meminit_rcu_${size}`, { size, flags: SLAB_TYPESAFE_BY_RCU });

/** Kernel: CTOR_BYTES, what `test_ctor` writes. */
const CTOR_BYTES = 0x41414141;
let definitions = 0;

/** A cache whose constructor writes the first word. */
const constructed = (size: number, flags = 0): DefinedCache =>
  defineCache(`meminit_ctor_${size}_${definitions++}`, {
    size,
    flags,
    ctor: (p, arena: Arena) => {
      arena.u32[p >> 2] = CTOR_BYTES;
    },
  });

/** Kernel: `do_kmem_cache_size`. */
function roundsOf(arena: Arena, cache: KmemCache, size: number, gfp: number): number {
  let failures = 0;
  for (let round = 0; round < ROUNDS; round++) {
    const p = cache.alloc(gfp);
    if (!isZero(arena, p, size)) failures++;
    fillWithGarbage(arena, p, size);
    cache.free(p);
  }
  return failures;
}

describe.each(['turn', 'op'] as const)('test_meminit, %s', (lockPolicy) => {
  it.each(MODES)('test_kmemcache: objects are zero, %s', (_name, init) => {
    const arena = boot({ lockPolicy, ...init });
    for (const size of SIZES) {
      const cache = arena.createCache(`meminit_${size}`, { size });
      expect(roundsOf(arena, cache, size, GFP_KERNEL), `${size}`).toBe(0);
      expect(roundsOf(arena, cache, size, GFP_KERNEL | __GFP_ZERO), `${size} __GFP_ZERO`).toBe(0);
      expect(cache.destroy().leaked).toBe(0);
    }
    expectSound(arena);
  });

  it('test_kmemcache: with __GFP_ZERO they are in any arena', () => {
    const arena = boot({ lockPolicy });
    for (const size of SIZES) {
      const cache = arena.createCache(`meminit_${size}`, { size });
      expect(roundsOf(arena, cache, size, GFP_KERNEL | __GFP_ZERO), `${size}`).toBe(0);
      expect(roundsOf(arena, cache, size, GFP_KERNEL), `${size}: nobody asked`).toBeGreaterThan(0);
    }
  });

  it.each(MODES)('test_kmemcache: SLAB_TYPESAFE_BY_RCU keeps what was there, %s', (_name, init) => {
    const arena = boot({ lockPolicy, ...init });
    for (const size of SIZES) {
      const cache = rcuCache(arena, size);
      arena.rcu.readLock();
      const p = cache.alloc();
      fillWithGarbage(arena, p, size);
      cache.free(p);
      expect(
        arena.u8.subarray(p, p + size).every((byte) => byte === 0xa5),
        `${size}`,
      ).toBe(true);
      arena.rcu.readUnlock();
      const zeroed = cache.alloc(GFP_KERNEL | __GFP_ZERO);
      expect(isZero(arena, zeroed, size), `${size} __GFP_ZERO`).toBe(true);
      cache.free(zeroed);
    }
  });

  it.each(MODES)('test_kmemcache: what a constructor wrote stays, %s', (_name, init) => {
    const arena = boot({ lockPolicy, ...init });
    for (const size of SIZES) {
      const cache = arena.createCache(constructed(size));
      for (let round = 0; round < ROUNDS; round++) {
        const p = cache.alloc();
        expect(arena.u32[p >> 2], `${size}`).toBe(CTOR_BYTES);
        fillWithGarbage(arena, p + 4, size - 4);
        cache.free(p);
        expect(arena.u32[p >> 2], `${size}, freed`).toBe(CTOR_BYTES);
      }
      // The kernel leaves ctor with __GFP_ZERO out; here it is refused, and nothing is lost by it.
      expect(() => cache.alloc(GFP_KERNEL | __GFP_ZERO)).toThrow(RangeError);
      expect(cache.destroy().leaked).toBe(0);
    }
    expectSound(arena);
  });

  it.each(MODES)('do_kmem_cache_size_bulk: of constructed objects, %s', (_name, init) => {
    const arena = boot({ lockPolicy, ...init });
    const objects = new Int32Array(10);
    for (const size of SIZES) {
      const cache = arena.createCache(constructed(size, SLAB_TYPESAFE_BY_RCU));
      for (let round = 0; round < 8; round++) {
        expect(cache.allocBulk(objects, 10)).toBe(true);
        for (const p of objects) {
          expect(arena.u32[p >> 2], `${size}`).toBe(CTOR_BYTES);
          fillWithGarbage(arena, p + 4, size - 4);
        }
        cache.freeBulk(objects, 10);
      }
      expect(cache.destroy().leaked).toBe(0);
    }
    expectSound(arena);
  });

  it.each(MODES)('do_kmem_cache_rcu_persistent: also over the next allocation, %s', (_name, init) => {
    const arena = boot({ lockPolicy, ...init });
    for (const size of SIZES) {
      const cache = rcuCache(arena, size);
      const p = cache.alloc();
      for (let i = 0; i < size; i++) arena.u8[p + i] = i * 7;
      const contents = arena.u8.slice(p, p + size);
      cache.free(p);
      const others: number[] = [];
      let again = 0;
      for (let tries = 0; tries < 1024 && again !== p; tries++) {
        again = cache.alloc();
        if (again !== p) others.push(again);
      }
      expect(again, `${size}: never came back`).toBe(p);
      expect(arena.u8.slice(p, p + size)).toEqual(contents);
      for (const q of [again, ...others]) cache.free(q);
    }
  });

  it.each(MODES)('do_kmem_cache_size_bulk: ten objects at a time, %s', (_name, init) => {
    const arena = boot({ lockPolicy, ...init });
    const objects = new Int32Array(10);
    for (const size of SIZES) {
      const cache = arena.createCache(`meminit_bulk_${size}`, { size });
      let failures = 0;
      for (let round = 0; round < BULK_ROUNDS; round++) {
        expect(cache.allocBulk(objects, 10)).toBe(true);
        for (const p of objects) {
          if (!isZero(arena, p, size)) failures++;
          fillWithGarbage(arena, p, size);
        }
        cache.freeBulk(objects, 10);
      }
      expect(failures, `${size}`).toBe(0);
    }
    expectSound(arena);
  });
});

describe('test_meminit', () => {
  it.each(MODES)('test_kvmalloc: kmalloc of 1 to 2^19 bytes, %s', (_name, init) => {
    const arena = boot(init);
    for (let size = 1; size <= 1 << 19; size *= 2) {
      for (let round = 0; round < 3; round++) {
        const p = arena.kmalloc(size);
        expect(isZero(arena, p, size), `${size}`).toBe(true);
        fillWithGarbage(arena, p, size);
        if (round === 1) arena.kfreeRcu(p);
        else arena.kfree(p);
      }
      arena.kfreeRcuBarrier();
    }
    expectSound(arena);
  });

  it.each(MODES)('test_pages: blocks of order 0 to 9, %s', (_name, init) => {
    const arena = boot(init);
    for (let order = 0; order < 10; order++) {
      const first = arena.allocPages(order);
      fillWithGarbage(arena, first, 4096 << order);
      arena.freePages(first, order);
      if ('initOnFree' in init) expect(isZero(arena, first, 4096 << order), `${order} freed`).toBe(true);
      const again = arena.allocPages(order);
      expect(isZero(arena, again, 4096 << order), `${order}`).toBe(true);
      arena.freePages(again, order);
    }
  });
});

describe('what is zeroed', () => {
  it('is every way to an object: of a node, from a prefilled sheaf, in a restricted context', () => {
    const arena = boot({ initOnAlloc: true });
    const cache = arena.createCache('ways', { size: 48 });
    const ways = [
      () => cache.allocNode(0),
      () => {
        const sheaf = cache.prefill(2)!;
        const p = sheaf.alloc();
        cache.return(sheaf);
        return p;
      },
    ];
    for (let round = 0; round < 3; round++) {
      for (const way of ways) {
        const p = way();
        expect(isZero(arena, p, 48)).toBe(true);
        fillWithGarbage(arena, p, 48);
        cache.free(p);
      }
      const p = arena.kmallocNolock(64);
      expect(isZero(arena, p, 64)).toBe(true);
      fillWithGarbage(arena, p, 64);
      arena.kfreeNolock(p);
    }
  });

  it('is nothing of a poisoned cache, whose pattern it would destroy', () => {
    const arena = boot({ initOnAlloc: true, initOnFree: true, slabDebug: 'FP,poisoned' });
    const cache = arena.createCache('poisoned', { size: 32 });
    const p = cache.alloc();
    expect(Array.from(arena.u8.subarray(p, p + 32))).toEqual([...Array(31).fill(0x6b), 0xa5]);
    cache.free(p);
    expect(cache.debug.validate()).toEqual({ slabs: 1, errors: 0 });
    const zeroed = cache.alloc(GFP_KERNEL | __GFP_ZERO);
    expect(isZero(arena, zeroed, 32)).toBe(true);
  });

  it('is no object whose free is refused', () => {
    const arena = boot({ initOnFree: true });
    const cache = arena.createCache('c', { size: 64 });
    const p = cache.alloc();
    fillWithGarbage(arena, p, 64);
    expect(() => cache.free(p + 8)).toThrow(/Invalid object pointer/);
    expect(() => cache.freeBulk(Int32Array.of(p, p + 8), 2)).toThrow(/Invalid object pointer/);
    expect(arena.u8.subarray(p, p + 64).every((byte) => byte === 0xa5)).toBe(true);
    cache.free(p);
    expect(isZero(arena, p, 64)).toBe(true);
  });
});
