/** Where a borrowed sheaf comes from: the decision order and the counters of kmem_cache_prefill_sheaf. */

import { describe, expect, it } from 'vitest';
import type { PrefilledSheaf } from '#src/cache/index.js';
import { Pcs } from '#src/cpu/index.js';
import { __GFP_ZERO } from '#src/index.js';
import { storeRelease } from '#src/sync/index.js';
import { barnSizes, expectSound, pagesOf, sheafSizes } from '../cache/support/arena.js';
import {
  addEmptySheaves,
  borrowed,
  C,
  counted,
  expectNull,
  leaveFree,
  POLICIES,
  prefill,
  setup,
  take,
  withEmptySpare,
  withoutPages,
  withSpare,
} from './support.js';

describe.each(POLICIES)('prefill, policy %s', (policy) => {
  /** Borrows `n`, and expects so many objects and these counts. */
  const expectPrefill = (
    scene: ReturnType<typeof setup>,
    n: number,
    size: number,
    counts: ReturnType<typeof counted>,
  ) => {
    let sheaf: PrefilledSheaf | null = null;
    expect(
      counted(scene.cache, () => {
        sheaf = scene.cache.prefill(n);
      }),
    ).toEqual(counts);
    expect(sheaf).toMatchObject({ size, capacity: Math.max(n, C) });
    expect(borrowed(scene)).toBe(1);
    expectSound(scene.arena);
    return sheaf;
  };

  it('takes a full spare as it is', () => {
    const scene = setup(policy);
    withSpare(scene);
    expectPrefill(scene, 3, C, { SHEAF_PREFILL_FAST: 1 });
    expect(sheafSizes(scene.arena, scene.cache)).toEqual({ main: 1, spare: null });
  });

  it('takes an empty spare and fills it to the brim, whatever was asked for', () => {
    const scene = setup(policy);
    withEmptySpare(scene);
    expectPrefill(scene, 1, C, { SHEAF_PREFILL_FAST: 1, SHEAF_REFILL: C });
    expect(sheafSizes(scene.arena, scene.cache)).toEqual({ main: C - 1, spare: null });
  });

  it('takes a spare that has some: as it is if they suffice, else filled to the brim', () => {
    for (const [n, size] of [
      [2, 2],
      [3, C],
    ] as const) {
      const scene = setup(policy);
      const first = prefill(scene.cache, C);
      scene.held.push(...take(first, C - 2));
      scene.cache.return(first);
      expect(sheafSizes(scene.arena, scene.cache).spare).toBe(2);
      const refilled = size > 2 ? { SHEAF_REFILL: size - 2 } : {};
      expectPrefill(scene, n, size, { SHEAF_PREFILL_FAST: 1, ...refilled });
    }
  });

  it('takes a full sheaf from the barn when there is no spare, and rather than an empty one', () => {
    const scene = setup(policy);
    withSpare(scene, 1);
    addEmptySheaves(scene, 1);
    const spare = prefill(scene.cache, 1);
    expect(barnSizes(scene.arena, scene.cache)).toEqual({ full: [C], empty: 1 });
    expect(counted(scene.cache, () => prefill(scene.cache, C))).toEqual({
      SHEAF_PREFILL_SLOW: 1,
      BARN_GET: 1,
    });
    expect(barnSizes(scene.arena, scene.cache)).toEqual({ full: [], empty: 1 });
    expect(spare.size).toBe(C);
    expectSound(scene.arena);
  });

  it('takes an empty sheaf from the barn, which counts as none', () => {
    const scene = setup(policy);
    addEmptySheaves(scene, 1);
    expectPrefill(scene, 2, C, { SHEAF_PREFILL_SLOW: 1, BARN_GET_FAIL: 1, SHEAF_REFILL: C });
    expect(barnSizes(scene.arena, scene.cache)).toEqual({ full: [], empty: 0 });
  });

  it('makes a new sheaf when there is none', () => {
    const scene = setup(policy);
    expectPrefill(scene, C, C, {
      SHEAF_PREFILL_SLOW: 1,
      BARN_GET_FAIL: 1,
      SHEAF_ALLOC: 1,
      SHEAF_REFILL: C,
    });
    expect(sheafSizes(scene.arena, scene.cache)).toEqual({ main: 0, spare: null });
  });

  it('makes an oversize sheaf of exactly n objects for more than a sheaf holds', () => {
    for (const n of [C + 1, 100, 3000]) {
      const scene = setup(policy, { bytes: 32 << 20 });
      withSpare(scene);
      expectPrefill(scene, n, n, { SHEAF_ALLOC: 1, SHEAF_PREFILL_OVERSIZE: 1, ALLOC_SLOWPATH: n });
      expect(sheafSizes(scene.arena, scene.cache), 'main and spare are left alone').toEqual({
        main: 1,
        spare: C,
      });
    }
  });

  it.each(['none', 'percpu-array', 'cpu-slab'] as const)(
    'makes every sheaf oversize in a cache of layer %s',
    (layer) => {
      const scene = setup(policy);
      const cache = scene.arena.createCache('d', { size: 100, layer });
      let sheaf: PrefilledSheaf | null = null;
      expect(
        counted(cache, () => {
          sheaf = cache.prefill(1);
        }),
      ).toEqual({ SHEAF_ALLOC: 1, SHEAF_PREFILL_OVERSIZE: 1, ALLOC_SLOWPATH: 1 });
      expect(sheaf).toMatchObject({ size: 1, capacity: 1 });
      const p = sheaf!.alloc();
      expect(sheaf!.alloc()).toBe(0);
      cache.free(p);
      expect(counted(cache, () => cache.return(sheaf!))).toEqual({ SHEAF_FREE: 1 });
      expectSound(scene.arena);
      expect(cache.destroy()).toEqual({ cache: 'd', leaked: 0, objects: [] });
    },
  );

  it('of 0 is null and nothing', () => {
    const scene = setup(policy);
    expect(counted(scene.cache, () => expectNull(scene.cache.prefill(0)))).toEqual({});
    expect(borrowed(scene)).toBe(0);
  });

  it('is null when there is no memory: what was got goes back', () => {
    const scene = setup(policy);
    leaveFree(scene, 1);
    const full = () => expectNull(withoutPages(scene.arena, () => scene.cache.prefill(1)));
    expect(counted(scene.cache, full)).toEqual({
      SHEAF_PREFILL_SLOW: 1,
      BARN_GET_FAIL: 1,
      SHEAF_ALLOC: 1,
      SHEAF_REFILL: 1,
      SHEAF_FLUSH: 1,
      SHEAF_FREE: 1,
    });
    expect(borrowed(scene)).toBe(0);
    expectSound(scene.arena);
    const oversize = () => expectNull(withoutPages(scene.arena, () => scene.cache.prefill(C + 1)));
    expect(counted(scene.cache, oversize)).toEqual({
      SHEAF_ALLOC: 1,
      SHEAF_PREFILL_OVERSIZE: 1,
      SHEAF_FREE: 1,
    });
    expect(borrowed(scene)).toBe(0);
    expectSound(scene.arena);
  });

  it('does without the spare while another CPU has the lock, and takes no lock away', () => {
    const scene = setup(policy);
    withSpare(scene);
    const lock = scene.pcs + Pcs.lock;
    storeRelease(scene.arena.i32, lock, 2);
    const sheaf = prefill(scene.cache, 1);
    expect(scene.arena.i32[lock]).toBe(2);
    storeRelease(scene.arena.i32, lock, 0);
    expect(sheafSizes(scene.arena, scene.cache)).toEqual({ main: 1, spare: C });
    expect(scene.cache.stats()).toMatchObject({ SHEAF_PREFILL_FAST: 0, SHEAF_PREFILL_SLOW: 1 });
    scene.cache.return(sheaf);
    expectSound(scene.arena);
  });

  it('holds no lock when it has to look for memory', () => {
    const scene = setup(policy);
    withEmptySpare(scene);
    leaveFree(scene, 0);
    scene.held.push(scene.cache.alloc()); // under 'turn', the lock is ours from here
    const seen: number[] = [];
    const pages = pagesOf(scene.arena);
    const { alloc } = pages;
    pages.alloc = (...args) => {
      seen.push(scene.arena.i32[scene.pcs + Pcs.lock]!);
      return alloc.apply(pages, args);
    };
    const sheaf = prefill(scene.cache, 1);
    expect(seen.length).toBeGreaterThan(0);
    expect(seen.filter((word) => word !== 0)).toEqual([]);
    scene.cache.return(sheaf);
  });
});

describe('allocation from a borrowed sheaf', () => {
  it('hands out each object once, then 0, and counts nothing', () => {
    const { arena, cache } = setup('turn');
    const sheaf = prefill(cache, 9);
    const objects: number[] = [];
    expect(
      counted(cache, () => {
        for (let left = 8; left >= 0; left--) {
          objects.push(sheaf.alloc());
          expect(sheaf.size).toBe(left);
        }
        expect([sheaf.alloc(), sheaf.alloc()]).toEqual([0, 0]);
      }),
    ).toEqual({});
    expect(new Set(objects).size).toBe(9);
    expect(objects).not.toContain(0);
    expectSound(arena);
    for (const p of objects) cache.free(p);
    cache.return(sheaf);
    expectSound(arena);
  });

  it('marks what it hands out: it can be freed once, and not before', () => {
    const { arena, cache } = setup('turn');
    const sheaf = prefill(cache, C);
    const p = sheaf.alloc();
    const next = arena.i32[sheaf.at + 4 + sheaf.size - 1]!;
    expect(() => cache.free(next)).toThrow(/already free/);
    cache.free(p);
    expect(() => cache.free(p)).toThrow(/already free/);
    expect(sheaf.alloc()).toBe(next);
    cache.free(next);
    cache.return(sheaf);
    expectSound(arena);
  });

  it('zeroes on request, and only the object', () => {
    const { arena, cache } = setup('turn');
    const [p, q] = take(prefill(cache, C), 2) as [number, number];
    const low = Math.min(p, q);
    arena.u8.fill(0xff, p, p + 4096);
    arena.u8.fill(0xff, q, q + 4096);
    cache.free(low);
    arena.endTurn();
    cache.shrink();
    const sheaf = prefill(cache, 1);
    let zeroed = 0;
    while (sheaf.size > 0) {
      const r = sheaf.alloc(__GFP_ZERO);
      expect(arena.u8.subarray(r, r + 4096).every((byte) => byte === 0)).toBe(true);
      if (r === low) zeroed++;
    }
    expect(zeroed).toBe(1);
    const other = p + q - low;
    expect(arena.u8.subarray(other, other + 4096).every((byte) => byte === 0xff)).toBe(true);
  });
});
