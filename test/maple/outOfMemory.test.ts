/** Every allocation of a store is refused in turn: the tree is as it was, and the next attempt succeeds. */
import { describe, expect, it } from 'vitest';
import { __GFP_NOWARN, GFP_KERNEL, GFP_NOWAIT, type MapleRange } from '#src/index.js';
import { allocMany, boot, expectSound, MiB } from '../cache/support/arena.js';
import { generator, watchNodes } from './support.js';

const GFPS = { GFP_KERNEL, GFP_NOWAIT };

describe.each(Object.entries(GFPS))('with %s', (_name, gfp) => {
  it('a store whose k-th allocation fails either retries or leaves the tree as it was', () => {
    const arena = boot({ bytes: 32 * MiB });
    const tree = arena.maple.create()!;
    const { nodes } = arena.maple;
    const watch = watchNodes(nodes);
    const roll = generator(7);
    const seen = { refused: 0, retried: 0 };
    for (let round = 0; round < 500; round++) {
      const first = roll(9000);
      const last = first + (roll(20) === 0 ? roll(3000) : roll(12));
      const entry = roll(4) === 0 ? 0 : 1 + roll(100);
      const before = tree.ranges();
      watch.calls.length = 0;
      watch.failAt = 1;
      const done = entry === 0 ? tree.erase(first, last, gfp) : tree.store(first, last, entry, gfp);
      const tries = watch.calls.filter((call) => call !== 'return').length;
      watch.failAt = 0;
      if (!done) {
        seen.refused++;
        expect(tree.ranges()).toEqual(before);
        expect(tree.store(first, last, 1 + roll(100), gfp)).toBe(true);
      } else if (tries > 1) seen.retried++;
      if (round % 10 === 0) expect(tree.validate()).toEqual([]);
    }
    // Who may wait tries again without the lock, who may not gives up at once.
    expect(gfp === GFP_KERNEL ? seen.retried : seen.refused).toBeGreaterThan(100);
    expect(gfp === GFP_KERNEL ? seen.refused : seen.retried).toBe(0);
    arena.maple.destroy(tree);
    arena.kfreeRcuBarrier();
    expectSound(arena);
    expect(nodes.destroy().leaked).toBe(0);
  });

  it('a store whose allocations all fail leaves the tree as it was, and holds on to nothing', () => {
    const arena = boot({ bytes: 32 * MiB });
    const tree = arena.maple.create()!;
    const { nodes } = arena.maple;
    for (let i = 0; i < 600; i++) tree.store(i * 10, i * 10 + 9, i + 1);
    const before = tree.ranges();
    const fails = [
      [12, 15],
      [5, 905],
      [5, 5_905],
      [9_000, 9_999],
    ] as const;
    const { alloc, prefill, refill } = nodes;
    nodes.alloc = () => 0;
    nodes.prefill = () => null;
    nodes.refill = () => null;
    for (const [first, last] of fails) {
      expect(tree.store(first, last, 9, gfp)).toBe(false);
      if (first < 6_000) expect(tree.erase(first, last, gfp)).toBe(false);
      expect(tree.alloc(9, 100, 6_000, 100_000, gfp)).toBe(-2);
      expect(tree.ranges()).toEqual(before);
      expect(tree.validate()).toEqual([]);
    }
    Object.assign(nodes, { alloc, prefill, refill });
    expect(tree.store(5, 5_905, 9, gfp)).toBe(true);
    expect(tree.validate()).toEqual([]);
    arena.maple.destroy(tree);
    arena.kfreeRcuBarrier();
    expectSound(arena);
    expect(nodes.destroy().leaked).toBe(0);
  });
});

describe('a store that is cut off', () => {
  it('at whichever node it takes, leaves the tree as it was and loses no node', () => {
    const arena = boot({ bytes: 32 * MiB });
    const tree = arena.maple.create()!;
    const { nodes } = arena.maple;
    for (let i = 0; i < 1200; i++) tree.store(i * 10, i * 10 + 9, i + 1);
    const before = tree.ranges();
    const { supply } = (tree as unknown as { writer: { supply: { take(): number; cancel(): void } } }).writer;
    const take = supply.take.bind(supply);
    const cutOff = new Error('cut off');
    let cuts = 0;
    for (const [first, last] of [
      [12, 15],
      [5, 905],
      [5, 11_905],
      [3_000, 3_199],
    ] as const) {
      for (let k = 0; ; k++) {
        let left = k;
        supply.take = () => {
          if (left-- > 0) return take();
          supply.cancel();
          throw cutOff;
        };
        const { nodes: request } = tree.plan(first, last, 0);
        let thrown: unknown;
        try {
          tree.erase(first, last);
        } catch (error) {
          thrown = error;
        }
        supply.take = take;
        expect(tree.validate()).toEqual([]);
        if (thrown === undefined) break;
        expect(thrown).toBe(cutOff);
        expect(tree.ranges()).toEqual(before);
        expect(k).toBeLessThan(request);
        cuts++;
      }
      for (const range of before)
        if (range.last >= first && range.first <= last) tree.store(range.first, range.last, range.entry);
      expect(tree.ranges()).toEqual(before);
    }
    expect(cuts).toBeGreaterThan(5);
    arena.maple.destroy(tree);
    arena.kfreeRcuBarrier();
    expect(nodes.destroy().leaked).toBe(0);
    expectSound(arena);
  });
});

describe('in an arena that is really out of pages', () => {
  it('stores fail, leave the tree as it was, and succeed again when there is memory', () => {
    const arena = boot({ bytes: 4 * MiB });
    const tree = arena.maple.create()!;
    const ranges: MapleRange[] = [];
    const hog = arena.createCache('hog', { size: 4096 });
    let taken: number[] = [];
    for (let p = hog.alloc(GFP_NOWAIT | __GFP_NOWARN); p !== 0; p = hog.alloc(GFP_NOWAIT | __GFP_NOWARN))
      taken.push(p);
    // What sheaves and slabs still have; then each attempt, which may wait, fails.
    for (let i = 0; ; i++) {
      const range = { first: i * 10, last: i * 10 + 5, entry: i + 1 };
      if (!tree.store(range.first, range.last, range.entry)) break;
      ranges.push(range);
      expect(i).toBeLessThan(200_000);
    }
    expect(ranges.length).toBeGreaterThan(10);
    expect(tree.ranges()).toEqual(ranges);
    expect(tree.validate()).toEqual([]);
    for (const p of taken) hog.free(p);
    taken = allocMany(hog, 1);
    hog.free(taken[0]!);
    hog.shrink();
    const i = ranges.length;
    expect(tree.store(i * 10, i * 10 + 5, i + 1)).toBe(true);
    expect(tree.validate()).toEqual([]);
    arena.maple.destroy(tree);
    arena.kfreeRcuBarrier();
    expectSound(arena);
  });
});
