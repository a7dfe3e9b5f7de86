/** Objects of the reserve, which only a thread that reclaims gets, and which no sheaf, array or CPU's slab may keep. */

import { describe, expect, it } from 'vitest';
import {
  type Arena,
  GFP_KERNEL,
  GFP_NOWAIT,
  type KmemCache,
  type Layer,
  type LockPolicy,
} from '#src/index.js';
import { Page, PG_PFMEMALLOC, virtToPage } from '#src/page/index.js';
import { LAYERS } from '#src/struct/index.js';
import { allocMany, boot, expectRefused, expectSound, MiB, moved, pagesOf } from '../cache/support/arena.js';
import { takeObjects, takePages } from './support.js';

const SIZE = 256;

const isOfReserve = (arena: Arena, p: number) =>
  (arena.i32[virtToPage(arena.geometry, p) + Page.flags]! & PG_PFMEMALLOC) !== 0;

/** What a shrinker does: allocate while this thread reclaims. */
function reclaiming<T>(arena: Arena, action: () => T): T {
  pagesOf(arena).memalloc = true;
  try {
    return action();
  } finally {
    pagesOf(arena).memalloc = false;
  }
}

/** An arena without a page or an object left but for the reserve. */
function setup(layer: Layer, lockPolicy: LockPolicy, check: 'free' | 'full' = 'free') {
  const arena = boot({ bytes: 24 * MiB, layer, lockPolicy, check });
  const cache = arena.createCache('c', { size: SIZE });
  const held = allocMany(cache, 40);
  const pages = takePages(arena, GFP_KERNEL);
  held.push(...takeObjects(cache, GFP_KERNEL));
  expect(cache.alloc(GFP_NOWAIT)).toBe(0);
  return { arena, cache, held, pages };
}

function finish({ arena, cache, held, pages }: ReturnType<typeof setup>): void {
  for (const p of pages) arena.freePages(p, 0);
  for (const p of held) cache.free(p);
  arena.kfreeRcuBarrier();
  expectSound(arena);
  expect(cache.destroy().leaked).toBe(0);
  expectSound(arena);
}

const CASES = LAYERS.flatMap((layer) => (['turn', 'op'] as const).map((policy) => [layer, policy] as const));

describe.each(CASES)('an object of the reserve, layer %s, policy %s', (layer, policy) => {
  it('is had by a thread that reclaims, and by nobody else', () => {
    const scene = setup(layer, policy);
    const { arena, cache } = scene;
    const p = reclaiming(arena, () => cache.alloc());
    expect(p).not.toBe(0);
    expect(isOfReserve(arena, p)).toBe(true);
    // The slab has 15 more, and they stay there.
    expect(cache.alloc(GFP_NOWAIT)).toBe(0);
    expect(cache.allocBulk(new Int32Array(4), 4, GFP_NOWAIT)).toBe(false);
    expect(cache.prefill(2, GFP_NOWAIT)).toBeNull();
    const more = reclaiming(arena, () => allocMany(cache, 3));
    for (const q of more) expect(isOfReserve(arena, q)).toBe(true);
    for (const q of [p, ...more]) cache.free(q);
    finish(scene);
  });

  const frees: Record<string, (cache: KmemCache, arena: Arena, p: number, q: number) => void> = {
    free: (cache, _, p, q) => {
      cache.free(p);
      cache.free(q);
    },
    kfree: (_, arena, p, q) => {
      arena.kfree(p);
      arena.kfree(q);
    },
    freeBulk: (cache, _, p, q) => cache.freeBulk(Int32Array.of(p, q), 2),
    freeRcu: (cache, arena, p, q) => {
      cache.freeRcu(p);
      cache.freeRcu(q);
      arena.kfreeRcuBarrier();
    },
    kfreeNolock: (_, arena, p, q) => {
      arena.kfreeNolock(p);
      arena.kfreeNolock(q);
    },
  };

  it.each(Object.keys(frees))('goes back to its slab, by %s', (way) => {
    const scene = setup(layer, policy);
    const { arena, cache, held } = scene;
    const [p, q] = reclaiming(arena, () => allocMany(cache, 2)) as [number, number];
    cache.free(held.pop()!); // sheaves, array and cpu slab are in use, and have room
    const before = cache.stats();
    frees[way]!(cache, arena, p, q);
    arena.endTurn();
    expect(cache.stats().FREE_FASTPATH).toBe(before.FREE_FASTPATH);
    expectSound(arena);
    // What was freed is there for whoever reclaims, and still not for others.
    held.push(cache.alloc(GFP_NOWAIT));
    expect(held.at(-1)).not.toBe(0);
    expect(cache.alloc(GFP_NOWAIT)).toBe(0);
    finish(scene);
  });

  it('is refused when it is freed twice, or by another cache', () => {
    const scene = setup(layer, policy, 'full');
    const { arena, cache } = scene;
    const p = reclaiming(arena, () => cache.alloc());
    const other = arena.openCache('kmalloc-256');
    expectRefused(arena, () => other.free(p), Error, /belongs to c/);
    expectRefused(arena, () => other.freeBulk(Int32Array.of(p), 1), Error, /belongs to c/);
    cache.free(p);
    expectRefused(arena, () => cache.free(p), Error, /already free|no slab/);
    finish(scene);
  });
});

it('a bulk free puts ordinary objects into the sheaf and those of the reserve past it', () => {
  const scene = setup('sheaves', 'turn');
  const { arena, cache, held } = scene;
  const [p, q] = reclaiming(arena, () => allocMany(cache, 2)) as [number, number];
  const list = Int32Array.of(held.pop()!, p, held.pop()!, q);
  expect(moved(cache, () => cache.freeBulk(list, 4))).toMatchObject({ FREE_FASTPATH: 2, FREE_SLOWPATH: 2 });
  finish(scene);
});

it('a shrinker gets objects where there are no more pages, and the pages are back when it has freed them', () => {
  const scene = setup('sheaves', 'turn');
  const { arena, cache } = scene;
  const got: number[] = [];
  const unregister = arena.registerShrinker({
    name: 'test',
    count: () => 1,
    scan: () => {
      got.push(cache.alloc());
      return 0;
    },
  });
  expect(arena.allocPages(0, GFP_KERNEL)).toBe(0);
  unregister();
  expect(got.length).toBeGreaterThan(0);
  for (const p of got) {
    expect(p).not.toBe(0);
    expect(isOfReserve(arena, p)).toBe(true);
    cache.free(p);
  }
  finish(scene);
});
