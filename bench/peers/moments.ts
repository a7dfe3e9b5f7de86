/**
 * Comparisons whose subject is two threads at once: one thread against two, or objects that go from one to the other.
 * They say something only while the machine has a core for each, so they are judged by calm moments alone.
 */
import type { Gate } from './calm.js';
import type { Peer } from './peer.js';
import { type Row, wholeBatches } from './plan.js';

export interface MomentPace {
  readonly sampleMs: number;
  /** Calm comparisons until a spell is over, and the time after which it ends without. */
  readonly wanted: number;
  readonly limitMs: number;
}

export const FULL_MOMENTS: MomentPace = { sampleMs: 1.5, wanted: 3, limitMs: 3000 };
export const QUICK_MOMENTS: MomentPace = { sampleMs: 1.5, wanted: 3, limitMs: 500 };

/** Where fewer are calm, calm moments are mostly shorter than a comparison: calm at both ends, but not between. */
const CALM_SHARE = 0.05;

/** What was found in each calm moment, and how many moments were looked at. */
export interface Moments {
  readonly calm: readonly number[];
  readonly taken: number;
}

/** One figure of one moment. */
export type Compare = () => Promise<number>;

/** The comparisons of a bar, taken in spells: one a round, so that a disturbed minute is not all there is to judge by. */
export class MomentMeter {
  readonly #gate: Gate;
  readonly #compare: Compare;
  readonly #pace: MomentPace;
  readonly #spells: { readonly value: number; readonly slowest: number }[][] = [];
  /** Why there is no result; what fails once is left alone. */
  failure: string | undefined;

  constructor(gate: Gate, compare: Compare, pace: MomentPace) {
    this.#gate = gate;
    this.#compare = compare;
    this.#pace = pace;
  }

  async spell(): Promise<void> {
    if (this.failure !== undefined) return;
    const moments: { value: number; slowest: number }[] = [];
    this.#spells.push(moments);
    const { wanted, limitMs } = this.#pace;
    const until = performance.now() + limitMs;
    try {
      while (this.#calmOf(moments).length < wanted && performance.now() < until) {
        moments.push(await this.#gate.bracket(this.#compare));
      }
    } catch (e) {
      this.failure = e instanceof Error ? e.message : String(e);
    }
  }

  result(): Moments | undefined {
    if (this.failure !== undefined) return undefined;
    const calm = this.#spells.flatMap((moments) => {
      const own = this.#calmOf(moments);
      return own.length < CALM_SHARE * moments.length ? [] : own;
    });
    return { calm, taken: this.#spells.flat().length };
  }

  #calmOf(moments: readonly { value: number; slowest: number }[]): number[] {
    return moments.filter((m) => this.#gate.isCalm(m.slowest)).map((m) => m.value);
  }
}

/** What two threads of a variant get done in the time of one thread's work; 2 is perfect. */
export function twoAgainstOne(peer: Peer, row: Row, sampleMs: number): Compare {
  const one = sampler(peer, { ...row, threads: 1 }, sampleMs);
  const two = sampler(peer, { ...row, threads: 2 }, sampleMs);
  return async () => (2 * (await one())) / (await two());
}

/** One variant's time by another's, in turns the one first and the other. */
export function timeByTime(ours: Peer, theirs: Peer, row: Row, sampleMs: number): Compare {
  const above = sampler(ours, row, sampleMs);
  const below = sampler(theirs, row, sampleMs);
  let turn = false;
  return async () => {
    turn = !turn;
    if (turn) return (await above()) / (await below());
    const time = await below();
    return (await above()) / time;
  };
}

const TRIALS = 5;
const TRIAL_OPERATIONS = 100_000;

/** Nanoseconds per operation of a sample. The variant has been warmed up: the fastest trial tells how much a sample is. */
function sampler(peer: Peer, row: Row, sampleMs: number): () => Promise<number> {
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
