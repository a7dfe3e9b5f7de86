import { createHistogram } from 'node:perf_hooks';
import fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import { HISTOGRAM_WORDS, Histogram } from '#src/lab/histogram.js';
import { rng } from '#src/lab/stats.js';

const TOP = 2 ** 34;

/** What one bucket spans at a duration: an eighth of its octave's start, 2 ns below 16. */
const widthAt = (ns: number) => (ns < 16 ? 2 : 2 ** (Math.floor(Math.log2(ns)) - 3));

// Spread over octaves, as durations are.
const duration = fc
  .tuple(fc.integer({ min: 0, max: 33 }), fc.double({ min: 1, max: 2, maxExcluded: true, noNaN: true }))
  .map(([octave, within]) => Math.floor(2 ** octave * within));
const durations = fc.array(duration, { minLength: 1, maxLength: 200 });

function filled(values: Iterable<number>): Histogram {
  const histogram = new Histogram();
  for (const value of values) histogram.record(value);
  return histogram;
}

function exactPercentile(values: number[], p: number): number {
  const sorted = [...values].sort((a, b) => a - b);
  return sorted[Math.max(1, Math.ceil((p / 100) * sorted.length)) - 1]!;
}

describe('percentiles', () => {
  it('are at most a bucket above the exact ones', () => {
    fc.assert(
      fc.property(durations, fc.double({ min: 0, max: 100, noNaN: true }), (values, p) => {
        const exact = exactPercentile(values, p);
        const got = filled(values).percentile(p);
        expect(got).toBeGreaterThanOrEqual(exact);
        expect(got).toBeLessThan(exact + widthAt(exact));
      }),
    );
  });

  it('agree with the histogram of node:perf_hooks', () => {
    const random = rng(11);
    const ours = new Histogram();
    const theirs = createHistogram({ lowest: 1, highest: TOP, figures: 5 });
    for (let i = 0; i < 50_000; i++) {
      const ns = Math.floor(20 * 2 ** (random() * random() * 28)) + 1;
      ours.record(ns);
      theirs.record(ns);
    }
    expect(ours.count).toBe(theirs.count);
    expect(Math.abs(ours.max - theirs.max)).toBeLessThanOrEqual(theirs.max * 1e-4);
    for (const p of [1, 10, 25, 50, 75, 90, 95, 99, 99.9, 99.99, 100]) {
      const other = theirs.percentile(p);
      expect(Math.abs(ours.percentile(p) - other), `p${p}`).toBeLessThanOrEqual(widthAt(other));
    }
  });

  it('never fall as p rises, and end at the maximum', () => {
    fc.assert(
      fc.property(durations, (values) => {
        const histogram = filled(values);
        const row = [0, 10, 50, 90, 99, 100].map((p) => histogram.percentile(p));
        expect(row).toEqual([...row].sort((a, b) => a - b));
        expect(row.at(-1)).toBe(Math.max(...values));
      }),
    );
  });

  it('refuse what is no percentage', () => {
    const histogram = filled([1]);
    for (const p of [-1, 100.5, Number.NaN]) expect(() => histogram.percentile(p)).toThrow(RangeError);
  });
});

describe('buckets', () => {
  it('change exactly at eighths of each octave', () => {
    for (let octave = 4; octave < 34; octave++) {
      for (let eighth = 0; eighth < 8; eighth++) {
        const start = 2 ** octave * (1 + eighth / 8);
        const end = start + 2 ** (octave - 3) - 1;
        // The larger value keeps the maximum from hiding the bucket's end.
        const histogram = filled([start, TOP - 1]);
        expect(histogram.percentile(50), `start ${start}`).toBe(end);
        expect(filled([end, TOP - 1]).percentile(50), `end ${end}`).toBe(end);
      }
    }
  });

  it('are 2 ns wide below 16 ns', () => {
    for (let ns = 0; ns < 16; ns++) expect(filled([ns, 100]).percentile(50)).toBe(ns | 1);
  });
});

describe('the edges', () => {
  it('an empty histogram has no maximum and no percentiles', () => {
    const histogram = new Histogram();
    expect([histogram.count, histogram.max, histogram.percentile(50)]).toEqual([0, 0, 0]);
  });

  it('what is no duration counts as 0, fractions are dropped', () => {
    const histogram = filled([-5, Number.NaN, 17.9]);
    expect(histogram.count).toBe(3);
    expect(histogram.percentile(60)).toBe(1);
    expect(histogram.max).toBe(17);
  });

  it('from 17 s on the maximum is still exact', () => {
    for (const ns of [TOP - 1, TOP, 2 ** 40 + 3, Number.MAX_SAFE_INTEGER]) {
      const histogram = filled([20, ns]);
      expect(histogram.max).toBe(ns);
      expect(histogram.percentile(100)).toBe(ns);
    }
    expect(filled([Number.POSITIVE_INFINITY]).max).toBe(Number.MAX_SAFE_INTEGER);
  });

  it('too few words are refused', () => {
    expect(() => new Histogram(new Int32Array(10))).toThrow(
      `a histogram needs ${HISTOGRAM_WORDS} words, got 10`,
    );
  });
});

describe('sharing', () => {
  it('merging is recording both', () => {
    fc.assert(
      fc.property(durations, durations, (a, b) => {
        const merged = filled(a);
        merged.merge(filled(b));
        expect(merged.words).toEqual(filled([...a, ...b]).words);
      }),
    );
  });

  it('two views of the same words are one histogram', () => {
    const words = new Int32Array(new SharedArrayBuffer((HISTOGRAM_WORDS + 8) * 4), 32);
    const writer = new Histogram(words);
    const reader = new Histogram(words);
    writer.record(1000);
    reader.record(500);
    expect([writer.count, writer.max]).toEqual([2, 1000]);
    words.fill(0);
    writer.record(10);
    expect([reader.count, reader.max]).toEqual([1, 10]);
  });
});
