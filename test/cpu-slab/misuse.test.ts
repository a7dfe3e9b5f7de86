/** Misuse is refused on the fast paths of this layer as well, and a damaged arena is found out. */

import { describe, expect, it } from 'vitest';
import { CpuSlab, pcsOf } from '#src/cpu/index.js';
import { SlabBugError } from '#src/index.js';
import { Page } from '#src/page/index.js';
import { expectRefused, expectSound } from '../cache/support/arena.js';
import { fillSlabs, POLICIES, setup, slabOf } from './support.js';

const CASES = POLICIES.flatMap((lockPolicy) =>
  (['free', 'full'] as const).map((check) => ({ lockPolicy, check })),
);

describe.each(CASES)('policy $lockPolicy, check $check', (options) => {
  it('a free of what is no allocated object is refused, of the cpu slab and of others', () => {
    const { arena, cache } = setup(options);
    const [full, current] = fillSlabs(cache, 2) as [number[], number[]];
    cache.free(full[0]!);
    cache.free(current[0]!);
    const bad: Array<[number, RegExp]> = [
      [full[0]!, /Object already free/],
      [current[0]!, /Object already free/],
      [full[1]! + 8, /bytes into an object/],
      [current[1]! + 8, /bytes into an object/],
      [current[1]! + 0.5, /not an address of the heap|bytes into an object/],
      [current[1]! + 2 ** 32, /not an address of the heap/],
      [`${current[1]!}` as never, /not an address of the heap/],
      [0, /not an address of the heap/],
      [-8, /not an address of the heap/],
      [undefined as never, /not an address of the heap/],
    ];
    for (const [p, message] of bad) expectRefused(arena, () => cache.free(p), SlabBugError, message);
  });

  it('a bulk free with one bad entry frees none', () => {
    const { arena, cache } = setup(options);
    const [full, current] = fillSlabs(cache, 2) as [number[], number[]];
    const lists = [
      [current[0]!, current[1]!, current[0]!],
      [current[0]!, full[0]!, current[0]!],
      [full[0]!, full[1]!, 12],
      [current[0]!, current[1]!, full[1]! + 8],
    ];
    for (const list of lists) {
      const entries = Int32Array.from(list);
      expectRefused(arena, () => cache.freeBulk(entries, entries.length), SlabBugError, /BUG c: /);
    }
    cache.freeBulk(Int32Array.from([...full, ...current]), full.length + current.length);
    arena.endTurn();
    expectSound(arena);
    cache.shrink();
    expect(cache.destroy()).toMatchObject({ leaked: 0 });
  });
});

describe("check 'none'", () => {
  it.each(POLICIES)('works on the same slabs, policy %s', (lockPolicy) => {
    const { arena, cache, other, theirs } = setup({ lockPolicy, check: 'none' });
    const out = Int32Array.from(fillSlabs(cache, 5).flat());
    expect(new Set(out).size).toBe(out.length);
    for (const p of out.subarray(0, 10)) theirs.free(p);
    cache.freeBulk(out.subarray(10), out.length - 10);
    arena.endTurn();
    other.endTurn();
    expectSound(arena);
    cache.shrink();
    expect(cache.destroy()).toMatchObject({ leaked: 0 });
  });
});

describe('validate', () => {
  /** Damages a sound arena and expects these invariants, and that text. */
  const plant = (
    invariants: string[],
    what: RegExp,
    damage: (scene: {
      m: Int32Array;
      c: number;
      mine: number;
      partial: number;
      full: number;
      other: number;
    }) => void,
  ): void => {
    const { arena, cache, other, theirs } = setup();
    const slabs = fillSlabs(cache, 3);
    cache.free(slabs[0]![0]!);
    cache.free(slabs[2]![0]!);
    cache.free(slabs[2]![1]!);
    theirs.alloc();
    arena.endTurn();
    other.endTurn();
    expectSound(arena);
    const page = (i: number): number => slabOf(arena, slabs[i]![0]!).page;
    const { geometry, i32: m } = arena;
    const at = (cpu: number): number => pcsOf(geometry, cpu, cache.desc.slot);
    damage({ m, c: at(0), mine: page(2), partial: page(0), full: page(1), other: at(1) });
    const findings = arena.validate();
    expect([...new Set(findings.map(({ invariant }) => invariant))].sort()).toEqual(invariants);
    expect(findings.map((finding) => finding.what).join('\n')).toMatch(what);
  };
  const FROZEN = 1 << 30;

  it('I23: a frozen slab without a CPU', () => {
    plant(['I23'], /is frozen, but no CPU has it/, ({ m, full }) => {
      m[full + Page.slabWord] = m[full + Page.slabWord]! | FROZEN;
    });
  });

  it('I23: a CPU’s slab that is not frozen', () => {
    plant(['I23'], /is the cpu slab of CPU 0, but not frozen/, ({ m, mine }) => {
      m[mine + Page.slabWord] = m[mine + Page.slabWord]! & ~FROZEN;
    });
    plant(['I22', 'I23'], /is on the partial list of CPU 0, but not frozen/, ({ m, partial }) => {
      m[partial + Page.slabWord] = m[partial + Page.slabWord]! & ~FROZEN;
    });
  });

  it('I23: a slab that two CPUs have, or a page that is none', () => {
    plant(
      ['I10', 'I13', 'I23'],
      /the cpu slab of CPU 1: the page at word \d+ is the cpu slab of CPU 0, too/,
      ({ m, c, other }) => {
        for (const word of ['slabStart', 'slabBytes', 'freelist'] as const) {
          m[other + CpuSlab[word]] = m[c + CpuSlab[word]]!;
        }
      },
    );
    plant(
      ['I23'],
      /on the partial list of CPU 1: the page at word \d+ is on the partial list of CPU 0, too/,
      (scene) => {
        scene.m[scene.other + CpuSlab.partial] = scene.partial;
        scene.m[scene.other + CpuSlab.nrPartial] = 1;
      },
    );
  });

  it('I23: a range that is not the slab’s', () => {
    plant(['I23'], /CPU 0 takes its slab for 8192 bytes/, ({ m, c }) => {
      m[c + CpuSlab.slabBytes] = 8192;
    });
    plant(['I10', 'I23'], /CPU 0 has a freelist, or bytes, of no slab/, ({ m, c, mine }) => {
      m[c + CpuSlab.slabStart] = 0;
      m[mine + Page.slabWord] = m[mine + Page.slabWord]! & ~FROZEN;
    });
  });

  it('I5: a count of partial slabs that is not the length', () => {
    plant(['I5'], /CPU 0: 1 partial slabs, count 2/, ({ m, c }) => {
      m[c + CpuSlab.nrPartial] = 2;
    });
  });

  it('I2: operations that were not counted', () => {
    plant(['I2'], /CPU 0: 3 operations not yet counted/, ({ m, c }) => {
      m[c + CpuSlab.allocs] = 3;
    });
  });

  it('I9: a freelist that is a circle', () => {
    plant(['I13', 'I9'], /the freelist of CPU 0 is a cycle or leads out of its slab/, ({ m, c }) => {
      const p = m[c + CpuSlab.freelist]!;
      m[(p + 2048) >> 2] = p;
    });
  });

  it('I20: a lock that is held', () => {
    plant(['I20'], /the slabs of CPU 0 are locked by 0x1/, ({ m, c }) => {
      m[c + CpuSlab.lock] = 1;
    });
  });
});
