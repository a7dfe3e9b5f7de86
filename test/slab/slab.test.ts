/** Making slabs, and the slow path for one object. */

import { describe, expect, it } from 'vitest';
import { __GFP_THISNODE, GFP_KERNEL } from '#src/index.js';
import { Page, PG_SLAB, pageAddress, virtToPage } from '#src/page/index.js';
import { PAGE_SIZE } from '#src/struct/index.js';
import {
  boot,
  expectSound,
  inside,
  moved,
  nodeCounts,
  pagesOf,
  partialList,
  slabAt,
} from '../cache/support/arena.js';
import { slabAlloc, slabFree } from './support.js';

describe('a new slab', () => {
  it('hands its objects out in ascending order, stride by stride, and keeps the rest as freelist', () => {
    const arena = boot();
    const cache = arena.createCache('c', { size: 192 });
    const [first] = slabAlloc(arena, cache);
    const [slab] = partialList(arena, cache);
    expect(slab).toMatchObject({ address: first, objects: 21, inuse: 1, freelist: 2 });
    const rest = slabAlloc(arena, cache, 20);
    expect(rest).toEqual(Array.from({ length: 20 }, (_, i) => first! + (i + 1) * 192));
    expect(partialList(arena, cache)).toEqual([]);
    expect(slabAt(arena, slab!.page)).toMatchObject({ inuse: 21, freelist: 0 });
    expect(nodeCounts(arena, cache)).toEqual({ partial: 0, slabs: 1, objects: 21 });
    expectSound(arena);
  });

  it('marks every page of its block, and finds itself from any of its objects', () => {
    const arena = boot();
    const cache = arena.createCache('c', { size: 2048 });
    expect(cache.order).toBe(3);
    const objects = slabAlloc(arena, cache, cache.objsPerSlab);
    const head = virtToPage(arena.geometry, objects[0]!);
    const { slabs } = inside(arena);
    for (const [i, p] of objects.entries()) {
      const page = virtToPage(arena.geometry, p);
      expect(arena.i32[page + Page.flags]! & PG_SLAB).toBe(PG_SLAB);
      expect(arena.i32[page + Page.cache]).toBe(cache.desc.ptr);
      expect(slabs.slabOf(p)).toBe(head);
      expect(slabs.indexOf(cache.desc, head, p)).toBe(i);
    }
    expect(pageAddress(arena.geometry, head)).toBe(objects[0]);
  });

  it.each([8, 24, 96, 192, 700, 1024, 5000, 9000, 20_000, 40_000, 1 << 20])(
    'of objects of %i bytes overlaps nothing and stays within its pages',
    (size) => {
      const arena = boot({ bytes: 16 << 20 });
      const cache = arena.createCache('c', { size });
      const objects = slabAlloc(arena, cache, cache.objsPerSlab);
      const end = objects[0]! + (PAGE_SIZE << cache.order);
      expect(objects.every((p) => p + size <= end)).toBe(true);
      expect(nodeCounts(arena, cache)).toEqual({ partial: 0, slabs: 1, objects: cache.objsPerSlab });
      for (const p of objects) arena.u8.fill(0xff, p, p + size);
      slabFree(arena, cache, objects);
      expectSound(arena);
    },
  );

  it('falls back to the smallest order that holds one object, which is counted', () => {
    const arena = boot();
    const cache = arena.createCache('c', { size: 1024 });
    expect([cache.order, cache.objsPerSlab, cache.desc.minOrder]).toEqual([2, 16, 0]);
    arena.failPageAlloc(2);
    arena.allocPages(0);
    let objects: number[] = [];
    // Request 2 is the preferred order and refused, request 3 the fallback.
    expect(moved(cache, () => (objects = slabAlloc(arena, cache)))).toEqual({
      ALLOC_SLOWPATH: 1,
      ALLOC_SLAB: 1,
      ORDER_FALLBACK: 1,
    });
    arena.failPageAlloc(0);
    expect(partialList(arena, cache)[0]).toMatchObject({ objects: 4, inuse: 1 });
    expectSound(arena);
    objects.push(...slabAlloc(arena, cache, 3 + 16));
    expect(nodeCounts(arena, cache)).toEqual({ partial: 0, slabs: 2, objects: 20 });
    cache.minPartial = 0;
    slabFree(arena, cache, objects);
    expect(nodeCounts(arena, cache)).toEqual({ partial: 0, slabs: 0, objects: 0 });
    expectSound(arena);
  });

  it('is not made when neither order is to be had: 0, and nothing lost', () => {
    const arena = boot();
    const cache = arena.createCache('c', { size: 1024 });
    const used = arena.meminfo().usedPages;
    arena.failPageAlloc(1);
    expect(moved(cache, () => expect(slabAlloc(arena, cache, 2)).toEqual([0, 0]))).toEqual({
      ALLOC_SLOWPATH: 2,
    });
    expect(arena.failPageAlloc(0)).toEqual({ refused: 4 });
    expect(arena.meminfo().usedPages).toBe(used);
    expectSound(arena);
  });
});

describe('the slow path', () => {
  it('takes from the head of the partial list before it makes a slab', () => {
    const arena = boot();
    const cache = arena.createCache('c', { size: 192 });
    const objects = slabAlloc(arena, cache, 3 * 21);
    expect(moved(cache, () => slabFree(arena, cache, [objects[30]!, objects[3]!]))).toEqual({
      FREE_ADD_PARTIAL: 2,
    });
    expect(moved(cache, () => expect(slabAlloc(arena, cache)).toEqual([objects[30]]))).toEqual({
      ALLOC_SLOWPATH: 1,
    });
    expect(moved(cache, () => expect(slabAlloc(arena, cache)).toEqual([objects[3]]))).toEqual({
      ALLOC_SLOWPATH: 1,
    });
    expect(moved(cache, () => slabAlloc(arena, cache))).toEqual({ ALLOC_SLOWPATH: 1, ALLOC_SLAB: 1 });
    expectSound(arena);
  });

  it('counts an attempt that fails, too', () => {
    const arena = boot({ bytes: 4 << 20 });
    const cache = arena.createCache('c', { size: 1 << 20 });
    const got = slabAlloc(arena, cache, 6);
    const served = got.filter((p) => p !== 0).length;
    expect(served).toBeGreaterThan(0);
    expect(served).toBeLessThan(6);
    expect(cache.stat('ALLOC_SLOWPATH')).toBe(6);
    expectSound(arena);
  });

  it('with two nodes: own partial list, own new slab, and then what others have', () => {
    const arena = boot({ cpus: 2, nodes: 2 });
    const cache = arena.createCache('c', { size: 1024 });
    const nodeOf = (p: number) => pagesOf(arena).nodeOf(virtToPage(arena.geometry, p));
    const [here] = slabAlloc(arena, cache, 1, GFP_KERNEL, 0);
    const [there] = slabAlloc(arena, cache, 1, GFP_KERNEL, 1);
    expect([here, there].map((p) => nodeOf(p!))).toEqual([0, 1]);
    // Both nodes have a partial slab now; the preferred one serves.
    expect(
      moved(cache, () => expect(slabAlloc(arena, cache, 1, GFP_KERNEL, 1).map(nodeOf)).toEqual([1])),
    ).toEqual({
      ALLOC_SLOWPATH: 1,
    });
    const strict = GFP_KERNEL | __GFP_THISNODE;
    while (arena.allocPages(0, strict, 1) !== 0);
    while (slabAlloc(arena, cache, 1, strict, 1)[0] !== 0);
    expect(slabAlloc(arena, cache, 1, GFP_KERNEL, 1).map(nodeOf)).toEqual([0]);
    expect(slabAlloc(arena, cache, 1, strict, 1)).toEqual([0]);
  });
});
