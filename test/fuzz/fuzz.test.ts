/** Hostile input, and what it has found: each fault has a test of its own below. */
import { describe, expect, it } from 'vitest';
import { formatTraces, lockStatText, perfLockReport, slabinfoTool, structOf } from '#src/index.js';
import { FUZZ_ARENAS, fuzz } from '#src/lab/fuzz/fuzz.js';
import { Rng } from '#src/lab/fuzz/rng.js';
import { gaps, SURFACES } from '#src/lab/fuzz/surface.js';
import { fuzzWatched } from '#src/lab/fuzz/watched.js';
import { World } from '#src/lab/fuzz/world.js';
import { boot, expectRefused, LONG } from '../cache/support/arena.js';

/** A million in the long form, and with `npm run fuzz`. */
const CALLS = LONG ? 1_000_000 : 40_000;

describe('the fuzzer', () => {
  it('has a rule for everything that is public, and none for what is not there', () => {
    expect(gaps(new World(new Rng(1), {}))).toEqual([]);
  });

  it('misses a rule for a method that is new', () => {
    const world = new World(new Rng(1), {});
    Object.assign(world.arena, { novelty: () => 1 });
    expect(gaps(world)).toEqual(['Arena: no rule for novelty']);
  });

  it('finds what is refused and leaves a trace', () => {
    const world = new World(new Rng(1), {});
    world.image.take();
    world.arena.i32[world.scratch >> 2]! += 1;
    expect(world.image.changes()).toHaveLength(1);
    world.takenBack(8, 'kmalloc');
    expect(world.faults).toEqual(['the free of 8 was accepted; nobody has it']);
  });

  it('names a call that never returns, with its arena and seed', async () => {
    const worker = new URL('fixtures/hangingFuzz.mjs', import.meta.url);
    const { faults, calls } = await fuzzWatched(60_000, 7, { limitMs: 3_000, worker });
    expect(faults).toEqual([
      expect.stringMatching(
        /^arena 0 \(.*"check":"free".*\), seed 7, call \d+, Arena\.endTurn: did not return within 3 s; again with --calls \d+ --seed 7$/,
      ),
    ]);
    expect(calls).toBeGreaterThan(0);
  });

  it('does on its thread what it does without one, and says so when that ends', async () => {
    const [here, there] = [fuzz(300, 5), await fuzzWatched(300, 5)];
    expect({ ...there, byName: [...there.byName] }).toEqual({ ...here, byName: [...here.byName] });
    const worker = new URL('fixtures/dyingFuzz.mjs', import.meta.url);
    const { faults } = await fuzzWatched(300, 5, { worker });
    expect(faults).toEqual([expect.stringMatching(/seed 5, call 0, .*the thread ended with code 3/)]);
  });

  it('says the same twice with one seed', () => {
    const [one, two] = [fuzz(300, 5), fuzz(300, 5)];
    expect([...one.byName]).toEqual([...two.byName]);
    expect(one.accepted).toBe(two.accepted);
  });

  it(
    'finds a result or a typed error, and no change after one, in every call',
    () => {
      const { faults, byName, accepted, refused, compared } = fuzz(CALLS, 1);
      expect(faults).toEqual([]);
      expect(accepted + refused).toBeGreaterThan(CALLS / 2);
      expect(compared).toBeGreaterThan(CALLS / 10);
      const rules = SURFACES.reduce((sum, { rules }) => sum + Object.keys(rules).length, 0);
      expect(byName.size).toBeGreaterThan(rules * 0.95);
      expect(CALLS / 4000).toBeGreaterThanOrEqual(FUZZ_ARENAS.length);
    },
    LONG ? 3_600_000 : 180_000,
  );
});

describe('what it has found', () => {
  const SMALL = { bytes: 2 << 20, cpus: 2, maxCaches: 40 };
  const wrong = (value: unknown): never => value as never;

  it.each(['sheaves', 'none', 'cpu-slab', 'percpu-array'] as const)(
    'an object of the layer %s was lost when the flags could not be converted',
    (layer) => {
      const arena = boot(SMALL);
      const cache = arena.createCache('c', { size: 64, layer });
      cache.free(cache.alloc());
      for (const gfp of [1n, Symbol('gfp')]) {
        expectRefused(arena, () => cache.alloc(wrong(gfp)), Error, /BigInt|Symbol|gfp is/);
        expectRefused(
          arena,
          () => cache.allocBulk(new Int32Array(1), 1, wrong(gfp)),
          Error,
          /BigInt|Symbol|gfp/,
        );
      }
      expect(cache.destroy().leaked).toBe(0);
    },
  );

  it.each([
    ...(['sheaves', 'none', 'cpu-slab', 'percpu-array'] as const).map((layer) => ({ layer })),
    { layer: 'cpu-slab', freelistHardened: true } as const,
    { lockPolicy: 'op' } as const,
    { guard: { every: 2, objects: 4 } },
  ])(
    'flags that allocate when they are converted were given what their conversion had got: %o',
    (options) => {
      const arena = boot({ ...SMALL, ...options });
      const cache = arena.createCache('c', { size: 64 });
      for (const p of Array.from({ length: 9 }, () => cache.alloc())) cache.free(p);
      const given: number[] = [];
      const gfp = wrong({ valueOf: () => given.push(cache.alloc()) && 0 });
      const list = new Int32Array(2);
      const attempt = (alloc: () => void): void => {
        try {
          alloc();
        } catch (error) {
          expect(error).toBeInstanceOf(RangeError); // not on a fast path
        }
      };
      attempt(() => given.push(cache.alloc(gfp)));
      attempt(() => cache.allocBulk(list, 2, gfp) && given.push(...list));
      const sheaf = cache.prefill(3)!;
      attempt(() => given.push(sheaf.alloc(gfp)));
      cache.return(sheaf);
      expect(new Set(given).size).toBe(given.length);
      for (const p of given) cache.free(p);
      expect(cache.destroy().leaked).toBe(0);
    },
  );

  it('kfreeSensitive was reported as a write into the red zone of what was asked for', () => {
    const arena = boot({ ...SMALL, slabDebug: 'FZPU' });
    const reports: string[] = [];
    arena.onSlabReport(({ kind, what }) => kind === 'bug' && reports.push(what));
    const p = arena.kmalloc(24);
    expect([arena.requestedSize(p), arena.ksize(p), arena.requestedSize(p)]).toEqual([24, 32, 32]);
    arena.u8.fill(7, p, p + 32);
    arena.kfreeSensitive(p);
    arena.kfreeSensitive(arena.kmalloc(24));
    const q = arena.kmalloc(24);
    arena.u8[q + 24] = 7;
    arena.kfree(q);
    arena.endTurn();
    expect(reports).toEqual(['kmalloc Redzone overwritten']);
  });

  it('and one of a borrowed sheaf, and the sheaf', () => {
    const arena = boot(SMALL);
    const cache = arena.createCache('c', { size: 64 });
    const sheaf = cache.prefill(3)!;
    expectRefused(arena, () => sheaf.alloc(wrong(1n)), TypeError, /BigInt/);
    expectRefused(arena, () => cache.prefill(3, wrong(1n)), RangeError, /gfp is 1n/);
    expectRefused(arena, () => cache.refill(sheaf, 9, wrong(1n)), RangeError, /gfp is 1n/);
    cache.return(sheaf);
    expect(cache.destroy().leaked).toBe(0);
  });

  it('groups, trees and address spaces of another arena were taken for this one`s', () => {
    const [arena, other] = [boot(SMALL), boot(SMALL)];
    const group = other.groups.create('g');
    const { groups, maple, mms } = arena;
    void maple.nodes; // the caches are made at the first use
    void mms.mms;
    const space = other.mms.create()!;
    expectRefused(arena, () => groups.workFor(group), TypeError, /group g is a group of another arena/);
    expectRefused(arena, () => groups.destroy(group), TypeError, /another arena/);
    expectRefused(arena, () => groups.create('h', { parent: group }), TypeError, /another arena/);
    expectRefused(arena, () => groups.workFor(wrong(undefined)), TypeError, /group is undefined/);
    expectRefused(arena, () => maple.destroy(other.maple.create()!), TypeError, /another arena/);
    expectRefused(arena, () => mms.destroy(space), TypeError, /another arena/);
    expectRefused(arena, () => mms.fork(space), TypeError, /another arena/);
    expectRefused(arena, () => mms.fork(wrong(7)), TypeError, /parent is 7/);
    const ended = groups.create('ended');
    groups.destroy(ended);
    expectRefused(arena, () => groups.workFor(ended), RangeError, /has been ended already/);
  });

  it('a cursor that is asked for keys past the last never came back', () => {
    const arena = boot(SMALL);
    const tree = arena.maple.create()!;
    expect(() => tree.cursor().next(2 ** 32)).toThrow(RangeError);
    expect(() => tree.cursor().prev(-1)).toThrow(RangeError);
    expect(() => tree.cursor().walk(Number.NaN)).toThrow(RangeError);
    expectRefused(arena, () => tree.ranges(0, -1), RangeError, /last is -1/);
  });

  it('percpu counters wrote before they looked', () => {
    const arena = boot(SMALL);
    const { counters } = arena.percpu;
    const p = arena.kmalloc(64);
    counters.init(p, 3);
    for (const amount of [1n, Number.NaN, 1.5, '7']) {
      expectRefused(arena, () => counters.set(p, wrong(amount)), Error, /amount is/);
      expectRefused(arena, () => counters.add(p, wrong(amount)), Error, /amount is|BigInt/);
    }
    expectRefused(arena, () => counters.set(-4096, 5), Error, /-4096/);
    expect(counters.sum(p)).toBe(3);
  });

  it('the flags of an area were looked at when half of it had changed', () => {
    const arena = boot(SMALL);
    const mm = arena.mms.create()!;
    const start = mm.map(3 * 4096);
    expectRefused(arena, () => mm.protect(start + 4096, 4096, wrong(1n)), TypeError, /flags is 1n/);
    expectRefused(arena, () => mm.map(4096, { flags: 1.5 }), RangeError, /flags is 1.5/);
    expect(mm.list()).toHaveLength(1);
  });

  it('options and rows that are none', () => {
    const arena = boot(SMALL);
    const report = [formatTraces, lockStatText, perfLockReport, slabinfoTool] as Array<
      (rows: never) => string
    >;
    for (const text of report) {
      expect(() => text(wrong(undefined))).toThrow(/is undefined; it must be an array/);
      expect(() => text(wrong([null]))).toThrow(/has null; its entries must be objects/);
    }
    expect(() => structOf('s', wrong(null))).toThrow(/types is null/);
    expectRefused(arena, () => arena.failslab(wrong(null)), TypeError, /options is null/);
    expectRefused(arena, () => arena.readAttribute(wrong(1), 'slabs'), TypeError, /name is 1/);
    expectRefused(arena, () => arena.groups.create('g', wrong(null)), TypeError, /options is null/);
    expectRefused(arena, () => arena.rcu.briefly(wrong(1)), TypeError, /body is 1/);
  });
});
