/** Two threads against one, in calm moments only: it is the machine's two processors that are in question. */
import type { Gate } from './calm.js';
import type { Peer } from './peer.js';
import { type Row, wholeBatches } from './plan.js';

export interface ScalingPace {
  readonly sampleMs: number;
  /** Calm comparisons until a spell is over, and the time after which it ends without. */
  readonly wanted: number;
  readonly limitMs: number;
}

export const FULL_SCALING: ScalingPace = { sampleMs: 1.5, wanted: 3, limitMs: 4000 };
export const QUICK_SCALING: ScalingPace = { sampleMs: 1.5, wanted: 3, limitMs: 700 };

/** Where fewer are calm, calm moments are mostly shorter than a comparison: calm at both ends, but not between. */
const CALM_SHARE = 0.05;

/** What two threads got done in the time of one thread's work, in each calm moment; 2 is perfect. */
export interface Scaling {
  readonly calm: readonly number[];
  readonly taken: number;
}

interface Moment {
  readonly value: number;
  readonly slowest: number;
}

const TRIALS = 5;
const TRIAL_OPERATIONS = 100_000;

/** One row's comparisons, taken in spells: one a round, so that a disturbed minute is not all there is to judge by. */
export class ScalingMeter {
  readonly #peer: Peer;
  readonly #gate: Gate;
  readonly #row: Row;
  readonly #pace: ScalingPace;
  readonly #spells: Moment[][] = [];
  #operations = 0;
  /** Why there is no result; what fails once is left alone. */
  failure: string | undefined;

  /** @param row the one with two threads */
  constructor(peer: Peer, gate: Gate, row: Row, pace: ScalingPace) {
    this.#peer = peer;
    this.#gate = gate;
    this.#row = row;
    this.#pace = pace;
  }

  async spell(): Promise<void> {
    if (this.failure !== undefined) return;
    try {
      if (this.#operations === 0) this.#operations = await this.#operationsOfSample();
      await this.#takeMoments();
    } catch (e) {
      this.failure = e instanceof Error ? e.message : String(e);
    }
  }

  async #takeMoments(): Promise<void> {
    const { wanted, limitMs } = this.#pace;
    const moments: Moment[] = [];
    this.#spells.push(moments);
    const until = performance.now() + limitMs;
    while (this.#calmOf(moments).length < wanted && performance.now() < until) {
      moments.push(await this.#gate.bracket(() => this.#compare()));
    }
  }

  result(): Scaling | undefined {
    if (this.failure !== undefined) return undefined;
    const calm = this.#spells.flatMap((moments) => {
      const own = this.#calmOf(moments);
      return own.length < CALM_SHARE * moments.length ? [] : own;
    });
    return { calm, taken: this.#spells.flat().length };
  }

  #calmOf(moments: readonly Moment[]): number[] {
    return moments.filter((m) => this.#gate.isCalm(m.slowest)).map((m) => m.value);
  }

  async #compare(): Promise<number> {
    const one = await this.#run(1, this.#operations);
    return (2 * one) / (await this.#run(2, this.#operations));
  }

  async #run(threads: 1 | 2, operations: number): Promise<number> {
    return await this.#peer.run({ ...this.#row, threads, operations });
  }

  /** The variant has been warmed up: the fastest trial is how long a sample takes. */
  async #operationsOfSample(): Promise<number> {
    const trial = wholeBatches(this.#row.workload, TRIAL_OPERATIONS);
    let fastest = Number.POSITIVE_INFINITY;
    for (let i = 0; i < TRIALS; i++) fastest = Math.min(fastest, await this.#run(1, trial));
    return wholeBatches(this.#row.workload, (this.#pace.sampleMs * 1e6 * trial) / fastest);
  }
}
