import fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import {
  bootstrapMedian,
  formatCount,
  formatNs,
  median,
  percentile,
  ratioOfMedians,
  rng,
  table,
} from '#src/lab/stats.js';

const sample = fc.array(fc.double({ min: 0.5, max: 1e9, noNaN: true }), { minLength: 1, maxLength: 60 });

describe('the generator', () => {
  it('repeats itself for a seed and differs between seeds', () => {
    const draw = (seed: number) => Array.from({ length: 5 }, rng(seed));
    expect(draw(7)).toEqual(draw(7));
    expect(draw(7)).not.toEqual(draw(8));
  });

  it('is the published mulberry32', () => {
    const random = rng(1);
    expect([random(), random(), random()]).toEqual([
      0.6270739405881613, 0.002735721180215478, 0.5274470399599522,
    ]);
  });

  it('stays in [0, 1) with mean and spread of a uniform one', () => {
    const random = rng(42);
    const values = Array.from({ length: 20_000 }, random);
    expect(Math.min(...values)).toBeGreaterThanOrEqual(0);
    expect(Math.max(...values)).toBeLessThan(1);
    const mean = values.reduce((sum, value) => sum + value, 0) / values.length;
    expect(mean).toBeCloseTo(0.5, 1);
    for (let tenth = 0; tenth < 10; tenth++) {
      const inside = values.filter((value) => Math.floor(value * 10) === tenth).length;
      expect(Math.abs(inside - 2000)).toBeLessThan(200);
    }
  });
});

describe('median and percentile', () => {
  it('take the middle, between two values where needed', () => {
    expect(median([3, 1, 2])).toBe(2);
    expect(median([4, 1, 2, 3])).toBe(2.5);
    expect(percentile([10, 20, 30, 40, 50], 25)).toBe(20);
    expect(percentile([10, 20], 75)).toBe(17.5);
  });

  it('leave the sample as it was', () => {
    const values = [3, 1, 2];
    median(values);
    expect(values).toEqual([3, 1, 2]);
  });

  it('do not depend on the order and lie within the sample', () => {
    fc.assert(
      fc.property(sample, fc.double({ min: 0, max: 100, noNaN: true }), (values, p) => {
        const at = percentile(values, p);
        expect(percentile([...values].reverse(), p)).toBe(at);
        expect(at).toBeGreaterThanOrEqual(Math.min(...values));
        expect(at).toBeLessThanOrEqual(Math.max(...values));
        expect(at).toBeLessThanOrEqual(percentile(values, 100));
        expect(values.filter((value) => value <= at).length).toBeGreaterThanOrEqual(
          Math.floor((p / 100) * (values.length - 1)) + 1,
        );
      }),
    );
  });

  it('refuse what has no median', () => {
    expect(() => median([])).toThrow('the sample must hold at least one value, got none');
    expect(() => median([1, Number.NaN])).toThrow('every value must be finite, got NaN');
    expect(() => percentile([1], 101)).toThrow('the percentile must be from 0 to 100, got 101');
    expect(() => percentile([1], Number.NaN)).toThrow(RangeError);
  });
});

describe('bootstrap intervals', () => {
  it('enclose the median and repeat for a seed', () => {
    fc.assert(
      fc.property(sample, fc.integer(), (values, seed) => {
        const options = { seed, resamples: 100 };
        const interval = bootstrapMedian(values, options);
        expect(interval.estimate).toBe(median(values));
        expect(interval.low).toBeLessThanOrEqual(interval.high);
        expect(interval.low).toBeGreaterThanOrEqual(Math.min(...values));
        expect(interval.high).toBeLessThanOrEqual(Math.max(...values));
        expect(bootstrapMedian(values, options)).toEqual(interval);
      }),
      { numRuns: 50 },
    );
  });

  it('cover the true median about as often as they say', () => {
    const random = rng(5);
    let covered = 0;
    for (let round = 0; round < 200; round++) {
      const values = Array.from({ length: 30 }, random);
      const { low, high } = bootstrapMedian(values, { seed: round, resamples: 300 });
      if (low <= 0.5 && 0.5 <= high) covered++;
    }
    expect(covered / 200).toBeGreaterThan(0.88);
    expect(covered / 200).toBeLessThan(0.995);
  });

  it('shrink to a point where nothing varies', () => {
    expect(bootstrapMedian([7, 7, 7])).toEqual({ estimate: 7, low: 7, high: 7 });
    expect(ratioOfMedians([6, 6], [4, 4])).toEqual({ estimate: 1.5, low: 1.5, high: 1.5 });
  });

  it('widen with the level', () => {
    const values = Array.from({ length: 40 }, rng(9));
    const narrow = bootstrapMedian(values, { level: 0.5 });
    const wide = bootstrapMedian(values, { level: 0.99 });
    expect(wide.low).toBeLessThan(narrow.low);
    expect(wide.high).toBeGreaterThan(narrow.high);
  });

  it('tell two samples apart, and equal ones not', () => {
    const random = rng(3);
    const around = (centre: number) => Array.from({ length: 40 }, () => centre * (0.95 + random() / 10));
    const faster = ratioOfMedians(around(80), around(100));
    expect(faster.estimate).toBeCloseTo(0.8, 1);
    expect(faster.high).toBeLessThan(0.9);
    const same = ratioOfMedians(around(100), around(100));
    expect(same.low).toBeLessThan(1.01);
    expect(same.high).toBeGreaterThan(0.99);
  });

  it('refuse options and samples that mean nothing', () => {
    expect(() => bootstrapMedian([])).toThrow(RangeError);
    expect(() => bootstrapMedian([1], { resamples: 0 })).toThrow('resamples must be a whole number from 1');
    expect(() => bootstrapMedian([1], { level: 1 })).toThrow('level must be between 0 and 1, got 1');
    expect(() => ratioOfMedians([1], [0, 1])).toThrow('every value of the base must be above 0, got 0');
  });
});

describe('formatting', () => {
  it.each([
    [0, '0 ns'],
    [0.5, '0.50 ns'],
    [7.424, '7.42 ns'],
    [12, '12 ns'],
    [999.4, '999 ns'],
    [999.96, '1.00 us'],
    [12_345, '12.3 us'],
    [1_200_000, '1.20 ms'],
    [3_400_000_000, '3.40 s'],
    [5_000_000_000_000, '5000 s'],
    [-1500, '-1.50 us'],
    [Number.NaN, 'NaN'],
  ])('writes %d ns as %s', (ns, text) => {
    expect(formatNs(ns)).toBe(text);
  });

  it.each([
    [0, '0'],
    [950, '950'],
    [12_345, '12.3k'],
    [999_999, '1.00M'],
    [1_200_000, '1.20M'],
    [3.4e9, '3.40G'],
  ])('writes the count %d as %s', (count, text) => {
    expect(formatCount(count)).toBe(text);
  });

  it('aligns columns', () => {
    const columns = [
      { title: 'layer', align: 'left' },
      { title: 'ns' },
      { title: 'note', align: 'left' },
    ] as const;
    const rows = [
      ['sheaves', 7, 'x'],
      ['none', 140, ''],
    ];
    expect(table(rows, columns)).toBe(['layer     ns  note', 'sheaves    7  x', 'none     140'].join('\n'));
    expect(table([], [{ title: 'alone' }])).toBe('alone');
    expect(() => table([['one']], columns)).toThrow('a row must hold 3 cells, got 1');
  });
});
