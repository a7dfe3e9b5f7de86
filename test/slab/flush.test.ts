/** Many objects freed at once, as a flush does: the slabs that move on or off a list do so under one list_lock. */

import { describe, expect, it } from 'vitest';
import type { KmemCache } from '#src/cache/index.js';
import { __GFP_THISNODE, type Arena, GFP_KERNEL } from '#src/index.js';
import { listLock, nodeOf } from '#src/slab/index.js';
import { LockClass } from '#src/sync/index.js';
import { boot, expectSound, moved, nodeCounts, partialList } from '../cache/support/arena.js';
import { cutIn, fullSlabs, listLocks, slabAlloc, slabFree, slabFreeMany } from './support.js';

const O = 8;

function setup(nodes = 1): { arena: Arena; cache: KmemCache } {
  const arena = boot({ cpus: 2, nodes, bytes: 16 << 20, lockStat: 'contended' });
  const cache = arena.createCache('c', { size: 4096 });
  expect([cache.objsPerSlab, cache.minPartial]).toEqual([O, 6]);
  return { arena, cache };
}

/** Two nodes with full slabs: a and b on node 0, x and y on node 1. */
function twoNodes() {
  const { arena, cache } = setup(2);
  const full = (node: number) => slabAlloc(arena, cache, O, GFP_KERNEL | __GFP_THISNODE, node);
  const [a, b, x, y] = [full(0), full(0), full(1), full(1)];
  return { arena, cache, a, b, x, y };
}

const addresses = (arena: Arena, cache: KmemCache, node = 0) =>
  partialList(arena, cache, node).map(({ address }) => address);

/** What freeing `objects` moves, and how often it takes list_lock. */
function flush(arena: Arena, cache: KmemCache, objects: number[]) {
  const before = listLocks(arena);
  const moves = moved(cache, () => slabFreeMany(arena, cache, objects));
  return { moves, locks: listLocks(arena) - before };
}

describe('a flush', () => {
  it('of several full slabs lists them in order under one list_lock', () => {
    const { arena, cache } = setup();
    const slabs = fullSlabs(arena, cache, 5);
    const firsts = [3, 0, 4, 1].map((i) => slabs[i]![2]!);
    expect(flush(arena, cache, firsts)).toEqual({ moves: { FREE_ADD_PARTIAL: 4 }, locks: 1 });
    expect(addresses(arena, cache)).toEqual([3, 0, 4, 1].map((i) => slabs[i]![0]));
    expectSound(arena);
  });

  it('into slabs that stay partial takes none; one that moves among them takes one', () => {
    const { arena, cache } = setup();
    const slabs = fullSlabs(arena, cache, 4);
    for (const slab of slabs.slice(0, 3)) slabFree(arena, cache, slab.slice(0, 1));
    const second = slabs.slice(0, 3).map((slab) => slab[1]!);
    expect(flush(arena, cache, second)).toEqual({ moves: {}, locks: 0 });
    const third = slabs.map((slab) => slab[2]!);
    expect(flush(arena, cache, third)).toEqual({ moves: { FREE_ADD_PARTIAL: 1 }, locks: 1 });
    expect(addresses(arena, cache)).toEqual(slabs.map(([p]) => p));
    expectSound(arena);
  });

  it('discards what became empty once list_lock is given up, and keeps min_partial of them', () => {
    const { arena, cache } = setup();
    cache.minPartial = 2;
    const slabs = fullSlabs(arena, cache, 5);
    for (const slab of slabs.slice(3)) slabFree(arena, cache, slab.slice(0, 1));
    const used = arena.meminfo().usedPages;
    const list = listLock(nodeOf(arena.i32, cache.desc, 0));
    let held = -1;
    cutIn(arena, LockClass.Zone, 'before lock', 1, () => {
      held = arena.i32[list]!;
    });
    // Two are partial already: each of the full ones that becomes empty is one too many, and so is the first of those.
    const objects = [...slabs.slice(0, 3).flat(), ...slabs[3]!.slice(1)];
    expect(flush(arena, cache, objects)).toEqual({
      moves: { FREE_SLAB: 4, FREE_REMOVE_PARTIAL: 1 },
      locks: 1,
    });
    expect(held, 'list_lock when the first page is freed').toBe(0);
    expect(arena.meminfo().usedPages).toBe(used - 4 * O);
    expect(addresses(arena, cache)).toEqual([slabs[4]![0]]);
    expect(nodeCounts(arena, cache)).toEqual({ partial: 1, slabs: 1, objects: O });
    expectSound(arena);
  });

  it('takes the list_lock of each node once when the list is sorted by node', () => {
    const { arena, cache, a, b, x, y } = twoNodes();
    expect(flush(arena, cache, [a[0]!, b[0]!, x[0]!, y[0]!])).toEqual({
      moves: { FREE_ADD_PARTIAL: 4 },
      locks: 2,
    });
    expect(addresses(arena, cache, 0)).toEqual([a[0], b[0]]);
    expect(addresses(arena, cache, 1)).toEqual([x[0], y[0]]);
    expectSound(arena);
  });

  it('takes them anew at each change of node, and mixes no lists up', () => {
    const { arena, cache, a, b, x, y } = twoNodes();
    expect(flush(arena, cache, [y[3]!, b[3]!, x[3]!, a[3]!])).toEqual({
      moves: { FREE_ADD_PARTIAL: 4 },
      locks: 4,
    });
    expect(addresses(arena, cache, 0)).toEqual([b[0], a[0]]);
    expect(addresses(arena, cache, 1)).toEqual([y[0], x[0]]);
    expectSound(arena);
  });

  it('discards slabs of several nodes, each in the counts and the zone of its own', () => {
    const { arena, cache, a, b, x, y } = twoNodes();
    cache.minPartial = 0;
    const free = () => arena.meminfo().nodes.map(({ freePages }) => freePages);
    const before = free();
    expect(flush(arena, cache, [...a, ...x, b[0]!, ...y])).toEqual({
      moves: { FREE_SLAB: 3, FREE_ADD_PARTIAL: 1 },
      locks: 4,
    });
    expect(free()).toEqual([before[0]! + O, before[1]! + 2 * O]);
    expect(nodeCounts(arena, cache, 0)).toEqual({ partial: 1, slabs: 1, objects: O });
    expect(nodeCounts(arena, cache, 1)).toEqual({ partial: 0, slabs: 0, objects: 0 });
    expectSound(arena);
  });

  it('of more objects than one chunk has goes from the end, with one list_lock for each chunk', () => {
    const { arena, cache } = setup();
    const slabs = fullSlabs(arena, cache, 70);
    const firsts = slabs.map(([p]) => p!);
    expect(flush(arena, cache, firsts)).toEqual({ moves: { FREE_ADD_PARTIAL: 70 }, locks: 2 });
    expect(addresses(arena, cache)).toEqual([...firsts.slice(6), ...firsts.slice(0, 6)]);
    expectSound(arena);
  });
});
