/** What each flag does when memory is short. */

import { describe, expect, it } from 'vitest';
import {
  __GFP_DIRECT_RECLAIM,
  __GFP_HIGH,
  __GFP_NOFAIL,
  __GFP_NOMEMALLOC,
  __GFP_NORETRY,
  __GFP_NOWARN,
  __GFP_THISNODE,
  __GFP_ZERO,
  type Arena,
  GFP_ATOMIC,
  GFP_KERNEL,
  GFP_NOWAIT,
  OutOfMemoryError,
} from '#src/index.js';
import { virtToPage } from '#src/page/index.js';
import {
  allocMany,
  boot,
  expectRefused,
  expectSound,
  freeMany,
  MiB,
  pagesOf,
  secondCpu,
} from '../cache/support/arena.js';
import { census, NOTHING_FREE, takeObjects, takePages } from './support.js';

const freeOf = (arena: Arena, node = 0) => arena.meminfo().nodes[node]!.freePages;
const marksOf = (arena: Arena, node = 0) => arena.meminfo().nodes[node]!.watermarks;

describe('watermarks', () => {
  it.each([
    [64, 1],
    [64, 2],
    [512, 1],
  ])('of an arena of %i MiB and %i nodes follow the formula', (mib, nodes) => {
    const arena = boot({ bytes: mib * MiB, nodes });
    const { totalPages, nodes: zones } = arena.meminfo();
    for (const { totalPages: pages, watermarks } of zones) {
      const min = Math.floor((4 * Math.sqrt(totalPages * 4) * pages) / totalPages / 4);
      expect(Math.abs(watermarks.min - min)).toBeLessThanOrEqual(1);
      const distance = Math.max(watermarks.min >> 2, Math.floor(pages / 1000));
      expect(watermarks.low).toBe(watermarks.min + distance);
      expect(watermarks.high).toBe(watermarks.min + 2 * distance);
    }
  });

  it('keep no more than 1/32 of a small zone', () => {
    const arena = boot({ bytes: 4 * MiB });
    expect(marksOf(arena).min).toBe(arena.meminfo().totalPages >> 5);
  });
});

describe('the reserve', () => {
  it('stops GFP_NOWAIT at min, GFP_KERNEL at an eighth of it, and GFP_ATOMIC at nothing', () => {
    const arena = boot({ bytes: 64 * MiB });
    const { min } = marksOf(arena);
    expect(min).toBeGreaterThan(200);
    takePages(arena, GFP_NOWAIT);
    expect(freeOf(arena)).toBe(min);
    expect(arena.allocPages(0, GFP_KERNEL | __GFP_NORETRY)).toBe(0);
    takePages(arena, GFP_KERNEL);
    expect(freeOf(arena)).toBe(min >> 3);
    takePages(arena, GFP_ATOMIC);
    expect(freeOf(arena)).toBe(0);
    expectSound(arena);
  });

  it('is touched only when no other node has pages above its own', () => {
    const arena = boot({ bytes: 32 * MiB, nodes: 2 });
    const node = (p: number) => pagesOf(arena).nodeOf(virtToPage(arena.geometry, p));
    takePages(arena, GFP_NOWAIT | __GFP_THISNODE, 0, 0);
    expect(freeOf(arena, 0)).toBe(marksOf(arena, 0).min);
    expect(node(arena.allocPages(0, GFP_KERNEL, 0))).toBe(1);
    expect(arena.reclaimInfo().directReclaims).toBe(0);
    takePages(arena, GFP_NOWAIT, 0, 0);
    expect([freeOf(arena, 0), freeOf(arena, 1)]).toEqual([marksOf(arena, 0).min, marksOf(arena, 1).min]);
    expect(node(arena.allocPages(0, GFP_KERNEL, 0))).toBe(0);
    expect(arena.reclaimInfo().directReclaims).toBeGreaterThan(0);
  });

  it('never gets into a sheaf', () => {
    const arena = boot({ bytes: 64 * MiB });
    const cache = arena.createCache('c', { size: 4096 });
    takePages(arena, GFP_NOWAIT);
    const p = cache.alloc(GFP_ATOMIC);
    arena.endTurn();
    expect(p).not.toBe(0);
    expect(census(arena, cache)).toMatchObject({ barns: 0, cpus: 0 });
    expectSound(arena);
  });
});

describe('flags', () => {
  it('that are unknown, or do not go together, are refused with nothing changed', () => {
    const arena = boot();
    const cache = arena.createCache('c', { size: 64 });
    const out = new Int32Array(4);
    for (const gfp of [1 << 20, -1, 1.5, Number.NaN, '2' as never]) {
      for (const call of [
        () => cache.alloc(gfp),
        () => cache.allocNode(0, gfp),
        () => cache.allocBulk(out, 4, gfp),
        () => arena.allocPages(0, gfp),
        () => arena.kmalloc(20_000, gfp),
      ]) {
        expectRefused(arena, call, RangeError, /^gfp is .*must be an or of GFP_\* and __GFP_\* flags/);
      }
    }
    expectRefused(arena, () => cache.alloc(GFP_ATOMIC | __GFP_NOFAIL), RangeError, /may not wait/);
  });

  it('NORETRY reclaims barns and empty slabs, and leaves the sheaves of CPUs alone', () => {
    const arena = boot({ bytes: 4 * MiB });
    const other = secondCpu(arena, 1);
    const cache = other.createCache('c', { size: 4096 });
    const p = cache.alloc();
    takePages(arena, GFP_NOWAIT);
    cache.free(p);
    other.endTurn();
    const cached = census(arena, arena.openCache('c')).cpus;
    expect(arena.allocPages(0, GFP_KERNEL | __GFP_NORETRY)).toBe(0);
    expect(census(arena, arena.openCache('c')).cpus).toBe(cached);
    expect(arena.allocPages(0, GFP_KERNEL)).not.toBe(0);
    expect(census(arena, arena.openCache('c')).cpus).toBe(0);
  });

  it('are those of the caller for the smallest order only', () => {
    const arena = boot();
    const cache = arena.createCache('c', { size: 700, sheafCapacity: 2 });
    expect(cache.order).toBeGreaterThan(0);
    const pages = pagesOf(arena);
    const seen: Array<[number, number]> = [];
    pages.alloc = (order, gfp) => {
      seen.push([order, gfp]);
      return 0 as never;
    };
    const free = Object.getPrototypeOf(pages).alloc;
    expect(cache.alloc(GFP_KERNEL | __GFP_HIGH | __GFP_ZERO)).toBe(0);
    delete (pages as Partial<typeof pages>).alloc;
    expect(pages.alloc).toBe(free);
    const slow = seen.slice(-2);
    expect(slow).toEqual([
      [cache.order, __GFP_HIGH | __GFP_NORETRY | __GFP_NOWARN | __GFP_NOMEMALLOC],
      [0, __GFP_DIRECT_RECLAIM | __GFP_HIGH | __GFP_NOWARN],
    ]);
    // The sheaf before it was filled without any effort.
    expect(seen.slice(0, -2).some(([, gfp]) => (gfp & (__GFP_DIRECT_RECLAIM | __GFP_HIGH)) !== 0)).toBe(
      false,
    );
  });

  it('NOWAIT and ATOMIC never reclaim', () => {
    const arena = boot({ bytes: 4 * MiB });
    const cache = arena.createCache('c', { size: 4096 });
    freeMany(cache, allocMany(cache, 20));
    arena.endTurn();
    takePages(arena, GFP_ATOMIC);
    takePages(arena, GFP_NOWAIT);
    expect(arena.reclaimInfo()).toMatchObject({ directReclaims: 0, pages: 0 });
    expect(arena.allocPages(0)).not.toBe(0);
    expect(arena.reclaimInfo().pages).toBeGreaterThan(0);
  });
});

describe('__GFP_NOFAIL', () => {
  const GFP = GFP_KERNEL | __GFP_NOFAIL;
  const full = () => {
    const arena = boot({ bytes: 4 * MiB });
    const cache = arena.createCache('c', { size: 256 });
    const held = takeObjects(cache);
    takePages(arena);
    arena.endTurn();
    pagesOf(arena).noFailLimitMs = 50;
    return { arena, cache, held };
  };

  it('throws after its limit, says what it tried, and loses nothing', () => {
    const { arena, cache } = full();
    const out = new Int32Array(10);
    const calls: Array<[() => unknown, RegExp]> = [
      [() => cache.alloc(GFP), /^__GFP_NOFAIL waits for an object of c: \d+ tries in \d+ ms; .*reclaims/],
      [() => cache.allocBulk(out, 10, GFP), /for 10 objects of c/],
      [() => arena.allocPages(1, GFP), /for a block of 2\^1 pages.*\n {2}zone 0: 0 of \d+ pages free, min/],
      [() => arena.kmalloc(20_000, GFP), /for a block of 2\^3 pages/],
    ];
    for (const [call, message] of calls) {
      const start = performance.now();
      expect(call).toThrow(OutOfMemoryError);
      expect(performance.now() - start).toBeGreaterThan(45);
      expect(call).toThrow(message);
    }
    arena.endTurn();
    expectSound(arena);
    expect(census(arena, cache)).toEqual(NOTHING_FREE);
  });

  it('waits for an object that a shrinker of this thread frees at last, and reports the stall', () => {
    const { arena, cache, held } = full();
    pagesOf(arena).noFailLimitMs = 10_000;
    const start = performance.now();
    const late = () => performance.now() - start > 1100 && held.length > 0;
    const end = arena.registerShrinker({
      name: 'late',
      count: () => (late() ? 1 : 0),
      scan: () => {
        cache.free(held.pop()!);
        return 1;
      },
    });
    expect(cache.alloc(GFP)).not.toBe(0);
    end();
    expect(arena.lastOom).toMatch(/^__GFP_NOFAIL waits for an object of c: \d+ tries in 1\d\d\d ms/);
    arena.endTurn();
    expectSound(arena);
  });

  it('is refused no page by injected failures', () => {
    const arena = boot();
    arena.failPageAlloc(1);
    expect(arena.allocPages(0)).toBe(0);
    expect(arena.allocPages(0, GFP)).not.toBe(0);
    expect(arena.failPageAlloc(0)).toEqual({ refused: 1 });
  });
});
