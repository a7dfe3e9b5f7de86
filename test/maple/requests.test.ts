/** What a store asks of the nodes' cache: exactly what the kernel's table says, by the type of the store. */
import { beforeEach, describe, expect, it } from 'vitest';
import type { KmemCache } from '#src/cache/index.js';
import { type Arena, MAPLE_MAX, type MapleTree } from '#src/index.js';
import { boot, expectSound, MiB } from '../cache/support/arena.js';
import { watchNodes } from './support.js';

let arena: Arena;
let nodes: KmemCache;

beforeEach(() => {
  arena = boot({ bytes: 16 * MiB });
  nodes = arena.maple.nodes;
});

/** A tree whose leaves hold entries of 10 keys, side by side, stored from below; `count` of them. */
function treeOf(count: number, { gaps = true, rcu = true } = {}): MapleTree {
  const tree = arena.maple.create({ gaps, rcu })!;
  for (let i = 0; i < count; i++) expect(tree.store(i * 10, i * 10 + 9, i + 1)).toBe(true);
  expect(tree.validate()).toEqual([]);
  return tree;
}

/** Type, request, nodes taken and calls of one store, in one line. */
function storing(tree: MapleTree, first: number, last: number, entry: number): unknown[] {
  const { type, nodes: request } = tree.plan(first, last, entry);
  const watch = watchNodes(nodes);
  const done = entry === 0 ? tree.erase(first, last) : tree.store(first, last, entry);
  expect(done).toBe(true);
  expect(tree.validate()).toEqual([]);
  return [type, request, tree.nodesUsed, watch.calls.filter((call) => call !== 'free')];
}

describe('with readers, a store', () => {
  it('of key 0 alone in an empty tree takes nothing', () => {
    expect(storing(treeOf(0), 0, 0, 8)).toEqual(['store_root', 0, 0, []]);
  });

  it('of key 0 alone takes a node when the entry looks like a reference', () => {
    expect(storing(treeOf(0), 0, 0, 6)).toEqual(['store_root', 1, 1, ['alloc']]);
  });

  it('of another range in an empty tree takes a node', () => {
    expect(storing(treeOf(0), 5, 6, 8)).toEqual(['store_root', 1, 1, ['alloc']]);
    const tree = treeOf(0);
    storing(tree, 0, 0, 8);
    expect(storing(tree, 1, 1, 16)).toEqual(['store_root', 1, 1, ['alloc']]);
    expect(tree.ranges().map(({ entry }) => entry)).toEqual([8, 16]);
  });

  it('of a range that a slot has takes nothing', () => {
    expect(storing(treeOf(5), 10, 19, 99)).toEqual(['exact_fit', 0, 0, []]);
    expect(storing(treeOf(100), 210, 219, 99)).toEqual(['exact_fit', 0, 0, []]);
  });

  it('of everything, in a tree of one leaf, takes a root', () => {
    expect(storing(treeOf(5), 0, MAPLE_MAX, 99)).toEqual(['new_root', 1, 1, ['alloc']]);
    expect(storing(treeOf(5), 0, MAPLE_MAX, 0)).toEqual(['new_root', 1, 0, ['alloc']]);
  });

  it('that moves one boundary takes nothing, unless the root leaf is small', () => {
    expect(storing(treeOf(20), 15, 29, 99)).toEqual(['slot_store', 0, 0, []]);
    expect(storing(treeOf(20), 10, 25, 99)).toEqual(['slot_store', 0, 0, []]);
    expect(storing(treeOf(5), 15, 29, 99)).toEqual(['node_store', 1, 1, ['alloc']]);
  });

  it('that moves two boundaries takes a node', () => {
    expect(storing(treeOf(20), 15, 35, 99)).toEqual(['node_store', 1, 1, ['alloc']]);
  });

  it('that changes the number of slots takes a node', () => {
    expect(storing(treeOf(20), 12, 15, 99)).toEqual(['node_store', 1, 1, ['alloc']]);
    expect(storing(treeOf(20), 10, 39, 99)).toEqual(['node_store', 1, 1, ['alloc']]);
    expect(storing(treeOf(20), 10, 19, 0)).toEqual(['exact_fit', 0, 0, []]);
  });

  it('that overflows the root leaf asks for 2 x 1 + 1', () => {
    // 30 entries and what is free above: 31 slots, all of them.
    expect(storing(treeOf(30), 12, 15, 99)).toEqual(['split_store', 3, 3, ['prefill 3', 'return']]);
  });

  it('that overflows a leaf asks for 3 when the root has room, and for 5 when it has none', () => {
    const tree = treeOf(31);
    expect(tree.height).toBe(2);
    for (let i = 0; i < 15; i++) storing(tree, i * 10 + 5, i * 10 + 9, 500 + i);
    expect(tree.plan(155, 159, 1)).toEqual({ type: 'split_store', nodes: 3 });
    expect(storing(tree, 155, 159, 1)).toEqual(['split_store', 3, 3, ['prefill 3', 'return']]);
    // With a full root, a leaf that cannot push slots to a neighbour splits it, too.
    const wide = treeOf(0);
    const asked: unknown[] = [];
    for (let at = 0; wide.height < 3; at += 10) {
      const { type, nodes: request } = wide.plan(at, at + 9, 1 + at);
      if (type === 'split_store' && request === 5) asked.push(storing(wide, at, at + 9, 1 + at));
      else expect(wide.store(at, at + 9, 1 + at)).toBe(true);
      expect(at).toBeLessThan(20_000);
    }
    expect(asked[0]).toEqual(['split_store', 5, 3, ['prefill 5', 'return']]);
    expect(asked.at(-1)).toEqual(['split_store', 5, 5, ['prefill 5', 'return']]);
  });

  it('that makes a leaf too small asks for 2 x (h - s) + 1, or up to the vacant level', () => {
    const tree = treeOf(100);
    expect(tree.height).toBe(2);
    // Erasing within a leaf until the next one would be too much.
    let key = 0;
    while (tree.plan(key, key + 29, 7).type !== 'rebalance') {
      expect(tree.store(key, key + 29, 7)).toBe(true);
      key += 30;
      expect(key).toBeLessThan(300);
    }
    expect(tree.plan(key, key + 29, 7)).toEqual({ type: 'rebalance', nodes: 3 });
    const [type, request, used, calls] = storing(tree, key, key + 29, 7);
    expect([type, request, calls]).toEqual(['rebalance', 3, ['prefill 3', 'return']]);
    // Two leaves became one or two, below a new root.
    expect([2, 3]).toContain(used);
  });

  it('that spans leaves asks for 3 a level and 1', () => {
    const tree = treeOf(100);
    expect(storing(tree, 5, 905, 99).slice(0, 2)).toEqual(['spanning_store', 7]);
    const higher = treeOf(1200);
    expect(higher.height).toBe(3);
    const watch = watchNodes(nodes);
    expect(higher.plan(5, 11_905, 99)).toEqual({ type: 'spanning_store', nodes: 10 });
    expect(higher.store(5, 11_905, 99)).toBe(true);
    expect(watch.calls).toEqual(['prefill 10', 'return']);
    // Below an inner node with room, only what is below is asked for.
    const near = treeOf(2600);
    expect(near.height).toBe(3);
    const plans = Array.from({ length: 2590 }, (_, i) => near.plan(i * 10 + 5, i * 10 + 15, 99));
    const spanning = new Set(plans.filter(({ type }) => type === 'spanning_store').map((plan) => plan.nodes));
    expect([...spanning].sort((a, b) => a - b)).toEqual([7, 10]);
  });

  it('that frees the end of a leaf spans, too: no leaf but the last ends with a free range', () => {
    const tree = treeOf(100);
    const plans = Array.from({ length: 99 }, (_, i) => tree.plan(i * 10, i * 10 + 9, 0));
    const spanning = plans.filter(({ type }) => type === 'spanning_store');
    expect(spanning.length).toBeGreaterThan(2);
    expect(spanning.length).toBeLessThan(10);
    expect(new Set(spanning.map((plan) => plan.nodes))).toEqual(new Set([7]));
  });
});

describe('without readers, a store', () => {
  it.each([
    ['append', 100, 109],
    ['slot_store', 15, 29],
    ['slot_store', 15, 35],
    ['node_store', 12, 15],
  ])('in a leaf is made in place: %s', (type, first, last) => {
    const tree = treeOf(type === 'append' ? 10 : 20, { rcu: false });
    for (let i = 10; i < 14 && type === 'append'; i++) tree.store(i * 10, i * 10 + 9, 5);
    const at = type === 'append' ? 140 : first;
    expect(storing(tree, at, type === 'append' ? 149 : last, 99)).toEqual([type, 0, 0, []]);
  });

  it('frees what it replaces at once', () => {
    const tree = treeOf(100, { rcu: false });
    const before = nodes.stats();
    expect(tree.store(5, 905, 9)).toBe(true);
    const after = nodes.stats();
    expect(after.FREE_RCU_SHEAF).toBe(before.FREE_RCU_SHEAF);
    expect(after.FREE_FASTPATH).toBeGreaterThan(before.FREE_FASTPATH + 4);
  });
});

describe('preallocated nodes', () => {
  it('are asked for by alloc for one, else by prefill, and by refill when there are some', () => {
    const tree = treeOf(100);
    let at = 2; // in a leaf that has room
    while (tree.plan(at, at + 3, 9).type !== 'node_store') at += 10;
    const watch = watchNodes(nodes);
    const { free } = nodes;
    nodes.free = (p) => {
      watch.calls.push('free');
      free.call(nodes, p);
    };
    tree.lock();
    expect(tree.preallocate(at, at + 3, 9)).toBe(true); // 1 node
    expect(tree.preallocate(at, at + 3, 9)).toBe(true); // which is there
    expect(watch.calls).toEqual(['alloc']);
    expect(tree.preallocate(5, 905, 9)).toBe(true); // 7: the single one goes back
    expect(watch.calls).toEqual(['alloc', 'free', 'prefill 7']);
    expect(tree.preallocate(at, at + 3, 9)).toBe(true); // a sheaf is enough
    expect(tree.preallocate(10, 19, 9)).toBe(true); // and nothing is nothing
    expect(watch.calls).toHaveLength(3);
    tree.storePrealloc(10, 19, 9);
    tree.unlock();
    expect(watch.calls).toEqual(['alloc', 'free', 'prefill 7', 'return']);
    expect(tree.nodesUsed).toBe(0);
    delete (nodes as Partial<KmemCache>).free;
    expectSound(arena);
  });

  it('are refilled when a sheaf in hand has too few', () => {
    const tree = treeOf(1200);
    const watch = watchNodes(nodes);
    tree.lock();
    expect(tree.preallocate(5, 11_905, 9)).toBe(true);
    // One sheaf serves store after store, as long as it lasts.
    for (let i = 0; i < 40; i++) {
      const first = i * 240 + 3;
      expect(tree.preallocate(first, first + 1, 9 + i)).toBe(true);
      tree.storePrealloc(first, first + 1, 9 + i);
    }
    tree.unlock();
    expect(tree.validate()).toEqual([]);
    expect(watch.calls[0]).toBe('prefill 10');
    expect(watch.calls.at(-1)).toBe('return');
    expect(watch.calls.slice(1, -1).length).toBeGreaterThan(0);
    expect(watch.calls.slice(1, -1).every((call) => /^refill \d+$/.test(call))).toBe(true);
  });
});
