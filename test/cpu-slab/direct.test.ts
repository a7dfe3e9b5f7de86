/** Layer 'none': straight to the slabs, counted as slow, and no pcs lock at all. */

import { describe, expect, it } from 'vitest';
import { LockClass } from '#src/sync/index.js';
import { boot, expectSound, freeMany, moved, nodeCounts, secondCpu } from '../cache/support/arena.js';
import { POLICIES } from './support.js';

const O = 8;
const CASES = POLICIES.flatMap((lockPolicy) => [1, 2].map((nodes) => ({ lockPolicy, nodes })));

describe.each(CASES)('policy $lockPolicy, $nodes nodes', (options) => {
  const begin = () => {
    const arena = boot({ ...options, bytes: 16 << 20, lockStat: 'contended' });
    const cache = arena.createCache('c', { size: 4096, layer: 'none' });
    const tries = (): number => {
      const { acquisitions, contentions } = arena.lockStat()[LockClass.CpuSheaves]!;
      return acquisitions + contentions;
    };
    return { arena, cache, tries };
  };

  it('each operation is a slow one, and tries no pcs lock', () => {
    const { arena, cache, tries } = begin();
    const before = tries();
    const held: number[] = [];
    expect(moved(cache, () => held.push(cache.alloc(), cache.alloc()))).toEqual({
      ALLOC_SLOWPATH: 2,
      ALLOC_SLAB: 1,
    });
    expect(moved(cache, () => held.push(cache.allocNode(0)))).toEqual({ ALLOC_SLOWPATH: 1 });
    expect(moved(cache, () => freeMany(cache, held))).toEqual({ FREE_SLOWPATH: 3 });
    const out = new Int32Array(3 * O);
    expect(moved(cache, () => expect(cache.allocBulk(out, 2 * O)).toBe(true))).toEqual({
      ALLOC_SLOWPATH: 2 * O,
      ALLOC_SLAB: 1,
    });
    expect(moved(cache, () => cache.freeBulk(out, 2 * O))).toEqual({
      FREE_SLOWPATH: 2 * O,
      FREE_ADD_PARTIAL: 2,
    });
    expect(tries()).toBe(before);
    expectSound(arena);
    expect(cache.shrink()).toEqual({ slabs: 0, skippedCpus: [] });
    expect(cache.destroy()).toMatchObject({ leaked: 0 });
    expectSound(arena);
  });

  it('an object of a wanted node, counted when it is not this CPU’s', () => {
    const { arena, cache } = begin();
    const node = options.nodes - 1;
    const moves = moved(cache, () => cache.allocNode(node));
    expect(moves).toEqual({
      ALLOC_SLOWPATH: 1,
      ALLOC_SLAB: 1,
      ...(node === 0 ? {} : { ALLOC_NODE_MISMATCH: 1 }),
    });
    expect(nodeCounts(arena, cache, node).slabs).toBe(1);
    expect(() => cache.allocNode(2)).toThrow(RangeError);
  });

  it('without memory: 0, and all or nothing', () => {
    const { arena, cache } = begin();
    const first = cache.alloc();
    const out = new Int32Array(2 * O);
    arena.failPageAlloc(1);
    expect(cache.allocBulk(out, 2 * O)).toBe(false);
    expect(cache.allocBulk(out, O - 1)).toBe(true);
    expect(moved(cache, () => expect(cache.alloc()).toBe(0))).toEqual({ ALLOC_SLOWPATH: 1 });
    arena.failPageAlloc(0);
    cache.freeBulk(out, O - 1);
    cache.free(first);
    expectSound(arena);
  });

  it('another CPU’s objects and what is no object are told apart', () => {
    const { arena, cache } = begin();
    const other = secondCpu(arena);
    const p = other.openCache('c').alloc();
    cache.free(p);
    expect(() => cache.free(p)).toThrow(/Object already free/);
    expect(() => cache.free(p + 8)).toThrow(/bytes into an object/);
    other.endTurn();
    expectSound(arena);
  });
});
