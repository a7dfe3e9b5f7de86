/**
 * What a study needs to say how sure it is: medians, percentiles and bootstrap intervals. The generator is
 * seeded, so the same measurements always print the same interval.
 */

export interface Interval {
  estimate: number;
  low: number;
  high: number;
}

interface BootstrapOptions {
  seed?: number;
  /** Number of resamples. */
  resamples?: number;
  /** Confidence level, between 0 and 1. */
  level?: number;
}

const DEFAULT_SEED = 1;
const DEFAULT_RESAMPLES = 2000;
const DEFAULT_LEVEL = 0.95;
const MAX_RESAMPLES = 1_000_000;

/** A mulberry32 generator: numbers in [0, 1), the same for the same seed. */
export function rng(seed: number): () => number {
  let state = seed >>> 0;
  return () => {
    state = (state + 0x6d2b79f5) >>> 0;
    let t = Math.imul(state ^ (state >>> 15), state | 1);
    t ^= t + Math.imul(t ^ (t >>> 7), t | 61);
    return ((t ^ (t >>> 14)) >>> 0) / 0x1_0000_0000;
  };
}

function sortedSample(values: ArrayLike<number>): Float64Array {
  if (values.length === 0) throw new RangeError('the sample must hold at least one value, got none');
  const sorted = Float64Array.from(values).sort();
  const bad = sorted.find((value) => !Number.isFinite(value));
  if (bad !== undefined) throw new RangeError(`every value must be finite, got ${bad}`);
  return sorted;
}

/** Linear interpolation between the two nearest ranks. */
function quantile(sorted: Float64Array, fraction: number): number {
  const rank = fraction * (sorted.length - 1);
  const below = Math.floor(rank);
  const share = rank - below;
  const low = sorted[below]!;
  // A ratio of resampled medians may be infinite, and infinity times 0 is no number.
  if (share === 0 || sorted[below + 1] === low) return low;
  return low + share * (sorted[below + 1]! - low);
}

/** The p-th percentile, p from 0 to 100. */
export function percentile(values: ArrayLike<number>, p: number): number {
  if (!(p >= 0 && p <= 100)) throw new RangeError(`the percentile must be from 0 to 100, got ${p}`);
  return quantile(sortedSample(values), p / 100);
}

/** The middle value, or the mean of the two middle ones. */
export function median(values: ArrayLike<number>): number {
  return quantile(sortedSample(values), 0.5);
}

function resampledMedian(sorted: Float64Array, scratch: Float64Array, random: () => number): number {
  for (let i = 0; i < scratch.length; i++) scratch[i] = sorted[Math.floor(random() * sorted.length)]!;
  return quantile(scratch.sort(), 0.5);
}

function bootstrap(estimate: number, options: BootstrapOptions, draw: (random: () => number) => number) {
  const { seed = DEFAULT_SEED, resamples = DEFAULT_RESAMPLES, level = DEFAULT_LEVEL } = options;
  if (!Number.isInteger(resamples) || resamples < 1 || resamples > MAX_RESAMPLES) {
    throw new RangeError(`resamples must be a whole number from 1 to ${MAX_RESAMPLES}, got ${resamples}`);
  }
  if (!(level > 0 && level < 1)) throw new RangeError(`level must be between 0 and 1, got ${level}`);
  const random = rng(seed);
  const drawn = new Float64Array(resamples);
  for (let i = 0; i < resamples; i++) drawn[i] = draw(random);
  drawn.sort();
  const tail = (1 - level) / 2;
  return { estimate, low: quantile(drawn, tail), high: quantile(drawn, 1 - tail) };
}

/** The median with its percentile-bootstrap interval. */
export function bootstrapMedian(values: ArrayLike<number>, options: BootstrapOptions = {}): Interval {
  const sorted = sortedSample(values);
  const scratch = new Float64Array(sorted.length);
  return bootstrap(quantile(sorted, 0.5), options, (random) => resampledMedian(sorted, scratch, random));
}

/** median(values) / median(base) with its percentile-bootstrap interval; both samples are resampled. */
export function ratioOfMedians(
  values: ArrayLike<number>,
  base: ArrayLike<number>,
  options: BootstrapOptions = {},
): Interval {
  const above = sortedSample(values);
  const below = sortedSample(base);
  // Below or at zero a resampled median could be zero or change sign, and the interval would mean nothing.
  if (below[0]! <= 0) throw new RangeError(`every value of the base must be above 0, got ${below[0]}`);
  const aboveScratch = new Float64Array(above.length);
  const belowScratch = new Float64Array(below.length);
  return bootstrap(
    quantile(above, 0.5) / quantile(below, 0.5),
    options,
    (random) => resampledMedian(above, aboveScratch, random) / resampledMedian(below, belowScratch, random),
  );
}

/** Three significant digits in the largest unit that leaves a number of at least 1. */
function scaled(value: number, step: number, units: readonly string[]): string {
  // Rounded first: 999.9 of one unit is 1.00 of the next.
  let rest = Number(value.toPrecision(3));
  let unit = 0;
  while (Math.abs(rest) >= step && unit < units.length - 1) {
    rest /= step;
    unit++;
  }
  const size = Math.abs(rest);
  const whole = unit === 0 && Number.isInteger(rest);
  const digits = whole || size >= 100 ? 0 : size >= 10 ? 1 : 2;
  return `${rest.toFixed(digits)}${units[unit]}`;
}

/** A duration for people: `7.42 ns`, `12.3 us`, `1.20 ms`, `3.40 s`. */
export function formatNs(ns: number): string {
  return Number.isFinite(ns) ? scaled(ns, 1000, [' ns', ' us', ' ms', ' s']) : String(ns);
}

/** A count for people: `950`, `12.3k`, `1.20M`, `3.40G`. */
export function formatCount(count: number): string {
  return Number.isFinite(count) ? scaled(count, 1000, ['', 'k', 'M', 'G', 'T']) : String(count);
}

/** Two cells of a table: the estimate, and its interval. */
export function intervalCells(
  { estimate, low, high }: Interval,
  format: (value: number) => string = formatNs,
): [string, string] {
  return [format(estimate), `${format(low)}..${format(high)}`];
}

export interface Column {
  title: string;
  /** `right` unless said otherwise. */
  align?: 'left' | 'right';
}

/** A text table: a line of titles, then a line per row, columns two blanks apart. */
export function table(rows: readonly (readonly (string | number)[])[], columns: readonly Column[]): string {
  const lines = [columns.map(({ title }) => title), ...rows.map((row) => row.map(String))];
  const wrong = rows.find((row) => row.length !== columns.length);
  if (wrong) throw new RangeError(`a row must hold ${columns.length} cells, got ${wrong.length}`);
  const widths = columns.map((_, i) => Math.max(...lines.map((line) => line[i]!.length)));
  const pad = (cell: string, i: number) =>
    columns[i]!.align === 'left' ? cell.padEnd(widths[i]!) : cell.padStart(widths[i]!);
  return lines.map((line) => line.map(pad).join('  ').trimEnd()).join('\n');
}
