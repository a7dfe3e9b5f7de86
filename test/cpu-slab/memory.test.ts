/** Nodes, and memory that runs out. */

import { describe, expect, it } from 'vitest';
import { __GFP_THISNODE, __GFP_ZERO, GFP_KERNEL } from '#src/index.js';
import { virtToPage } from '#src/page/index.js';
import { expectSound, freeMany, nodeCounts, pagesOf, partialList } from '../cache/support/arena.js';
import { cpuView, fillSlabs, movedAll, O, POLICIES, setup } from './support.js';

describe.each(POLICIES)('two nodes, policy %s', (lockPolicy) => {
  const begin = () => {
    const scene = setup({ lockPolicy, nodes: 2 });
    const nodeOf = (p: number): number => pagesOf(scene.arena).nodeOf(virtToPage(scene.arena.geometry, p));
    return { ...scene, nodeOf };
  };

  it('a slab of the wrong node is deactivated with what is left of it', () => {
    const { arena, cache, nodeOf } = begin();
    cache.alloc();
    let p = 0;
    expect(movedAll(cache, () => (p = cache.allocNode(1)))).toEqual({
      ALLOC_SLOWPATH: 1,
      ALLOC_NODE_MISMATCH: 1,
      DEACTIVATE_TO_HEAD: 1,
      ALLOC_SLAB: 1,
    });
    expect(nodeOf(p)).toBe(1);
    expect(partialList(arena, cache, 0)).toMatchObject([{ inuse: 1 }]);
    // Whoever does not care gets objects of the slab that is there, on whatever node; so does who wants this one.
    expect(movedAll(cache, () => expect(nodeOf(cache.alloc())).toBe(1))).toEqual({ ALLOC_FASTPATH: 1 });
    expect(movedAll(cache, () => expect(nodeOf(cache.allocNode(1))).toBe(1))).toEqual({ ALLOC_FASTPATH: 1 });
    arena.endTurn();
    expectSound(arena);
  });

  it('full, empty, or with frees by others: each is another way out', () => {
    const { arena, cache, theirs, other } = begin();
    cache.minPartial = 0;
    const [full] = fillSlabs(cache, 1) as [number[]];
    const onOther = (): Record<string, number> => movedAll(cache, () => cache.allocNode(1));
    expect(onOther()).toEqual({
      ALLOC_SLOWPATH: 1,
      ALLOC_NODE_MISMATCH: 1,
      DEACTIVATE_FULL: 1,
      ALLOC_SLAB: 1,
    });
    const last = cache.allocNode(0);
    cache.free(last);
    expect(onOther()).toMatchObject({ DEACTIVATE_EMPTY: 1, FREE_SLAB: 1 });
    const freed = cache.allocNode(0);
    theirs.free(freed);
    expect(onOther()).toMatchObject({ DEACTIVATE_REMOTE_FREES: 1, DEACTIVATE_EMPTY: 1 });
    const held = [cache.allocNode(0), cache.allocNode(0)];
    theirs.free(held[0]!);
    expect(onOther()).toMatchObject({ DEACTIVATE_REMOTE_FREES: 1, DEACTIVATE_TO_TAIL: 1 });
    freeMany(cache, full);
    arena.endTurn();
    other.endTurn();
    expectSound(arena);
  });

  it('cpu partial slabs of the wrong node go to their node', () => {
    const { arena, cache, nodeOf } = begin();
    const slabs = fillSlabs(cache, 2);
    cache.free(slabs[0]![0]!);
    expect(movedAll(cache, () => expect(nodeOf(cache.allocNode(1))).toBe(1))).toEqual({
      ALLOC_SLOWPATH: 1,
      ALLOC_NODE_MISMATCH: 1,
      DEACTIVATE_FULL: 1,
      FREE_ADD_PARTIAL: 1,
      ALLOC_SLAB: 1,
    });
    expect(cpuView(arena, cache).partial).toEqual([]);
    expect(nodeCounts(arena, cache, 0).partial).toBe(1);
    arena.endTurn();
    expectSound(arena);
  });

  it('takes slabs of a node that has them to spare, and falls back only if it may', () => {
    const { arena, cache, theirs, other, nodeOf } = begin();
    cache.minPartial = 0;
    const slabs = fillSlabs(theirs, 3);
    for (const [p] of slabs) theirs.free(p!);
    theirs.flushThisCpu();
    expect(nodeCounts(arena, cache, 1).partial).toBe(3);
    expect(movedAll(cache, () => expect(nodeOf(cache.alloc())).toBe(1))).toMatchObject({
      ALLOC_FROM_PARTIAL: 1,
    });
    // All pages of node 0: what wants that node alone gets nothing, what prefers it gets the other one's.
    const blocks: number[] = [];
    for (let order = 10; order >= 0; order--) {
      for (let p = arena.allocPages(order, GFP_KERNEL | __GFP_THISNODE, 0); p !== 0; ) {
        blocks.push(p);
        p = arena.allocPages(order, GFP_KERNEL | __GFP_THISNODE, 0);
      }
    }
    expect(cache.allocNode(0, GFP_KERNEL | __GFP_THISNODE)).toBe(0);
    expect(nodeOf(cache.allocNode(0))).toBe(1);
    arena.endTurn();
    other.endTurn();
    expectSound(arena);
    expect(blocks.length).toBeGreaterThan(0);
  });
});

const CASES = POLICIES.flatMap((lockPolicy) => [1, 2].map((nodes) => ({ lockPolicy, nodes })));

describe.each(CASES)('out of memory, policy $lockPolicy, $nodes nodes', (options) => {
  it('alloc returns 0 and all is as before', () => {
    const { arena, cache } = setup(options);
    const [objects] = fillSlabs(cache, 1) as [number[]];
    arena.failPageAlloc(1);
    expect(movedAll(cache, () => expect(cache.alloc()).toBe(0))).toEqual({
      ALLOC_SLOWPATH: 1,
      DEACTIVATE_BYPASS: 1,
    });
    expect(cache.allocNode(0)).toBe(0);
    cache.free(objects[3]!);
    expect(cache.alloc()).toBe(objects[3]);
    arena.failPageAlloc(0);
    expect(cache.alloc()).not.toBe(0);
    arena.endTurn();
    expectSound(arena);
  });

  it('allocBulk gives all or nothing', () => {
    const { arena, cache } = setup(options);
    const out = new Int32Array(3 * O);
    const first = cache.alloc();
    arena.failPageAlloc(1);
    expect(movedAll(cache, () => expect(cache.allocBulk(out, O)).toBe(false))).toEqual({
      ALLOC_FASTPATH: O - 1,
      ALLOC_SLOWPATH: 1,
      DEACTIVATE_BYPASS: 1,
      FREE_SLOWPATH: O - 1,
      CPU_PARTIAL_FREE: 1,
    });
    arena.endTurn();
    expectSound(arena);
    expect(cache.allocBulk(out, O - 1)).toBe(true);
    arena.failPageAlloc(0);
    expect(cache.allocBulk(out.subarray(O), 2 * O)).toBe(true);
    expect(new Set([first, ...out.subarray(0, O - 1), ...out.subarray(O)]).size).toBe(3 * O);
    cache.freeBulk(out, O - 1);
    cache.freeBulk(out.subarray(O), 2 * O);
    cache.free(first);
    arena.endTurn();
    expectSound(arena);
    cache.shrink();
    expect(cache.destroy()).toMatchObject({ leaked: 0 });
  });

  it('a smaller order serves, with fewer objects', () => {
    const { arena, cache } = setup(options);
    // Every second request: the preferred order is refused, the smallest is granted.
    arena.failPageAlloc(2);
    arena.freePages(arena.allocPages(0), 0);
    let p = 0;
    expect(movedAll(cache, () => (p = cache.alloc()))).toEqual({
      ALLOC_SLOWPATH: 1,
      ORDER_FALLBACK: 1,
      ALLOC_SLAB: 1,
    });
    arena.failPageAlloc(0);
    expect(cpuView(arena, cache)).toEqual({ slab: p, free: [], partial: [] });
    const next = cache.alloc();
    expect(next).not.toBe(0);
    arena.endTurn();
    expectSound(arena);
    freeMany(cache, [p, next]);
    cache.shrink();
    expect(cache.destroy()).toMatchObject({ leaked: 0 });
    expectSound(arena);
  });

  it('zeroes what is asked for zeroed', () => {
    const { arena, cache } = setup(options);
    const out = new Int32Array(O);
    cache.allocBulk(out, O);
    for (const p of out) arena.i32.fill(-1, p >> 2, (p + 4096) >> 2);
    cache.freeBulk(out, O);
    const isZero = (p: number): boolean =>
      arena.i32.subarray(p >> 2, (p + 4096) >> 2).every((word) => word === 0);
    expect(isZero(cache.alloc(GFP_KERNEL | __GFP_ZERO))).toBe(true);
    expect(cache.allocBulk(out, O - 1, GFP_KERNEL | __GFP_ZERO)).toBe(true);
    expect([...out.subarray(0, O - 1)].every(isZero)).toBe(true);
  });
});
