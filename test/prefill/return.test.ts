/** Where a borrowed sheaf goes, and how one is filled up: kmem_cache_return_sheaf and kmem_cache_refill_sheaf. */

import { describe, expect, it } from 'vitest';
import type { PrefilledSheaf } from '#src/cache/index.js';
import { Pcs } from '#src/cpu/index.js';
import { storeRelease } from '#src/sync/index.js';
import { barnSizes, expectSound, freeMany, sheafSizes, sheavesOf } from '../cache/support/arena.js';
import {
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

describe.each(POLICIES)('return, policy %s', (policy) => {
  it.each([0, 1, C])('makes a sheaf with %d objects the spare when there is none', (left) => {
    const scene = setup(policy);
    const { arena, cache, held } = scene;
    const sheaf = prefill(cache, C);
    const { at } = sheaf;
    held.push(...take(sheaf, C - left));
    expect(counted(cache, () => cache.return(sheaf))).toEqual({ SHEAF_RETURN_FAST: 1 });
    arena.endTurn();
    expect(sheavesOf(arena, cache).spare).toMatchObject({ at, size: left });
    expect(borrowed(scene)).toBe(0);
    expectSound(arena);
    // A spare of any size serves allocations and frees.
    for (let i = 0; i < 3 * C; i++) held.push(cache.alloc());
    freeMany(cache, held.splice(0));
    expectSound(arena);
    expect(cache.destroy()).toEqual({ cache: 'c', leaked: 0, objects: [] });
  });

  it.each([
    [0, { SHEAF_REFILL: C }],
    [1, { SHEAF_REFILL: C - 1 }],
    [C, {}],
  ])('fills a sheaf with %d objects and puts it into the barn when there is a spare', (left, refilled) => {
    const scene = setup(policy);
    const { arena, cache, held } = scene;
    const sheaf = prefill(cache, C);
    held.push(...take(sheaf, C - left));
    withEmptySpare(scene);
    expect(counted(cache, () => cache.return(sheaf))).toEqual({
      SHEAF_RETURN_SLOW: 1,
      BARN_PUT: 1,
      ...refilled,
    });
    expect(barnSizes(arena, cache)).toEqual({ full: [C], empty: 0 });
    expect(borrowed(scene)).toBe(0);
    expectSound(arena);
  });

  it('flushes and frees it when the barn is full', () => {
    for (const left of [0, 2, C]) {
      const scene = setup(policy);
      const { arena, cache, held } = scene;
      const sheaf = prefill(cache, C);
      held.push(...take(sheaf, C - left));
      withSpare(scene, 10);
      expect(barnSizes(arena, cache).full).toHaveLength(10);
      expect(counted(cache, () => cache.return(sheaf))).toEqual({
        SHEAF_RETURN_SLOW: 1,
        SHEAF_FREE: 1,
        ...(left > 0 ? { SHEAF_FLUSH: left } : {}),
      });
      expect(barnSizes(arena, cache).full).toHaveLength(10);
      expectSound(arena);
    }
  });

  it('flushes and frees it when there is no memory to fill it', () => {
    const scene = setup(policy);
    const { arena, cache, held } = scene;
    const sheaf = prefill(cache, C);
    held.push(...take(sheaf, C - 1));
    withEmptySpare(scene);
    leaveFree(scene, 2);
    expect(counted(cache, () => withoutPages(arena, () => cache.return(sheaf)))).toEqual({
      SHEAF_RETURN_SLOW: 1,
      SHEAF_REFILL: 2,
      SHEAF_FLUSH: 3,
      SHEAF_FREE: 1,
    });
    expect(barnSizes(arena, cache).full).toEqual([]);
    expect(borrowed(scene)).toBe(0);
    expectSound(arena);
  });

  it('flushes and frees an oversize sheaf', () => {
    for (const left of [0, 7, 50]) {
      const scene = setup(policy);
      const { arena, cache, held } = scene;
      const sheaf = prefill(cache, 50);
      held.push(...take(sheaf, 50 - left));
      expect(counted(cache, () => cache.return(sheaf))).toEqual({
        SHEAF_FREE: 1,
        ...(left > 0 ? { SHEAF_FLUSH: left } : {}),
      });
      expect(sheafSizes(arena, cache)).toEqual({ main: 0, spare: null });
      expect(borrowed(scene)).toBe(0);
      expectSound(arena);
    }
  });

  it('goes to the barn while another CPU has the lock', () => {
    const { arena, cache, pcs } = setup(policy);
    const sheaf = prefill(cache, C);
    arena.endTurn();
    storeRelease(arena.i32, pcs + Pcs.lock, 2);
    cache.return(sheaf);
    storeRelease(arena.i32, pcs + Pcs.lock, 0);
    expect(cache.stats()).toMatchObject({ SHEAF_RETURN_FAST: 0, SHEAF_RETURN_SLOW: 1, BARN_PUT: 1 });
    expect(barnSizes(arena, cache).full).toEqual([C]);
    expectSound(arena);
  });

  it('takes sheaves back in any order', () => {
    const scene = setup(policy);
    const sheaves = [1, 9, C, 20, 2].map((n) => prefill(scene.cache, n));
    for (const [i, k] of [2, 0, 4, 3, 1].entries()) {
      scene.cache.return(sheaves[k]!);
      expect(borrowed(scene)).toBe(4 - i);
      expectSound(scene.arena);
    }
  });
});

describe.each(POLICIES)('refill, policy %s', (policy) => {
  it('does nothing when there are enough', () => {
    const scene = setup(policy);
    for (const n of [C, 10]) {
      const sheaf = prefill(scene.cache, n);
      expect(
        counted(scene.cache, () => {
          for (const k of [0, 1, n]) expect(scene.cache.refill(sheaf, k) === sheaf).toBe(true);
        }),
      ).toEqual({});
    }
  });

  it('fills a normal sheaf to the brim', () => {
    const scene = setup(policy);
    const { arena, cache, held } = scene;
    const sheaf = prefill(cache, C);
    held.push(...take(sheaf, 3));
    expect(counted(cache, () => expect(cache.refill(sheaf, 2) === sheaf).toBe(true))).toEqual({
      SHEAF_REFILL: 3,
    });
    expect(sheaf.size).toBe(C);
    expect(borrowed(scene)).toBe(1);
    expectSound(arena);
  });

  it('fills an oversize sheaf to the brim, past the counters of sheaves', () => {
    const { arena, cache, held } = setup(policy);
    const sheaf = prefill(cache, 20);
    held.push(...take(sheaf, 15));
    expect(counted(cache, () => expect(cache.refill(sheaf, 6) === sheaf).toBe(true))).toEqual({
      ALLOC_SLOWPATH: 15,
    });
    expect(sheaf).toMatchObject({ size: 20, capacity: 20 });
    expectSound(arena);
  });

  it('replaces a sheaf that is too small, and returns the old one', () => {
    const scene = setup(policy);
    const { arena, cache, held } = scene;
    const sheaf = prefill(cache, C);
    held.push(...take(sheaf, 1));
    let larger: PrefilledSheaf | null = null;
    expect(
      counted(cache, () => {
        larger = cache.refill(sheaf, C + 1);
      }),
    ).toEqual({
      SHEAF_ALLOC: 1,
      SHEAF_PREFILL_OVERSIZE: 1,
      ALLOC_SLOWPATH: C + 1,
      SHEAF_RETURN_FAST: 1,
    });
    expect(larger === sheaf).toBe(false);
    expect(larger).toMatchObject({ size: C + 1, capacity: C + 1 });
    expect(sheafSizes(arena, cache).spare).toBe(C - 1);
    expect(() => sheaf.alloc()).toThrow(/used after it was replaced by a larger one/);
    expect(borrowed(scene)).toBe(1);
    expectSound(arena);

    take(larger!, 2);
    expect(counted(cache, () => expect(cache.refill(larger!, 30)?.size).toBe(30))).toEqual({
      SHEAF_ALLOC: 1,
      SHEAF_PREFILL_OVERSIZE: 1,
      ALLOC_SLOWPATH: 30,
      SHEAF_FLUSH: C - 1,
      SHEAF_FREE: 1,
    });
    expect(borrowed(scene)).toBe(1);
    expectSound(arena);
  });

  it('leaves the old sheaf as it was when there is no memory, and it serves on', () => {
    for (const [n, left, wanted] of [
      [C, 1, C],
      [C, 1, C + 1],
      [C, C, 20],
      [10, 3, 10],
      [10, 3, 11],
    ] as const) {
      const scene = setup(policy);
      const { arena, cache, held } = scene;
      const sheaf = prefill(cache, n);
      held.push(...take(sheaf, n - left));
      leaveFree(scene, 1);
      const words = () => [...arena.i32.subarray(sheaf.at, sheaf.at + 4 + left)];
      const before = words();
      withoutPages(arena, () => expectNull(cache.refill(sheaf, wanted)));
      expect(words()).toEqual(before);
      expect(borrowed(scene)).toBe(1);
      expectSound(arena);
      take(sheaf, left);
      expect(sheaf.alloc()).toBe(0);
      expect(cache.refill(sheaf, wanted)?.size).toBeGreaterThanOrEqual(wanted);
      expectSound(arena);
    }
  });
});
