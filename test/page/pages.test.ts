import { describe, expect, it } from 'vitest';
import { __GFP_THISNODE, __GFP_ZERO, GFP_KERNEL, GFP_NOWAIT, SlabBugError } from '#src/index.js';
import {
  compoundHead,
  Page,
  PG_HEAD,
  PG_TAIL,
  pfnToPage,
  virtToPage,
  Zone,
  zoneOf,
} from '#src/page/index.js';
import { PAGE_SIZE } from '#src/struct/index.js';
import { LockClass } from '#src/sync/index.js';
import {
  boot,
  expectRefused,
  expectSound,
  expectUnchanged,
  MiB,
  pagesOf,
  secondCpu,
} from '../cache/support/arena.js';
import { cutIn } from '../slab/support.js';

describe('a block of pages', () => {
  const arena = boot();

  it.each([0, 1, 5, 10])('of order %i is marked from its head to its last tail', (order) => {
    const arena = boot({ bytes: 16 * MiB });
    const p = arena.allocPages(order);
    const head = virtToPage(arena.geometry, p);
    expect(arena.i32[head + Page.flags]! & PG_HEAD).toBe(PG_HEAD);
    for (let i = 1; i < 1 << order; i++) {
      const tail = virtToPage(arena.geometry, p + i * PAGE_SIZE + 17);
      expect(arena.i32[tail + Page.flags]).toBe(PG_TAIL);
      expect(compoundHead(arena.i32, tail)).toBe(head);
    }
    expectSound(arena);
    arena.freePages(p, order);
    expect(compoundHead(arena.i32, head)).toBe(0);
    expectSound(arena);
  });

  it('is zeroed when asked, in full', () => {
    const p = arena.allocPages(1);
    arena.u8.fill(0xff, p, p + 2 * PAGE_SIZE);
    arena.freePages(p, 1);
    const q = arena.allocPages(1, GFP_KERNEL | __GFP_ZERO);
    expect(q).toBe(p);
    expect(arena.u8.subarray(q, q + 2 * PAGE_SIZE).every((byte) => byte === 0)).toBe(true);
    arena.freePages(q, 1);
  });

  it('raises the high-water mark once, and lowers nothing but what is used', () => {
    const arena = boot();
    const before = arena.meminfo();
    const used = before.usedPages;
    const blocks = [arena.allocPages(3), arena.allocPages(3), arena.allocPages(0)];
    expect(arena.meminfo().usedPages).toBe(used + 17);
    for (const [i, order] of [3, 3, 0].entries()) arena.freePages(blocks[i]!, order);
    arena.freePages(arena.allocPages(2), 2);
    const after = arena.meminfo();
    expect(after.usedPages).toBe(used);
    expect(after.highWaterPages).toBe(Math.max(before.highWaterPages, used + 17));
    expect(after.totalPages).toBe(arena.geometry.endPfn - arena.geometry.firstPfn);
    expect(after.nodes[0]!.allocs - before.nodes[0]!.allocs).toBe(4);
    expect(after.nodes[0]!.frees - before.nodes[0]!.frees).toBe(4);
  });
});

describe('nodes', () => {
  const exhaust = (arena: ReturnType<typeof boot>, node: number): number[] => {
    const taken: number[] = [];
    const gfp = GFP_KERNEL | __GFP_THISNODE;
    for (let p = arena.allocPages(0, gfp, node); p !== 0; p = arena.allocPages(0, gfp, node)) taken.push(p);
    return taken;
  };

  it('own equal runs of pages', () => {
    const arena = boot({ bytes: 16 * MiB, cpus: 4, nodes: 4 });
    const { firstPfn, endPfn } = arena.geometry;
    const sizes = arena.meminfo().nodes.map(({ totalPages }) => totalPages);
    expect(sizes.reduce((a, b) => a + b)).toBe(endPfn - firstPfn);
    expect(Math.max(...sizes) - Math.min(...sizes)).toBeLessThanOrEqual(1);
    const pages = pagesOf(arena);
    for (let node = 0; node < 4; node++) {
      const zone = zoneOf(arena.geometry, node);
      for (const pfn of [arena.i32[zone + Zone.startPfn]!, arena.i32[zone + Zone.endPfn]! - 1]) {
        expect(pages.nodeOf(pfnToPage(arena.geometry, pfn))).toBe(node);
      }
    }
  });

  it('help out in the order of distance, which is counted, unless the caller wants one node only', () => {
    const arena = boot({ bytes: 8 * MiB, cpus: 4, nodes: 4 });
    const counts = () => arena.meminfo().nodes.map(({ foreign }) => foreign);
    const before = counts();
    const taken = [...exhaust(arena, 2), ...exhaust(arena, 3)];
    expect(arena.allocPages(0, GFP_KERNEL | __GFP_THISNODE, 2)).toBe(0);
    expect(counts()).toEqual(before);
    const p = arena.allocPages(0, GFP_KERNEL, 2);
    expect(pagesOf(arena).nodeOf(virtToPage(arena.geometry, p))).toBe(0);
    expect(counts().map((count, node) => count - before[node]!)).toEqual([1, 0, 0, 0]);
    for (const address of [...taken, p]) arena.freePages(address, 0);
    expectSound(arena);
  });

  it('get their own blocks back from a CPU of another node', () => {
    const arena = boot({ bytes: 8 * MiB, cpus: 2, nodes: 2 });
    const before = arena.meminfo().nodes.map(({ freeBlocks }) => freeBlocks);
    const p = arena.allocPages(4, GFP_KERNEL, 1);
    expect(arena.meminfo().nodes[1]!.freePages).toBe(
      before[1]!.reduce((a, n, order) => a + n * (1 << order), 0) - 16,
    );
    arena.freePages(p, 4);
    expect(arena.meminfo().nodes.map(({ freeBlocks }) => freeBlocks)).toEqual(before);
  });
});

describe('misuse of pages', () => {
  const arena = boot();
  const cache = arena.createCache('victim', { size: 192 });
  const object = cache.alloc();
  const large = arena.kmalloc(100_000);
  const block = arena.allocPages(2);
  const freed = arena.allocPages(2);
  arena.freePages(freed, 2);
  const refused = (address: unknown, order: unknown, message: RegExp) =>
    expectRefused(arena, () => arena.freePages(address as number, order as number), SlabBugError, message);

  it('is refused for a double free', () => refused(freed, 2, /freed already or never allocated/));
  it('is refused for the wrong order', () => {
    refused(block, 1, /has order 2, not 1/);
    refused(block, 3, /has order 2, not 3/);
    for (const order of [-1, 11, 1.5, Number.NaN, '2', undefined])
      refused(block, order, /order is .*integer from 0 to 10/);
  });
  it('is refused for the middle of a block', () => {
    refused(block + PAGE_SIZE, 0, /no block starts at/);
    refused(block + 8, 2, /not the start of a page/);
  });
  it('is refused for pages of a cache or of kmalloc', () => {
    refused(object & ~(PAGE_SIZE - 1), cache.order, /belongs to kmalloc or a cache/);
    refused(large, 5, /belongs to kmalloc or a cache/);
  });
  it('is refused for what is no address of the heap', () => {
    const { firstPfn, bytes } = arena.geometry;
    const wrong = [
      0,
      4096,
      (firstPfn - 1) * PAGE_SIZE,
      bytes,
      -PAGE_SIZE,
      block + 2 ** 32,
      block + 0.5,
      Number.NaN,
    ];
    for (const address of wrong) refused(address, 2, /is not an address of the heap/);
    for (const address of [undefined, null, `${block}`, BigInt(block), {}, Number.POSITIVE_INFINITY]) {
      refused(address, 2, /is not an address of the heap/);
    }
  });
  it.each([-1, 11, 0.5, Number.NaN, Number.POSITIVE_INFINITY])(
    'order %s is no order to allocate',
    (order) => {
      expectRefused(
        arena,
        () => arena.allocPages(order),
        RangeError,
        /order is .*; it must be an integer from 0 to 10/,
      );
    },
  );
  it.each([-2, 1, 0.5, Number.NaN])('node %s is no node to allocate from', (node) => {
    const message = /node is .*; it must be an integer from -1 to 0/;
    expectRefused(arena, () => arena.allocPages(0, GFP_KERNEL, node), RangeError, message);
    expectRefused(arena, () => arena.kmalloc(100_000, GFP_KERNEL, node), RangeError, message);
    expectRefused(
      arena,
      () => arena.kmalloc(64, GFP_KERNEL, node),
      RangeError,
      /node is .*; it must be an integer/,
    );
  });
  it('is a request that no page can fulfil: 0, and nothing changes but what was asked', () => {
    const arena = boot({ bytes: 4 * MiB });
    // Without reclaim, which would note for kfree_rcu that memory was short.
    expectUnchanged(arena, () => expect(arena.allocPages(10, GFP_NOWAIT)).toBe(0));
  });
});

describe('refusal of every n-th request', () => {
  it('counts what it refused and ends when told', () => {
    const arena = boot();
    arena.failPageAlloc(3);
    const got = Array.from({ length: 7 }, () => arena.allocPages(0));
    expect(got.map((p) => p !== 0)).toEqual([true, true, false, true, true, false, true]);
    expect(arena.failPageAlloc(0)).toEqual({ refused: 2 });
    expect(Array.from({ length: 7 }, () => arena.allocPages(0)).every((p) => p !== 0)).toBe(true);
    expect(() => arena.failPageAlloc(-1)).toThrow(RangeError);
  });
});

describe('two threads that free the same block at once', () => {
  /** The second CPU comes first, when the first has looked and is about to take zone->lock. */
  it.each<
    [
      string,
      (arena: ReturnType<typeof boot>) => number,
      (arena: ReturnType<typeof boot>, p: number) => void,
      RegExp,
    ]
  >([
    [
      'freePages',
      (arena) => arena.allocPages(2),
      (arena, p) => arena.freePages(p, 2),
      /it was freed already/,
    ],
    [
      'kfree of a large block',
      (arena) => arena.kmalloc(16_000),
      (arena, p) => arena.kfree(p),
      /its page is free/,
    ],
  ])('%s: one of them is refused, and nothing is freed twice', (_name, alloc, free, message) => {
    const arena = boot();
    const other = secondCpu(arena);
    const p = alloc(arena);
    const used = arena.meminfo().usedPages;
    cutIn(arena, LockClass.Zone, 'before lock', 1, () => free(other, p));
    expect(() => free(arena, p)).toThrow(message);
    expect(arena.cpu.locks.held).toBe(0);
    expect(arena.meminfo().usedPages).toBe(used - 4);
    expectSound(arena);
  });

  it('and somebody else gets it in between: the second free is refused if it cannot be of that block', () => {
    const arena = boot();
    const other = secondCpu(arena);
    const p = arena.allocPages(2);
    let theirs = 0;
    cutIn(arena, LockClass.Zone, 'before lock', 1, () => {
      other.freePages(p, 2);
      theirs = other.allocPages(0);
    });
    expect(() => arena.freePages(p, 2)).toThrow(SlabBugError);
    other.freePages(theirs, 0);
    expectSound(arena);
  });
});
