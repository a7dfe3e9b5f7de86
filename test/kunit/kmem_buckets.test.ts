/** The nine tests of kmem_buckets in the kernel's slub_kunit of 7.4, with its counts of errors. */
import { describe, expect, it } from 'vitest';
import {
  __GFP_ACCOUNT,
  __GFP_DMA,
  __GFP_RECLAIMABLE,
  GFP_KERNEL,
  KMALLOC_MAX_CACHE_SIZE,
  type KmemBuckets,
} from '#src/index.js';
import { expectSound, inside } from '../cache/support/arena.js';
import { kunit } from './support.js';

const SIZES = [8, 16, 32, 64, 96, 128, 192, 256, 512, 1024, 2048, 4096, 8192];
const FLAGS = [
  GFP_KERNEL,
  GFP_KERNEL | __GFP_RECLAIMABLE,
  GFP_KERNEL | __GFP_DMA,
  GFP_KERNEL | __GFP_ACCOUNT,
];

/** Frees what the set gave and ends it: nothing may be left. */
function end(buckets: KmemBuckets, free: (p: number) => void, objects: number[]): void {
  for (const p of objects) free(p);
  expect(buckets.destroy().leaked).toBe(0);
}

describe('slub_test, kmem_buckets', () => {
  it('test_kmem_buckets_isolation: no slab has objects of the set and of kmalloc', () => {
    const { arena, errors } = kunit();
    const buckets = arena.createBuckets('isolated');
    const slabOf = (p: number): number => inside(arena).slabs.slabOf(p);
    const ours = Array.from({ length: 80 }, () => buckets.alloc(64));
    const theirs = Array.from({ length: 80 }, () => arena.kmalloc(64));
    const slabs = new Set(ours.map(slabOf));
    expect(theirs.filter((p) => slabs.has(slabOf(p)))).toEqual([]);
    for (const p of theirs) arena.kfree(p);
    end(buckets, (p) => arena.kfree(p), ours);
    expect(errors()).toBe(0);
    expectSound(arena);
  });

  it('test_kmem_buckets_sizes: each size comes from the smallest cache that has room', () => {
    const { arena, errors } = kunit();
    const buckets = arena.createBuckets('sized');
    const objects: number[] = [];
    for (const size of SIZES) {
      for (const asked of [size, Math.max(1, size - 1)]) {
        const p = buckets.alloc(asked);
        expect(inside(arena).kmallocs.cacheOf(p)!.name).toMatch(/^sized-/);
        expect(arena.ksize(p)).toBe(SIZES.find((room) => room >= asked));
        objects.push(p);
      }
    }
    end(buckets, (p) => arena.kfree(p), objects);
    expect(errors()).toBe(0);
  });

  it('test_kmem_buckets_alignment: as kmalloc, to the largest power of two in the size', () => {
    const { arena, errors } = kunit();
    const buckets = arena.createBuckets('aligned');
    const objects = SIZES.flatMap((size) => [1, 2, 3].map(() => ({ size, p: buckets.alloc(size) })));
    for (const { size, p } of objects) expect(p % Math.min(size & -size, 4096), `${size}`).toBe(0);
    end(
      buckets,
      (p) => arena.kfree(p),
      objects.map(({ p }) => p),
    );
    expect(errors()).toBe(0);
  });

  it('test_kmem_buckets_explicit_alignment: to what was asked for, whatever the size', () => {
    const { arena, errors } = kunit();
    for (const align of [16, 64, 256, 1024]) {
      const buckets = arena.createBuckets(`align-${align}`, { align });
      const objects = SIZES.flatMap((size) => [buckets.alloc(size), buckets.alloc(size)]);
      expect(objects.filter((p) => p === 0 || p % align !== 0)).toEqual([]);
      end(buckets, (p) => arena.kfree(p), objects);
    }
    expect(errors()).toBe(0);
  });

  it('test_kmem_buckets_disabled: a tiny arena, whose kernel is built without, serves them all the same', () => {
    const { arena, errors } = kunit({ tiny: true });
    const buckets = arena.createBuckets('small');
    const objects = SIZES.map((size) => buckets.alloc(size));
    expect(objects).not.toContain(0);
    end(buckets, (p) => arena.kfree(p), objects);
    expect(errors()).toBe(0);
    expectSound(arena);
  });

  it('test_kmem_buckets_destroy: with an object left, two errors, and that cache stays', () => {
    const { arena, errors, reports } = kunit();
    const buckets = arena.createBuckets('leaky');
    const p = buckets.alloc(64);
    expect(buckets.destroy()).toMatchObject({ leaked: 1, caches: [{ cache: 'leaky-64', objects: [p] }] });
    expect(errors()).toBe(2);
    expect(reports.map(({ what }) => what)).toEqual([
      'Objects remaining on __kmem_cache_shutdown()',
      'Object remaining',
    ]);
  });

  it.each([{}, { types: ['reclaimable', 'dma', 'cgroup'] as const }])(
    'test_kmem_buckets_type_fallback: flags that choose a type of kmalloc change nothing here, %o',
    (kmalloc) => {
      const { arena, errors } = kunit({ kmalloc });
      const buckets = arena.createBuckets('typed');
      const objects = FLAGS.map((gfp) => buckets.alloc(100, gfp));
      for (const p of objects) expect(inside(arena).kmallocs.cacheOf(p)!.name).toBe('typed-128');
      end(buckets, (p) => arena.kfree(p), objects);
      expect(errors()).toBe(0);
    },
  );

  it('test_kmem_buckets_covered_types: each type that an arena has covers every size', () => {
    const { arena, errors } = kunit({ kmalloc: { types: ['reclaimable', 'dma', 'cgroup'] } });
    for (const gfp of FLAGS) {
      const names = SIZES.map((size) => {
        const p = arena.kmalloc(size, gfp);
        const { name } = inside(arena).kmallocs.cacheOf(p)!;
        arena.kfree(p);
        return name;
      });
      expect(new Set(names).size, `${gfp}`).toBe(SIZES.length);
      expect(new Set(names.map((name) => name.replace(/-[0-9a-z]+$/, ''))).size, names.join(' ')).toBe(1);
    }
    expect(errors()).toBe(0);
  });

  it('test_kmem_buckets_type_alignment: and aligns as the normal one', () => {
    const { arena, errors } = kunit({ kmalloc: { types: ['reclaimable', 'dma', 'cgroup'] } });
    for (const gfp of FLAGS) {
      for (const size of SIZES) {
        const p = arena.kmalloc(size, gfp);
        expect(p % Math.min(size & -size, 4096), `${size} with ${gfp}`).toBe(0);
        expect(size).toBeLessThanOrEqual(KMALLOC_MAX_CACHE_SIZE);
        arena.kfree(p);
      }
    }
    expect(errors()).toBe(0);
    expectSound(arena);
  });
});
