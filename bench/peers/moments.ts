/**
 * Comparisons whose subject is two threads at once: one thread against two, or objects that go from one to the other.
 * They say something only while the machine has a core for each, so they are judged by calm moments alone.
 */
import type { Bracket, Gate, Sample } from './calm.js';
import type { Peer } from './peer.js';
import { type Row, wholeBatches } from './plan.js';

export interface MomentPace {
  /** A sample of threads that do not meet, and one of threads that have to find their pace with each other. */
  readonly apartMs: number;
  readonly togetherMs: number;
  /** Calm comparisons until a spell is over, and the time after which it ends without. */
  readonly wanted: number;
  readonly limitMs: number;
}

export const FULL_MOMENTS: MomentPace = { apartMs: 0.4, togetherMs: 1.5, wanted: 4, limitMs: 4000 };
export const QUICK_MOMENTS: MomentPace = { ...FULL_MOMENTS, limitMs: 500 };

/** What was found in each calm moment, and how many moments were looked at. */
export interface Moments {
  readonly calm: readonly number[];
  readonly taken: number;
}

/** Two samples, and the figure that they give. */
export interface Comparison {
  readonly samples: readonly [Sample, Sample];
  readonly figure: (first: number, second: number) => number;
}

/** The comparisons of a bar, taken in spells: one a round, so that a disturbed minute is not all there is to judge by. */
export class MomentMeter {
  readonly #gate: Gate;
  readonly #comparison: Comparison;
  readonly #pace: MomentPace;
  readonly #taken: Bracket[] = [];
  /** Why there is no result; what fails once is left alone. */
  failure: string | undefined;

  constructor(gate: Gate, comparison: Comparison, pace: MomentPace) {
    this.#gate = gate;
    this.#comparison = comparison;
    this.#pace = pace;
  }

  async spell(): Promise<void> {
    if (this.failure !== undefined) return;
    const { wanted, limitMs } = this.#pace;
    const until = performance.now() + limitMs;
    try {
      for (let found = 0; found < wanted && performance.now() < until; ) {
        const taken = await this.#gate.bracket(...this.#comparison.samples);
        this.#taken.push(taken);
        if (this.#gate.isCalm(taken.slowest)) found++;
      }
    } catch (e) {
      this.failure = e instanceof Error ? e.message : String(e);
    }
  }

  result(): Moments | undefined {
    if (this.failure !== undefined) return undefined;
    const { figure } = this.#comparison;
    // Again, now that all probes are known.
    const calm = this.#taken.filter(({ slowest }) => this.#gate.isCalm(slowest));
    const figures = calm.map(({ values }) => figure(values[0]!, values[1]!));
    return { calm: figures, taken: this.#taken.length };
  }
}

/** What two threads of a variant get done in the time of one thread's work; 2 is perfect. */
export const twoAgainstOne = (peer: Peer, row: Row, sampleMs: number): Comparison => ({
  samples: [sampler(peer, { ...row, threads: 1 }, sampleMs), sampler(peer, { ...row, threads: 2 }, sampleMs)],
  figure: (one, two) => (2 * one) / two,
});

/** One variant's time by another's. */
export const timeByTime = (ours: Peer, theirs: Peer, row: Row, sampleMs: number): Comparison => ({
  samples: [sampler(ours, row, sampleMs), sampler(theirs, row, sampleMs)],
  figure: (above, below) => above / below,
});

const TRIALS = 5;
const TRIAL_OPERATIONS = 100_000;

/** Nanoseconds per operation of a sample. The variant has been warmed up: the fastest trial tells how much a sample is. */
function sampler(peer: Peer, row: Row, sampleMs: number): Sample {
  const run = async (operations: number): Promise<number> =>
    (await peer.run({ ...row, operations })) / operations;
  let operations = 0;
  return async () => {
    if (operations === 0) {
      const trial = wholeBatches(row.workload, TRIAL_OPERATIONS);
      let fastest = Number.POSITIVE_INFINITY;
      for (let i = 0; i < TRIALS; i++) fastest = Math.min(fastest, await run(trial));
      operations = wholeBatches(row.workload, (sampleMs * 1e6) / fastest);
    }
    return await run(operations);
  };
}
