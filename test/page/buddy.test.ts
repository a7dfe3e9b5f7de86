/** The buddy allocator against a model that knows only which pages are free. */

import fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import type { Arena } from '#src/index.js';
import { __GFP_THISNODE, GFP_KERNEL, NUMA_NO_NODE } from '#src/index.js';
import { MAX_PAGE_ORDER, Zone, zoneOf } from '#src/page/index.js';
import { PAGE_SIZE } from '#src/struct/index.js';
import { boot, expectSound, MiB } from '../cache/support/arena.js';

interface Span {
  start: number;
  end: number;
}

const spansOf = (arena: Arena): Span[] =>
  Array.from({ length: arena.geometry.nodes }, (_, node) => {
    const zone = zoneOf(arena.geometry, node);
    return { start: arena.i32[zone + Zone.startPfn]!, end: arena.i32[zone + Zone.endPfn]! };
  });

/** Free blocks by order when free buddies are always merged: the set of free pages alone determines it. */
function mergedBlocks(free: Uint8Array, { start, end }: Span): number[] {
  const blocks = new Array<number>(MAX_PAGE_ORDER + 1).fill(0);
  for (let pfn = start; pfn < end; ) {
    let order = MAX_PAGE_ORDER;
    while (order >= 0 && !isFreeBlock(free, pfn, order, end)) order--;
    if (order < 0) {
      pfn++;
      continue;
    }
    blocks[order]!++;
    pfn += 1 << order;
  }
  return blocks;
}

function isFreeBlock(free: Uint8Array, pfn: number, order: number, end: number): boolean {
  const pages = 1 << order;
  if (pfn % pages !== 0 || pfn + pages > end) return false;
  for (let i = 0; i < pages; i++) if (free[pfn + i] === 0) return false;
  return true;
}

class Model {
  readonly free: Uint8Array;
  readonly spans: Span[];
  readonly blocks = new Map<number, number>();

  constructor(arena: Arena) {
    this.free = new Uint8Array(arena.geometry.endPfn);
    this.spans = spansOf(arena);
    // What the arena itself uses at the start is never given back in these tests: find it by asking for everything.
    const taken: number[] = [];
    for (let p = arena.allocPages(0); p !== 0; p = arena.allocPages(0)) taken.push(p);
    for (const p of taken) this.free[p / PAGE_SIZE] = 1;
    for (const p of taken) arena.freePages(p, 0);
  }

  blocksOf(node: number): number[] {
    return mergedBlocks(this.free, this.spans[node]!);
  }

  /** The first of `nodes` that can serve, or -1. */
  serving(nodes: number[], order: number): number {
    return nodes.find((node) => this.blocksOf(node).some((count, have) => have >= order && count > 0)) ?? -1;
  }

  take(address: number, order: number, node: number): void {
    const pfn = address / PAGE_SIZE;
    expect(pfn % (1 << order), 'alignment').toBe(0);
    const { start, end } = this.spans[node]!;
    expect(pfn >= start && pfn + (1 << order) <= end, `block of node ${node}`).toBe(true);
    for (let i = 0; i < 1 << order; i++) {
      if (this.free[pfn + i] !== 1) expect.fail(`page ${pfn + i} was not free`);
      this.free[pfn + i] = 0;
    }
    this.blocks.set(address, order);
  }

  give(address: number): number {
    const order = this.blocks.get(address)!;
    this.blocks.delete(address);
    this.free.fill(1, address / PAGE_SIZE, address / PAGE_SIZE + (1 << order));
    return order;
  }
}

type Step = { alloc: number; node: number; strict: boolean } | { free: number };

const step = (nodes: number): fc.Arbitrary<Step> =>
  fc.oneof(
    { weight: 3, arbitrary: allocStep(nodes) },
    { weight: 2, arbitrary: fc.record({ free: fc.nat({ max: 1000 }) }) },
  );
const allocStep = (nodes: number): fc.Arbitrary<Step> =>
  fc.record({
    // Small orders more often: they make the fragments.
    alloc: fc.oneof(fc.integer({ min: 0, max: 3 }), fc.integer({ min: 0, max: MAX_PAGE_ORDER })),
    node: fc.integer({ min: NUMA_NO_NODE, max: nodes - 1 }),
    strict: fc.boolean(),
  });

function perform(arena: Arena, model: Model, one: Step): void {
  if ('free' in one) {
    const addresses = [...model.blocks.keys()];
    if (addresses.length === 0) return;
    const address = addresses[one.free % addresses.length]!;
    arena.freePages(address, model.give(address));
  } else {
    const nodes = model.spans.length;
    const preferred = one.node === NUMA_NO_NODE ? arena.cpu.node : one.node;
    const order = one.alloc;
    const all = Array.from({ length: nodes }, (_, distance) => (preferred + distance) % nodes);
    const serving = model.serving(one.strict ? all.slice(0, 1) : all, order);
    const before = arena.meminfo().nodes.map(({ foreign }) => foreign);
    const address = arena.allocPages(order, one.strict ? GFP_KERNEL | __GFP_THISNODE : GFP_KERNEL, one.node);
    expect(address !== 0, `order ${order} for node ${preferred}`).toBe(serving >= 0);
    if (address !== 0) model.take(address, order, serving);
    const after = arena.meminfo().nodes.map(({ foreign }) => foreign);
    expect(after.map((count, node) => count - before[node]!)).toEqual(
      all.map((_, node) => (address !== 0 && node === serving && serving !== preferred ? 1 : 0)),
    );
  }
  arena.meminfo().nodes.forEach(({ freeBlocks, freePages }, node) => {
    expect(freeBlocks).toEqual(model.blocksOf(node));
    expect(freePages).toBe(freeBlocks.reduce((sum, count, order) => sum + count * (1 << order), 0));
  });
}

describe.each([
  { nodes: 1, bytes: 12 * MiB },
  { nodes: 2, bytes: 20 * MiB },
  { nodes: 3, bytes: 3 * MiB },
])('the buddy allocator of $nodes nodes', ({ nodes, bytes }) => {
  const arena = boot({ bytes, cpus: nodes, nodes, maxCaches: 16 });
  const model = new Model(arena);
  const start = arena.meminfo();

  it('agrees with the model after every step, and merges everything in the end', () => {
    const steps = fc.array(step(nodes), { minLength: 1, maxLength: 40 });
    fc.assert(
      fc.property(steps, (list) => {
        for (const one of list) perform(arena, model, one);
        for (const address of [...model.blocks.keys()]) arena.freePages(address, model.give(address));
        const end = arena.meminfo();
        expect(end.nodes.map(({ freeBlocks }) => freeBlocks)).toEqual(
          start.nodes.map(({ freeBlocks }) => freeBlocks),
        );
        expect(end.usedPages).toBe(start.usedPages);
      }),
      { numRuns: 60, verbose: 1 },
    );
    expectSound(arena);
  });
});
