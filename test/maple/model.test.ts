/** A maple tree is a sorted array of ranges, whatever is done to it. GRANARY_MAPLE_RUNS=10000 for the long form. */
import fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import { MAPLE_MAX, type MapleTree, STORE_TYPES } from '#src/index.js';
import { RangeModel } from '#workers/litmus/rangeModel.js';
import { boot, expectSound, MiB } from '../cache/support/arena.js';
import { generator } from './support.js';

const RUNS = Number(process.env.GRANARY_MAPLE_RUNS ?? 80);
const SEED = 4242;
const OPS = 200;
/** In the long form after each operation. */
const VALIDATE_EVERY = RUNS > 1000 ? 1 : 5;

type Op =
  | { kind: 'store'; first: number; length: number; entry: number }
  | { kind: 'erase'; first: number; length: number; entry: number }
  | { kind: 'alloc'; size: number; min: number; max: number; entry: number }
  | { kind: 'allocReverse'; size: number; min: number; max: number; entry: number }
  | { kind: 'erase-one'; at: number }
  | { kind: 'look'; key: number; length: number };

/** Keys that meet: a small space, a wide one, and its ends. */
const spaces = [400, 6000, MAPLE_MAX] as const;

function operation(top: number): fc.Arbitrary<Op> {
  const key = fc.oneof(
    { arbitrary: fc.integer({ min: 0, max: top }), weight: 20 },
    { arbitrary: fc.constantFrom(0, 1, MAPLE_MAX - 1, MAPLE_MAX), weight: 1 },
  );
  const length = fc.oneof(
    { arbitrary: fc.integer({ min: 1, max: 8 }), weight: 12 },
    { arbitrary: fc.integer({ min: 1, max: Math.max(8, top >> 3) }), weight: 3 },
    { arbitrary: fc.integer({ min: 1, max: top }), weight: 1 },
  );
  const entry = fc.integer({ min: 1, max: 1000 });
  return fc.oneof(
    { arbitrary: fc.record({ kind: fc.constant('store' as const), first: key, length, entry }), weight: 12 },
    { arbitrary: fc.record({ kind: fc.constant('erase' as const), first: key, length, entry }), weight: 3 },
    { arbitrary: fc.record({ kind: fc.constant('erase-one' as const), at: fc.nat(1000) }), weight: 5 },
    {
      arbitrary: fc.record({
        kind: fc.constantFrom('alloc' as const, 'allocReverse' as const),
        size: fc.integer({ min: 1, max: 20 }),
        min: key,
        max: key,
        entry,
      }),
      weight: 4,
    },
    { arbitrary: fc.record({ kind: fc.constant('look' as const), key, length }), weight: 3 },
  );
}

/** What the tree holds before: nothing, or so many ranges that it has two to four levels. */
const crowds = [0, 0, 60, 400, 1500];

const sequences = fc.constantFrom(...spaces).chain((top) =>
  fc.record({
    top: fc.constant(top),
    crowd: fc.constantFrom(...crowds),
    seed: fc.nat(),
    ops: fc.array(operation(top), { minLength: OPS, maxLength: OPS, size: 'max' }),
  }),
);

/** Fills a tree with `crowd` ranges over [0, top], some of them side by side. */
function fill(tree: MapleTree, model: RangeModel, top: number, crowd: number, seed: number): void {
  const pitch = Math.floor(top / Math.max(1, crowd));
  if (pitch < 2) return;
  const roll = generator(seed);
  for (let i = 0; i < crowd; i++) {
    const first = i * pitch;
    const range = { first, last: first + (roll(2) === 0 ? pitch - 1 : roll(pitch)), entry: 1 + roll(1000) };
    model.ranges.push(range);
    if (!tree.store(range.first, range.last, range.entry)) expect.fail('out of memory');
  }
}

/** Does an operation to both, and compares what they answer. */
function apply(tree: MapleTree, model: RangeModel, op: Op, seen: Set<string>): void {
  if (op.kind === 'look') {
    const last = Math.min(MAPLE_MAX, op.key + op.length - 1);
    expect(tree.load(op.key)).toBe(model.load(op.key));
    expect(tree.rangeAt(op.key)).toEqual(model.rangeAt(op.key));
    expect(tree.ranges(op.key, last)).toEqual(model.overlapping(op.key, last));
    return;
  }
  if (op.kind === 'alloc' || op.kind === 'allocReverse') {
    if (!tree.hasGaps) return;
    const [min, max] = op.min < op.max ? [op.min, op.max] : [op.max, op.min];
    const search = op.kind === 'alloc' ? 'emptyArea' : 'emptyAreaReverse';
    const expected = model[search](op.size, min, max);
    expect(tree[search](op.size, min, max)).toBe(expected);
    expect(tree[op.kind](op.entry, op.size, min, max)).toBe(expected);
    if (expected >= 0) model.store(expected, expected + op.size - 1, op.entry);
    return;
  }
  if (op.kind === 'erase-one') {
    const found = model.ranges[op.at % Math.max(1, model.ranges.length)];
    if (found === undefined) return;
    expect(tree.erase(found.first, found.last)).toBe(true);
    model.store(found.first, found.last, 0);
    return;
  }
  const last = Math.min(MAPLE_MAX, op.first + op.length - 1);
  const entry = op.kind === 'store' ? op.entry : 0;
  const plan = tree.plan(op.first, last, entry);
  seen.add(plan.type);
  const done = entry === 0 ? tree.erase(op.first, last) : tree.store(op.first, last, entry);
  expect(done).toBe(true);
  expect(tree.nodesUsed, `${plan.type} takes what it asked for at most`).toBeLessThanOrEqual(plan.nodes);
  model.store(op.first, last, entry);
}

describe.each([
  { gaps: true, rcu: true },
  { gaps: false, rcu: true },
  { gaps: true, rcu: false },
  { gaps: false, rcu: false },
  { gaps: true, rcu: true, lockPolicy: 'op', nodes: 2 },
] as const)('a maple tree with gaps: $gaps, rcu: $rcu', ({ gaps, rcu, ...options }) => {
  it('equals a sorted array of ranges', { timeout: 3_600_000 }, () => {
    const arena = boot({ bytes: 16 * MiB, ...options });
    const tree = arena.maple.create({ gaps, rcu })!;
    const { nodes } = arena.maple;
    const before = nodes.stats();
    expect(before.ALLOC_FASTPATH + before.ALLOC_SLOWPATH).toBe(0);
    const seen = new Set<string>();
    let height = 0;
    fc.assert(
      fc.property(sequences, ({ top, crowd, seed, ops }) => {
        const model = new RangeModel();
        fill(tree, model, top, crowd, seed);
        height = Math.max(height, tree.height);
        for (const [i, op] of ops.entries()) {
          apply(tree, model, op, seen);
          if (i % VALIDATE_EVERY === 0) expect(tree.validate()).toEqual([]);
        }
        expect(tree.validate()).toEqual([]);
        expect(tree.ranges()).toEqual(model.ranges);
        tree.clear();
        expect(tree.isEmpty).toBe(true);
        arena.rcu.quiescent();
      }),
      // What the short form reaches is asserted below, so it is always the same; the long form is not.
      { numRuns: Math.ceil(RUNS / 5), ...(RUNS > 1000 ? { endOnFailure: true } : { seed: SEED }) },
    );
    expect(height).toBeGreaterThanOrEqual(3);
    const wanted = STORE_TYPES.filter((type) => type !== 'new_root' && (!rcu || type !== 'append'));
    expect([...seen]).toEqual(expect.arrayContaining([...wanted]));
    arena.maple.destroy(tree);
    arena.kfreeRcuBarrier();
    expectSound(arena);
    expect(nodes.destroy().leaked).toBe(0);
  });
});
