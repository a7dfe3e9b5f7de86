/**
 * Deaths on the fast paths, where no lock is taken that a real kill could be aimed at: the views of one CPU's handles
 * count their stores, and the thread is "gone" before the nth. Nothing but those stores is missing then.
 */

import { describe, expect, it } from 'vitest';
import { type KmemCache, makeHotCode } from '#src/cache/index.js';
import type { Finding, ReapReport } from '#src/index.js';
import { Arena } from '#src/index.js';
import type { Geometry } from '#src/struct/index.js';
import { allocMany, boot, freeMany } from '../cache/support/arena.js';

class Gone extends Error {}

/** A second CPU on this thread whose fast paths stop before their nth store. */
function mortal(arena: Arena): { other: Arena; dieBefore: (nth: number) => void } {
  let left = Number.POSITIVE_INFINITY;
  const counted = <T extends object>(array: T): T =>
    new Proxy(array, {
      get: (target, key) => Reflect.get(target, key),
      set: (target, key, value) => {
        if (--left === 0) throw new Gone();
        return Reflect.set(target, key, value);
      },
    });
  const other = Arena.attach(arena.handle);
  const inner = other as unknown as { views: Parameters<typeof makeHotCode>[0]; code: unknown };
  const { views } = inner;
  const { freelists, slabs } = makeHotCode(views, arena.geometry as Geometry);
  const { classes, kmallocs } = makeHotCode(
    { ...views, m: counted(views.m), shadow: counted(views.shadow) },
    arena.geometry as Geometry,
  );
  inner.code = { classes, kmallocs, slabs, freelists };
  other.online({ cpu: 1 });
  return {
    other,
    dieBefore: (nth) => {
      left = nth;
    },
  };
}

interface Death {
  findings: Finding[];
  report: ReapReport;
  /** Objects of the cache that are still allocated. */
  allocated: number;
}

const N = 6;

/** Kills before each store in turn, until the operation survives. */
function sweep(operation: (cache: KmemCache, held: number[]) => void): Death[] {
  const deaths: Death[] = [];
  for (let nth = 1; ; nth++) {
    const arena = boot({ bytes: 2 << 20, maxCaches: 24 });
    arena.createCache('c', { size: 256 });
    const { other, dieBefore } = mortal(arena);
    const cache = other.openCache('c');
    const held = allocMany(cache, 28);
    // Main has 10 of 28.
    freeMany(cache, held.splice(0, 10));
    dieBefore(nth);
    try {
      operation(cache, held);
      return deaths;
    } catch (error) {
      if (!(error instanceof Gone)) throw error;
    }
    const report = arena.cpuDead(1);
    const { shadow, bytes } = arena.geometry;
    const marked = arena.u8
      .subarray(shadow, shadow + (bytes >> 3))
      .filter((tag) => tag === cache.desc.tag).length;
    deaths.push({ findings: arena.validate(), report, allocated: marked });
  }
}

const kinds = ({ findings }: Death) => [...new Set(findings.map(({ invariant }) => invariant))];

describe('a thread that dies on a fast path', () => {
  it.each<[string, number, number, (cache: KmemCache, held: number[]) => void]>([
    ['alloc, at most its object', 2, 1, (cache) => cache.alloc()],
    ['allocBulk, nothing', N + 1, 0, (cache) => cache.allocBulk(new Int32Array(N), N)],
    ['free, nothing', 3, 0, (cache, held) => cache.free(held[0]!)],
  ])('loses in %s', (_name, stores, lost, operation) => {
    const deaths = sweep(operation);
    expect(deaths).toHaveLength(stores);
    for (const death of deaths) {
      expect(death.report.notes).toEqual([]);
      expect(kinds(death).filter((kind) => kind !== 'I10')).toEqual([]);
    }
    expect(Math.max(...deaths.map(({ findings }) => findings.length))).toBe(lost);
  });
});

describe('a thread that dies in freeBulk', () => {
  const deaths = sweep((cache, held) => cache.freeBulk(Int32Array.from(held.slice(0, N)), N));
  const silent = deaths.filter(({ report }) => report.notes.length === 0);

  it('loses objects of its list at most, and then it is on record', () => {
    expect(deaths).toHaveLength(3 + 2 * N + 2);
    for (const death of deaths) {
      expect(kinds(death).filter((kind) => kind !== 'I10')).toEqual([]);
      expect(death.findings.length).toBeLessThanOrEqual(N);
    }
    expect(Math.max(...deaths.map(({ findings }) => findings.length))).toBe(N);
    for (const death of silent) expect(death.findings).toEqual([]);
  });

  it('is reported with the operation, and its sheaves are flushed, not given up', () => {
    const told = deaths.filter(({ report }) => report.notes.length > 0);
    expect(told).toHaveLength(2 * N + 2);
    for (const { report } of told) {
      expect(report.notes).toEqual([
        expect.stringMatching(/^died while freeing in bulk into its sheaf, cache slot \d+$/),
      ]);
    }
  });

  it('frees all of the list or leaves all of it allocated, but for what was lost', () => {
    for (const { allocated, findings } of deaths) {
      const lost = findings.length;
      expect([18 - lost, 18 - N]).toContain(allocated);
    }
  });
});
