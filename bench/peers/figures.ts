/** The measurements of a run, and the ratios formed from them. */
import { median } from '../../src/lab/stats.js';
import { NATIVES, type Native, type Row, rowKey, type Variant } from './plan.js';

/** One variant in one row: nanoseconds per operation, one value per round. */
export interface Series {
  readonly variant: Variant;
  readonly row: Row;
  readonly operations: number;
  readonly nsPerOp: readonly number[];
}

export class Figures {
  readonly all: readonly Series[];
  readonly #byKey = new Map<string, Series>();

  constructor(all: readonly Series[]) {
    this.all = all;
    for (const series of all) this.#byKey.set(`${series.variant} ${rowKey(series.row)}`, series);
  }

  samples(variant: Variant, row: Row): readonly number[] | undefined {
    const series = this.#byKey.get(`${variant} ${rowKey(row)}`);
    return series && series.nsPerOp.length > 0 ? series.nsPerOp : undefined;
  }

  median(variant: Variant, row: Row): number | undefined {
    const samples = this.samples(variant, row);
    return samples && median(samples);
  }

  /**
   * `above` / `below` of each round. The two were measured within a second of each other, so whatever slowed
   * the machine at that time slowed both.
   */
  ratios(above: Variant, below: Variant, row: Row): number[] | undefined {
    return divide(this.samples(above, row), this.samples(below, row));
  }

  /** The native allocator with the lowest median in a row. */
  bestNative(row: Row): Native | undefined {
    const measured = NATIVES.filter((native) => this.samples(native, row));
    measured.sort((a, b) => this.median(a, row)! - this.median(b, row)!);
    return measured[0];
  }
}

function divide(
  above: readonly number[] | undefined,
  below: readonly number[] | undefined,
): number[] | undefined {
  if (!above || !below) return undefined;
  const rounds = Math.min(above.length, below.length);
  return rounds === 0 ? undefined : above.slice(0, rounds).map((value, round) => value / below[round]!);
}
