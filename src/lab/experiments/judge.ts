/**
 * From samples to a word. Variants are run in turns, so the n-th samples of two variants were taken next to each other:
 * ratios are formed round by round, and what slows the whole machine down for a while is in both.
 *
 * An interval from one process knows nothing of what differs between two arenas with the same options: where their
 * memory lies, and how V8 happened to compile their threads' loops. The baseline is therefore run twice, and a variant
 * differs only if it lies outside of what these two differ by.
 */
import { bootstrapMedian, type Interval } from '../stats.js';

export type Outcome = 'better' | 'worse' | 'no difference shown' | 'void';

/** With fewer rounds not even the range of all samples is a 95 % interval of a median. */
export const ROUNDS_MIN = 6;

export interface Judged {
  /** Time by the baseline's; null when there is none. */
  readonly ratio: Interval | null;
  readonly outcome: Outcome;
}

/** Median of the rounds' ratios, with its 95 % bootstrap interval. Both have a sample of every round. */
export function roundRatio(values: readonly number[], base: readonly number[], seed: number): Interval {
  if (values.length !== base.length) {
    throw new RangeError(
      `both variants must have a sample of every round; got ${values.length} and ${base.length}`,
    );
  }
  return bootstrapMedian(
    values.map((value, round) => value / base[round]!),
    { seed },
  );
}

/** The factor within which two arenas with the same options may differ. */
export function noiseLimit(control: Interval): number {
  return Math.max(1, control.high, 1 / control.low);
}

/**
 * Judges a variant's times by the baseline's. `control` is the ratio of the baseline's second run to its first; samples
 * that are undefined come from an unsound arena.
 */
export function judge(
  values: readonly number[] | undefined,
  base: readonly number[] | undefined,
  control: Interval | null,
  seed: number,
): Judged {
  if (values === undefined || base === undefined || control === null || values.length === 0) {
    return { ratio: null, outcome: 'void' };
  }
  const ratio = roundRatio(values, base, seed);
  const limit = noiseLimit(control);
  if (values.length < ROUNDS_MIN) return { ratio, outcome: 'no difference shown' };
  if (ratio.high < 1 / limit) return { ratio, outcome: 'better' };
  if (ratio.low > limit) return { ratio, outcome: 'worse' };
  return { ratio, outcome: 'no difference shown' };
}
