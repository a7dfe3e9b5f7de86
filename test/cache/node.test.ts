/** Memory nodes: where objects come from, and where they go back to. */

import { describe, expect, it } from 'vitest';
import { __GFP_THISNODE, GFP_KERNEL, GFP_NOWAIT, type LockPolicy, NUMA_NO_NODE } from '#src/index.js';
import { virtToPage, Zone, zoneOf } from '#src/page/index.js';
import {
  allocMany,
  barnSizes,
  boot,
  expectSound,
  freeMany,
  moved,
  nodeCounts,
  pagesOf,
  secondCpu,
  sheafSizes,
  sheavesOf,
} from './support/arena.js';

const POLICIES: LockPolicy[] = ['turn', 'op'];

describe('the node of a CPU', () => {
  it.each([
    [4, 2, [0, 0, 1, 1]],
    [5, 2, [0, 0, 0, 1, 1]],
    [3, 3, [0, 1, 2]],
    [4, 1, [0, 0, 0, 0]],
  ])('%i CPUs on %i nodes are dealt in runs', (cpus, nodes, expected) => {
    const arena = boot({ cpus, nodes, bytes: 16 << 20 });
    const others = Array.from({ length: cpus - 1 }, (_, i) => secondCpu(arena, i + 1));
    expect([arena, ...others].map(({ cpu }) => cpu.node)).toEqual(expected);
  });
});

describe.each(POLICIES)('with two nodes, policy %s', (policy) => {
  const setup = (check: 'none' | 'free' | 'full' = 'free') => {
    const arena = boot({ cpus: 2, nodes: 2, lockPolicy: policy, bytes: 16 << 20, check });
    const cache = arena.createCache('c', { size: 4096 });
    const other = secondCpu(arena);
    const theirs = other.openCache('c');
    const nodeOf = (p: number) => pagesOf(arena).nodeOf(virtToPage(arena.geometry, p));
    return { arena, cache, other, theirs, nodeOf };
  };

  it('each CPU is served from its own node', () => {
    const { arena, cache, other, theirs, nodeOf } = setup();
    expect(new Set(allocMany(cache, 20).map(nodeOf))).toEqual(new Set([0]));
    expect(new Set(allocMany(theirs, 20).map(nodeOf))).toEqual(new Set([1]));
    other.endTurn();
    expectSound(arena);
  });

  it('a refill for a request keeps to what the request allows', () => {
    const { arena, cache, nodeOf } = setup();
    const strict = GFP_KERNEL | __GFP_THISNODE;
    while (arena.allocPages(0, strict, 0) !== 0);
    expect(moved(cache, () => expect(cache.allocNode(0, strict)).toBe(0))).toMatchObject({
      ALLOC_SLOWPATH: 1,
    });
    expect(nodeCounts(arena, cache, 1), 'nothing was fetched from the other node').toEqual({
      partial: 0,
      slabs: 0,
      objects: 0,
    });
    expect(nodeOf(cache.allocNode(0)), 'which serves who does not mind').toBe(1);
    arena.endTurn();
    expectSound(arena);
  });

  it.each(['none', 'free', 'full'] as const)(
    'objects of the other node go straight to their slab, check %s',
    (check) => {
      const { arena, cache, other, theirs } = setup(check);
      const remote = allocMany(theirs, 9);
      other.endTurn();
      const before = [sheavesOf(arena, cache), sheavesOf(arena, theirs, 1)];
      const { FREE_ADD_PARTIAL: _, ...moves } = moved(cache, () => freeMany(cache, remote));
      expect(moves).toEqual({ FREE_SLOWPATH: 9 });
      expect([sheavesOf(arena, cache), sheavesOf(arena, theirs, 1)]).toEqual(before);
      expectSound(arena);
    },
  );

  it.each(['none', 'free', 'full'] as const)(
    'so they do in bulk, the local ones into the sheaves, check %s',
    (check) => {
      const { arena, cache, other, theirs } = setup(check);
      const remote = allocMany(theirs, 5);
      const local = allocMany(cache, 4);
      other.endTurn();
      arena.endTurn();
      const mixed = Int32Array.from([...remote.slice(0, 2), ...local, ...remote.slice(2)]);
      const { FREE_ADD_PARTIAL: _, ...moves } = moved(cache, () => cache.freeBulk(mixed, 9));
      expect(moves).toEqual({ FREE_SLOWPATH: 5, FREE_FASTPATH: 4 });
      arena.endTurn();
      expect(new Set(sheavesOf(arena, cache).main.objects)).toEqual(new Set(local));
      expectSound(arena);
    },
  );

  it('no remote object is ever in a sheaf or a barn, after any mixture of frees', () => {
    const { arena, cache, other, theirs, nodeOf } = setup();
    const held = [...allocMany(cache, 60), ...allocMany(theirs, 60)];
    held.forEach((p, i) => {
      (i % 3 === 0 ? theirs : cache).free(p);
    });
    arena.endTurn();
    other.endTurn();
    for (const cpu of [0, 1]) {
      const { main, spare } = sheavesOf(arena, cache, cpu);
      expect([...main.objects, ...(spare?.objects ?? [])].every((p) => nodeOf(p) === cpu)).toBe(true);
    }
    expect(barnSizes(arena, cache, 0).full.length + barnSizes(arena, cache, 1).full.length).toBeGreaterThan(
      0,
    );
    expectSound(arena);
  });

  it('a request for this node is served from the sheaves', () => {
    const { arena, cache, nodeOf } = setup();
    allocMany(cache, 1);
    let p = 0;
    expect(moved(cache, () => (p = cache.allocNode(0)))).toEqual({ ALLOC_FASTPATH: 1 });
    expect(nodeOf(p)).toBe(0);
    expect(moved(cache, () => cache.allocNode(NUMA_NO_NODE))).toEqual({ ALLOC_FASTPATH: 1 });
    allocMany(cache, 1);
    expect(sheafSizes(arena, cache)).toEqual({ main: 0, spare: 0 });
    expect(moved(cache, () => cache.allocNode(0))).toEqual({
      BARN_GET_FAIL: 1,
      SHEAF_REFILL: 4,
      ALLOC_FASTPATH: 1,
    });
    arena.endTurn();
    expectSound(arena);
  });

  it('a request for the other node passes them by', () => {
    const { arena, cache, nodeOf } = setup();
    allocMany(cache, 1);
    const before = sheavesOf(arena, cache);
    let p = 0;
    expect(moved(cache, () => (p = cache.allocNode(1)))).toEqual({
      ALLOC_NODE_MISMATCH: 1,
      ALLOC_SLOWPATH: 1,
      ALLOC_SLAB: 1,
    });
    expect(nodeOf(p)).toBe(1);
    expect(sheavesOf(arena, cache)).toEqual(before);
    expect(nodeCounts(arena, cache, 1)).toEqual({ partial: 1, slabs: 1, objects: 8 });
    expectSound(arena);
  });

  it('the object on top stays when it is of another node than the request', () => {
    const { arena, cache, nodeOf } = setup();
    // Node 0 is out of pages: the refill brings objects of node 1 into the sheaves of node 0.
    while (arena.allocPages(0, GFP_KERNEL | __GFP_THISNODE, 0) !== 0);
    const p = cache.alloc();
    expect(nodeOf(p)).toBe(1);
    arena.endTurn();
    const before = sheavesOf(arena, cache);
    expect(before.main.objects.map(nodeOf)).toEqual([1, 1, 1]);
    // With GFP_KERNEL it would reclaim, and empty the sheaves in doing so.
    expect(moved(cache, () => expect(cache.allocNode(0, GFP_NOWAIT | __GFP_THISNODE)).toBe(0))).toEqual({
      ALLOC_NODE_MISMATCH: 1,
      ALLOC_SLOWPATH: 1,
    });
    expect(sheavesOf(arena, cache)).toEqual(before);
    expectSound(arena);
  });

  it('an exhausted node is helped out, unless the caller wants that node only', () => {
    const { arena, cache, nodeOf } = setup();
    while (arena.allocPages(0, GFP_KERNEL | __GFP_THISNODE, 1) !== 0);
    expect(cache.allocNode(1, GFP_KERNEL | __GFP_THISNODE)).toBe(0);
    expect(nodeOf(cache.allocNode(1))).toBe(0);
    arena.endTurn();
    expectSound(arena);
  });

  it('nodes are numbers that exist', () => {
    const { cache } = setup();
    for (const node of [2, -2, 0.5, Number.NaN]) {
      expect(() => cache.allocNode(node)).toThrow(/node is .*; it must be an integer from 0 to 1/);
    }
  });
});

describe('a handle', () => {
  it('knows the byte range of its own node', () => {
    const arena = boot({ cpus: 3, nodes: 3, bytes: 16 << 20 });
    const third = secondCpu(arena, 2);
    const zone = zoneOf(arena.geometry, 2);
    const p = third.kmalloc(64);
    expect(p >> 12).toBeGreaterThanOrEqual(arena.i32[zone + Zone.startPfn]!);
    expect(p >> 12).toBeLessThan(arena.i32[zone + Zone.endPfn]!);
  });
});
