/** Warms up, sets the sizes of the samples, and measures: round by round, every variant next to the others. */
import type { Gate, Sample } from './calm.js';
import type { Series } from './figures.js';
import type { Peer } from './peer.js';
import {
  NATIVES,
  type Row,
  rowLabel,
  shuffle,
  takesPart,
  type Variant,
  wholeBatches,
  xorshift32,
} from './plan.js';

export interface Pace {
  readonly rounds: number;
  readonly sampleMs: number;
  /** A sample is taken again until it was calm, at most so often, and all of them together for so long. */
  readonly tries: number;
  readonly patienceMs: number;
  /** Time in the loop before the first sample: long enough for the optimising compiler. */
  readonly warmUpMs: number;
  /** The same for native code, which is only to fill its caches. */
  readonly nativeWarmUpMs: number;
}

export const FULL: Omit<Pace, 'rounds'> = {
  sampleMs: 2,
  tries: 500,
  patienceMs: 120_000,
  warmUpMs: 300,
  nativeWarmUpMs: 60,
};
export const QUICK: Omit<Pace, 'rounds'> = {
  sampleMs: 2,
  tries: 2,
  patienceMs: 5000,
  warmUpMs: 60,
  nativeWarmUpMs: 15,
};

/** One variant in one row. */
interface Lane {
  readonly variant: Variant;
  readonly peer: Peer;
  readonly row: Row;
  operations: number;
  readonly nsPerOp: number[];
  /** Of each of them, the slower probe. */
  readonly slowest: number[];
  failed: boolean;
}

export interface Progress {
  /** Called before each piece of work with what it is and how much of all there is to do has been done. */
  step(what: string, share: number): void;
}

export interface RunResult {
  readonly series: readonly Series[];
  /** One line per variant and row that could not be measured to the end. */
  readonly failures: string[];
  /** The share of the samples that were calm; undefined where there is no probe. */
  readonly calm: number | undefined;
}

export interface RunnerOptions {
  /** What tells calm samples; without it every first one counts. */
  readonly gate?: Gate | undefined;
  readonly afterRound?: (() => Promise<void>) | undefined;
}

const SHARES = 5;
const FIRST_TRIAL = 2000;
const TRIAL_NS = 4e6;
const CALIBRATIONS = 2;
/** Rough number of samples that the warm-up of a lane takes as long as; only for the time left. */
const WARM_UP_WEIGHT = 6;

export class Runner {
  readonly #pace: Pace;
  readonly #gate: Gate | undefined;
  readonly #afterRound: RunnerOptions['afterRound'];
  readonly #progress: Progress;
  readonly #lanes: Lane[];
  readonly #next: () => number;
  readonly #failures: string[] = [];
  readonly #toDo: number;
  #done = 0;
  /** Spent on samples that were taken again. */
  #waitedMs = 0;

  constructor(
    peers: readonly Peer[],
    rows: readonly Row[],
    pace: Pace,
    seed: number,
    progress: Progress,
    { gate, afterRound }: RunnerOptions = {},
  ) {
    this.#pace = pace;
    this.#gate = gate;
    this.#afterRound = afterRound;
    this.#progress = progress;
    this.#next = xorshift32(seed);
    this.#lanes = rows.flatMap((row) => peers.flatMap((peer) => openLane(peer, row)));
    this.#toDo = this.#lanes.length * (WARM_UP_WEIGHT + CALIBRATIONS + pace.rounds);
  }

  /** Everything; never rejects because one variant fails: that one is left out, and named. */
  async run(): Promise<RunResult> {
    for (const lane of this.#lanes)
      await this.#guarded(lane, 'warm-up', WARM_UP_WEIGHT, () => this.#warmUp(lane));
    for (const lane of this.#lanes) {
      await this.#guarded(lane, 'size of a sample', CALIBRATIONS, () => this.#calibrate(lane));
    }
    for (let round = 1; round <= this.#pace.rounds; round++) {
      await this.#round(round);
      await this.#afterRound?.();
    }
    const series = this.#lanes.filter((lane) => !lane.failed);
    return {
      series: series.map(({ variant, row, operations, nsPerOp }) => ({ variant, row, operations, nsPerOp })),
      failures: this.#failures,
      calm: this.#calmShare(series),
    };
  }

  /** Rows in their order, the two thread counts of a workload together, their variants shuffled. */
  async #round(round: number): Promise<void> {
    for (const group of groupsOf(this.#lanes)) {
      for (const lane of shuffle([...group], this.#next)) {
        await this.#guarded(lane, `round ${round}/${this.#pace.rounds}`, 1, async () => {
          await this.#calmSample(lane);
        });
      }
    }
  }

  /** Of a number of tries the first that was calm, or else the one that came nearest to it. */
  async #calmSample(lane: Lane): Promise<void> {
    const work: Sample = async () => (await this.#sample(lane, lane.operations)) / lane.operations;
    const gate = this.#gate;
    if (!gate) {
      lane.nsPerOp.push(await work());
      return;
    }
    let best = await gate.bracket(work);
    const start = performance.now();
    const until = start + this.#patience();
    for (let i = 1; i < this.#pace.tries && !gate.isCalm(best.slowest) && performance.now() < until; i++) {
      const again = await gate.bracket(work);
      if (again.slowest < best.slowest) best = again;
    }
    this.#waitedMs += performance.now() - start;
    lane.nsPerOp.push(best.values[0]!);
    lane.slowest.push(best.slowest);
  }

  /** Milliseconds for one sample: several times its share of what is left, as many samples need none of theirs. */
  #patience(): number {
    const left = this.#pace.patienceMs - this.#waitedMs;
    return Math.max(0, (SHARES * left) / (this.#toDo - this.#done));
  }

  #calmShare(lanes: readonly Lane[]): number | undefined {
    const gate = this.#gate;
    const all = lanes.flatMap((lane) => lane.slowest);
    if (!gate || all.length === 0) return undefined;
    return all.filter((slowest) => gate.isCalm(slowest)).length / all.length;
  }

  async #guarded(lane: Lane, phase: string, weight: number, work: () => Promise<void>): Promise<void> {
    if (!lane.failed) {
      this.#progress.step(`${phase}: ${rowLabel(lane.row)}, ${lane.variant}`, this.#done / this.#toDo);
      try {
        await work();
      } catch (e) {
        this.#leaveOut(lane, e instanceof Error ? e.message : String(e));
      }
    }
    this.#done += weight;
  }

  #leaveOut(lane: Lane, why: string): void {
    lane.failed = true;
    const spoilt = lane.peer.spoilt ? this.#lanes.filter((other) => other.peer === lane.peer) : [];
    for (const other of spoilt) other.failed = true;
    const rest = spoilt.length > 1 ? ' (its other rows are left out as well)' : '';
    this.#failures.push(`${lane.variant}, ${rowLabel(lane.row)}: ${why}${rest}`);
  }

  async #sample(lane: Lane, operations: number): Promise<number> {
    return await lane.peer.run({ ...lane.row, operations });
  }

  /** Many calls rather than one long one: the loop itself gets compiled, not only replaced on the stack. */
  async #warmUp(lane: Lane): Promise<void> {
    const native = (NATIVES as readonly string[]).includes(lane.variant);
    const budget = (native ? this.#pace.nativeWarmUpMs : this.#pace.warmUpMs) * 1e6;
    let operations = wholeBatches(lane.row.workload, FIRST_TRIAL);
    for (let spent = 0; spent < budget; ) {
      const ns = await this.#sample(lane, operations);
      spent += ns;
      lane.operations = this.#operationsFor(lane, ns / operations);
      if (ns < TRIAL_NS) operations *= 2;
    }
  }

  /** Once more after everybody's warm-up: compiled code may have been thrown away by a later row's. */
  async #calibrate(lane: Lane): Promise<void> {
    for (let i = 0; i < CALIBRATIONS; i++) {
      const ns = await this.#sample(lane, lane.operations);
      lane.operations = this.#operationsFor(lane, ns / lane.operations);
    }
  }

  #operationsFor(lane: Lane, nsPerOp: number): number {
    return wholeBatches(lane.row.workload, (this.#pace.sampleMs * 1e6) / nsPerOp);
  }
}

function openLane(peer: Peer, row: Row): Lane[] {
  const { variant } = peer;
  if (variant === 'probe' || !takesPart(variant, row)) return [];
  return [{ variant, peer, row, operations: 0, nsPerOp: [], slowest: [], failed: false }];
}

function groupsOf(lanes: readonly Lane[]): Lane[][] {
  const groups = new Map<string, Lane[]>();
  for (const lane of lanes) {
    const key = `${lane.row.workload}/${lane.row.size}`;
    const group = groups.get(key);
    if (group) group.push(lane);
    else groups.set(key, [lane]);
  }
  return [...groups.values()];
}
