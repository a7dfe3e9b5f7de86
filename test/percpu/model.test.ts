/** Random sequences of all operations against a model: a list of areas with what was written into them. */
import fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import { GFP_ATOMIC, GFP_KERNEL, type PercpuOptions } from '#src/index.js';
import { expectSound, secondCpu } from '../cache/support/arena.js';
import { bootPercpu, expectMarked, info, KiB, mark } from './support.js';

const RUNS = Number(process.env.GRANARY_PERCPU_RUNS ?? 15);

type Step =
  | {
      readonly do: 'alloc';
      readonly atomic: boolean;
      readonly cpu: 0 | 1;
      readonly size: number;
      readonly align: number;
    }
  | { readonly do: 'free'; readonly cpu: 0 | 1; readonly which: number }
  | { readonly do: 'balance'; readonly cpu: 0 | 1 }
  | { readonly do: 'drain'; readonly cpu: 0 | 1 };

const cpu = fc.constantFrom(0 as const, 1 as const);
const size = fc.oneof(
  { weight: 6, arbitrary: fc.integer({ min: 1, max: 300 }) },
  { weight: 3, arbitrary: fc.integer({ min: 300, max: 4 * KiB }) },
  { weight: 1, arbitrary: fc.integer({ min: 4 * KiB, max: 32 * KiB }) },
);
const align = fc.integer({ min: 0, max: 12 }).map((shift) => 1 << shift);
const step: fc.Arbitrary<Step> = fc.oneof(
  {
    weight: 10,
    arbitrary: fc.record({ do: fc.constant('alloc' as const), atomic: fc.boolean(), cpu, size, align }),
  },
  { weight: 8, arbitrary: fc.record({ do: fc.constant('free' as const), cpu, which: fc.nat() }) },
  { weight: 1, arbitrary: fc.record({ do: fc.constant('balance' as const), cpu }) },
  { weight: 1, arbitrary: fc.record({ do: fc.constant('drain' as const), cpu }) },
);

const CONFIGS: Array<[string, PercpuOptions]> = [
  ['as the kernel', {}],
  ['larger chunks', { unitPages: 32 }],
  ['a cache of areas', { areaCache: 4 }],
  ['areas in batches, two CPUs a cache', { areaCache: 8, areaBatch: 4, cpusPerAreaCache: 2 }],
];

describe.each(CONFIGS)('%s', (_, percpu) => {
  it('no two areas overlap, each is where and as large as asked, and all comes back', () => {
    fc.assert(
      fc.property(fc.array(step, { maxLength: 60 }), (steps) => {
        const arena = bootPercpu({ cpus: 2, bytes: 6 << 20, percpu });
        const arenas = [arena, secondCpu(arena)];
        const live: Array<{ p: number; size: number; seed: number }> = [];
        for (const [seed, one] of steps.entries()) {
          const on = arenas[one.cpu]!;
          if (one.do === 'balance') on.percpu.balance();
          else if (one.do === 'drain') on.percpu.drainAreas();
          else if (one.do === 'free') {
            if (live.length === 0) continue;
            const [area] = live.splice(one.which % live.length, 1);
            expectMarked(arena, area!.p, area!.size, area!.seed);
            on.freePercpu(area!.p);
            expect(() => on.freePercpu(area!.p)).toThrow(/percpu: 0x/);
          } else {
            const p = on.allocPercpu(one.size, one.align, one.atomic ? GFP_ATOMIC : GFP_KERNEL);
            if (p === 0) {
              expect(one.atomic).toBe(true);
              continue;
            }
            expect(p % Math.max(one.align, 4)).toBe(0);
            for (const cpu of [0, 1]) {
              const at = arena.perCpuPtr(p, cpu) >> 2;
              expect(arena.i32.subarray(at, at + Math.ceil(one.size / 4)).every((word) => word === 0)).toBe(
                true,
              );
            }
            mark(arena, p, one.size, seed);
            live.push({ p, size: one.size, seed });
          }
        }
        for (const each of arenas) each.endTurn();
        expectSound(arena);
        for (const { p, size, seed } of live) {
          expectMarked(arena, p, size, seed);
          arena.freePercpu(p);
        }
        for (const each of arenas) each.percpu.drainAreas();
        for (const each of arenas) each.endTurn();
        // The first makes up for an atomic allocation that failed, perhaps with a chunk that the second takes back.
        arena.percpu.balance();
        arena.percpu.balance();
        expect(info(arena).nrAlloc).toBe(0);
        expect(info(arena).nrChunks).toBeLessThanOrEqual(1);
        expectSound(arena);
      }),
      { numRuns: RUNS },
    );
  });
});

describe('fragmentation', () => {
  it('is told by chunk: free bytes before the last area, the largest of their runs, and what still fits', () => {
    const arena = bootPercpu();
    const areas = Array.from({ length: 64 }, () => arena.allocPercpu(64, 64));
    for (let i = 0; i < 64; i += 2) arena.freePercpu(areas[i]!);
    expect(info(arena).chunks[0]).toMatchObject({
      nrAlloc: 32,
      freeBytes: 32 * KiB - 32 * 64,
      contigBytes: 28 * KiB,
      sumFrag: 32 * 64,
      maxFrag: 64,
    });
    // Half of the page is free, and nothing above 64 bytes fits there.
    expect(arena.allocPercpu(68) - areas[0]!).toBe(4 * KiB);
    expect(arena.allocPercpu(64, 64)).toBe(areas[0]);
  });
});
