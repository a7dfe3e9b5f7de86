/** The types of kmalloc caches and the copies of the normal ones: which an arena has, and which serves a call. */
import { describe, expect, it } from 'vitest';
import { KMALLOC_SIZES } from '#src/cache/index.js';
import {
  __GFP_ACCOUNT,
  __GFP_DMA,
  __GFP_RECLAIMABLE,
  __GFP_ZERO,
  type Arena,
  type ArenaOptions,
  GFP_KERNEL,
  type KmallocOptions,
  SLAB_ACCOUNT,
  SLAB_CACHE_DMA,
  SLAB_NO_MERGE,
  SLAB_RECLAIM_ACCOUNT,
} from '#src/index.js';
import { planArena } from '#src/plan.js';
import { LAYERS } from '#src/struct/index.js';
import { boot, expectSound, footprint, inside, MiB, secondCpu } from '../cache/support/arena.js';

const ALL = ['dma', 'reclaimable', 'cgroup'] as const;
const NORMAL = KMALLOC_SIZES.map((size) => (size < 1024 ? `${size}` : `${size / 1024}k`));
const bootKmalloc = (kmalloc: KmallocOptions, options: Partial<ArenaOptions> = {}): Arena =>
  boot({ bytes: 16 * MiB, kmalloc, ...options });

/** The name of the cache that gives `size` bytes, without the size. */
function familyOf(arena: Arena, gfp: number, size = 100): string {
  const p = arena.kmalloc(size, gfp);
  const { name } = inside(arena).kmallocs.cacheOf(p)!;
  arena.kfree(p);
  return name.slice(0, name.lastIndexOf('-') + 1);
}

describe('types of kmalloc caches', () => {
  it('are the normal one alone by default, whatever the flags', () => {
    const arena = boot();
    expect(arena.cacheNames().filter((name) => name.includes('kmalloc'))).toEqual(
      NORMAL.map((size) => `kmalloc-${size}`),
    );
    for (const gfp of [0, __GFP_RECLAIMABLE, __GFP_DMA, __GFP_ACCOUNT])
      expect(familyOf(arena, GFP_KERNEL | gfp)).toBe('kmalloc-');
  });

  it.each(LAYERS)('have 13 caches each, with the flags of their type, layer %s', (layer) => {
    const arena = bootKmalloc({ types: ALL }, { layer });
    const wanted: Array<[string, number]> = [
      ['kmalloc-', SLAB_NO_MERGE],
      ['dma-kmalloc-', SLAB_CACHE_DMA],
      ['kmalloc-rcl-', SLAB_RECLAIM_ACCOUNT],
      ['kmalloc-cg-', SLAB_ACCOUNT],
    ];
    const all = SLAB_NO_MERGE | SLAB_CACHE_DMA | SLAB_RECLAIM_ACCOUNT | SLAB_ACCOUNT;
    for (const [prefix, flags] of wanted) {
      for (const size of NORMAL) {
        const cache = arena.openCache(prefix + size);
        expect([prefix, cache.desc.flags & all]).toEqual([prefix, flags]);
        expect(cache.layer).toBe(layer);
        expect(() => cache.destroy()).toThrow(/one of the arena's own caches/);
      }
    }
    expect(arena.cacheNames().length).toBe(2 + 13 * 4);
    expectSound(arena);
  });

  it('are chosen in the order DMA, reclaimable, accounted, and not at all when absent', () => {
    const flags: Record<string, number> = { D: __GFP_DMA, R: __GFP_RECLAIMABLE, A: __GFP_ACCOUNT };
    const chosen = (types: KmallocOptions['types']): Record<string, string> => {
      const arena = bootKmalloc({ types: types! });
      const of = (letters: string): string =>
        familyOf(
          arena,
          [...letters].reduce((gfp, letter) => gfp | flags[letter]!, GFP_KERNEL),
        );
      return Object.fromEntries(['', 'D', 'R', 'A', 'DR', 'DA', 'RA', 'DRA'].map((key) => [key, of(key)]));
    };
    const [n, d, r, a] = ['kmalloc-', 'dma-kmalloc-', 'kmalloc-rcl-', 'kmalloc-cg-'];
    expect(chosen(ALL)).toEqual({ '': n, D: d, R: r, A: a, DR: d, DA: d, RA: r, DRA: d });
    expect(chosen(['cgroup', 'reclaimable'])).toEqual({
      '': n,
      D: n,
      R: r,
      A: a,
      DR: r,
      DA: a,
      RA: r,
      DRA: r,
    });
    expect(chosen(['dma'])).toEqual({ '': n, D: d, R: n, A: n, DR: d, DA: d, RA: n, DRA: d });
  });

  it('serve every size, zeroed, by node, resized and in restricted contexts', () => {
    const arena = bootKmalloc({ types: ALL }, { nodes: 2 });
    const before = footprint(arena);
    const gfp = GFP_KERNEL | __GFP_ACCOUNT;
    const { kmallocs } = inside(arena);
    for (const size of [1, 8, 96, 100, 192, 193, 5000, 8192]) {
      const bucket = KMALLOC_SIZES.find((each) => each >= size)!;
      for (const node of [0, 1]) {
        const p = arena.kmalloc(size, gfp | __GFP_ZERO, node);
        const cache = kmallocs.cacheOf(p)!;
        expect([cache.name.startsWith('kmalloc-cg-'), cache.objectSize]).toEqual([true, bucket]);
        expect(arena.u8.subarray(p, p + bucket).every((byte) => byte === 0)).toBe(true);
        arena.kfree(p);
      }
    }
    const large = arena.kmalloc(9000, gfp | __GFP_DMA);
    expect(arena.ksize(large)).toBe(12_288 + 4096);
    const p = arena.kmalloc(10, gfp);
    const q = arena.krealloc(p, 1000, GFP_KERNEL | __GFP_RECLAIMABLE);
    expect(kmallocs.cacheOf(q)!.name).toBe('kmalloc-rcl-1k');
    const nolock = arena.kmallocNolock(30, __GFP_ACCOUNT);
    expect(kmallocs.cacheOf(nolock)!.name).toBe('kmalloc-cg-32');
    for (const each of [large, q, nolock]) arena.kfree(each);
    expect(footprint(arena)).toEqual(before);
    expectSound(arena);
  });

  it('lie where every thread finds them', () => {
    const arena = bootKmalloc({ types: ['cgroup'], copies: 2 });
    const other = secondCpu(arena);
    const p = arena.kmalloc(100, GFP_KERNEL | __GFP_ACCOUNT);
    other.kfree(p);
    expect(familyOf(other, GFP_KERNEL | __GFP_ACCOUNT)).toBe('kmalloc-cg-');
    other.offline();
    expectSound(arena);
  });

  it('have sheaves of normal memory, whatever they hold', () => {
    const arena = bootKmalloc({ types: ALL });
    const small = arena.openCache('kmalloc-cg-64');
    const held = Array.from({ length: 500 }, () => arena.kmalloc(64, GFP_KERNEL | __GFP_ACCOUNT));
    for (const p of held) arena.kfree(p);
    expect(small.stat('SHEAF_ALLOC')).toBeGreaterThan(2);
    const others = arena.cacheInfo().filter(({ name }) => /^kmalloc-(cg|rcl)-|^dma-/.test(name));
    expect(others.filter(({ objects }) => objects > 0).map(({ name }) => name)).toEqual(['kmalloc-cg-64']);
  });

  it('cost caches, of which there must be enough', () => {
    expect(planArena({ bytes: 64 * MiB, kmalloc: { types: ALL, copies: 15 } }).maxCaches).toBe(254);
    expect(planArena({ bytes: 64 * MiB, kmalloc: { copies: 11 } }).maxCaches).toBe(208);
    expect(() => planArena({ bytes: 64 * MiB, maxCaches: 54, kmalloc: { types: ALL } })).toThrow(
      /maxCaches is 54; it must be an integer from 55 to 254/,
    );
    const arena = bootKmalloc({ types: ALL, copies: 15 }, { bytes: 64 * MiB });
    expect(arena.cacheNames().length).toBe(2 + 13 * 19);
    expectSound(arena);
  });

  it.each(LAYERS)('fit into the smallest arena that is not refused, layer %s', (layer) => {
    for (const kmalloc of [
      { types: ALL, copies: 15 },
      { requestedSize: true },
      { copies: 3, requestedSize: true },
    ]) {
      for (const [cpus, nodes] of [
        [1, 1],
        [16, 4],
        [64, 1],
      ] as const) {
        const options = { cpus, nodes, layer, kmalloc, maxCaches: 254 };
        const least = /must be at least (\d+)/.exec(String(errorOf(options)))!;
        const arena = boot({ ...options, bytes: Number(least[1]), lockdep: false });
        expect(arena.kmalloc(100)).not.toBe(0);
        expectSound(arena);
      }
    }
  });

  it.each([
    [{ types: 'dma' }, TypeError, /kmalloc.types is "dma"; it must be an array/],
    [{ types: ['normal'] }, RangeError, /kmalloc.types is/],
    [{ copies: 16 }, RangeError, /kmalloc.copies is 16; it must be an integer from 0 to 15/],
    [{ copyBy: 'luck' }, RangeError, /kmalloc.copyBy is/],
    [{ seed: -1 }, RangeError, /kmalloc.seed is -1/],
    [{ requestedSize: 1 }, TypeError, /kmalloc.requestedSize is 1; it must be a boolean/],
    ['all', TypeError, /kmalloc is "all"; it must be an object/],
  ])('refuse %j', (kmalloc, type, message) => {
    const make = () => planArena({ bytes: 16 * MiB, kmalloc: kmalloc as never });
    expect(make).toThrow(type);
    expect(make).toThrow(message);
  });
});

function errorOf(options: Partial<ArenaOptions>): unknown {
  try {
    return planArena({ bytes: MiB / 16, ...options });
  } catch (error) {
    return error;
  }
}
