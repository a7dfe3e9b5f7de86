/**
 * The phases of a study.
 *
 *  1. Gate: every row once with cookies in all objects, and its memory measured.
 *  2. Time: all rows in turns, round by round, in an order that the seed shuffles; no statistics, no clock inside.
 *  3. Latency: every row once with each 64th call timed.
 *  4. Locks: every row of several threads once on an arena with lock statistics.
 *
 * Each phase has threads of its own: what a thread has run before is compiled into what it runs next. There is an
 * arena for each policy, so that the calls in the loops have one target.
 */
import type { LockPolicy } from '../../struct/index.js';
import { LOCK_POLICIES } from '../../struct/index.js';
import type { HeapKind } from '../heaps.js';
import type { Progress } from '../progress.js';
import { arenaBytesFor } from '../replayBytes.js';
import type { Sample } from '../sample.js';
import { Stage } from '../stage.js';
import { median, rng } from '../stats.js';
import { cachesFor, type StudyPlan } from './plan.js';
import type { Row } from './row.js';

/** Ends of the phases, as shares of the whole time. What is not done by then, on a busy machine, is left out. */
const GATE_FROM = 0.06;
const GATE_UNTIL = 0.22;
const WARM_UNTIL = 0.34;
const TIME_UNTIL = 0.7;
const LATENCY_UNTIL = 0.82;
const LOCKS_UNTIL = 0.96;

const ROUNDS_WANTED = 15;
/** Fewer only where the time is over. */
const ROUNDS_MIN = 3;
const ROUNDS_MAX = 201;
const SAMPLE_MIN_MS = 2;
const SAMPLE_MAX_MS = 40;
/** A run for latency or locks; there is one for each row. */
const ONE_RUN_MAX_MS = 200;

/** Operations of a thread where correctness is looked at, not time. */
const GATE_OPS = 2000;
/** And where nothing is known of the row yet. */
const FIRST_OPS = 5000;
/** Runs before a row is timed: by then its loop is compiled. */
const WARM_RUNS = 8;
const WARM_RUNS_MIN = 2;
const SCALE_MAX = 2 ** 26;
/** A replay is warm after so many passes. */
const WARM_PASSES = 12;

interface StudyTimes {
  rounds: number;
  sampleMs: number;
}

const mostThreadsFirst = (rows: readonly Row[]): Row[] => [...rows].sort((a, b) => b.threads - a.threads);

type Stages = Readonly<Record<LockPolicy, Stage>>;

export class StudyRun {
  readonly #plan: StudyPlan;
  readonly #progress: Progress;
  readonly #start: number;
  readonly #random: () => number;
  readonly #maxCaches: number;
  readonly #bytes: number;
  /** How long a timed run is to take, and what a run takes besides. */
  #sampleMs = SAMPLE_MIN_MS;
  #overheadMs = 0;
  /** What was wrong with an arena as a whole. */
  readonly problems: string[] = [];

  constructor(plan: StudyPlan, progress: Progress, start: number) {
    this.#plan = plan;
    this.#progress = progress;
    this.#start = start;
    this.#random = rng(plan.seed);
    this.#maxCaches = cachesFor(plan.programs);
    this.#bytes = arenaBytesFor(plan.programs);
  }

  async run(): Promise<StudyTimes> {
    await this.#eachPolicy({}, (stage, rows, until) => this.#gate(stage, rows, until), GATE_FROM, GATE_UNTIL);
    const times = await this.#time();
    await this.#eachPolicy(
      {},
      (stage, rows, until) => this.#latency(stage, rows, until),
      TIME_UNTIL,
      LATENCY_UNTIL,
    );
    const locks = { lockStat: 'contended' } as const;
    await this.#eachPolicy(
      locks,
      (stage, rows, until) => this.#locks(stage, rows, until),
      LATENCY_UNTIL,
      LOCKS_UNTIL,
    );
    return times;
  }

  #spent(): number {
    return (performance.now() - this.#start) / (this.#plan.seconds * 1000);
  }

  /** Milliseconds until a share of the whole time is over. */
  #until(share: number): number {
    return this.#start + share * this.#plan.seconds * 1000 - performance.now();
  }

  #open(policy: LockPolicy, options: { lockStat?: 'contended' } = {}): Stage {
    const threads = this.#plan.threads.at(-1)!;
    const shared = { threads, lockPolicy: policy, bytes: this.#bytes, maxCaches: this.#maxCaches };
    const stage = new Stage({ ...shared, ...options });
    for (const program of this.#plan.programs) stage.addTrace(program);
    return stage;
  }

  async #close(stage: Stage): Promise<void> {
    this.problems.push(...(await stage.close()));
  }

  /** One policy after the other, each with half of the time between two shares. */
  async #eachPolicy(
    options: { lockStat?: 'contended' },
    phase: (stage: Stage, rows: Row[], until: number) => Promise<void>,
    from: number,
    to: number,
  ): Promise<void> {
    for (const [i, policy] of LOCK_POLICIES.entries()) {
      const stage = this.#open(policy, options);
      try {
        const rows = this.#plan.rows.filter((row) => row.policy === policy);
        await phase(stage, rows, from + ((to - from) * (i + 1)) / LOCK_POLICIES.length);
      } finally {
        await this.#close(stage);
      }
    }
  }

  async #gate(stage: Stage, rows: readonly Row[], until: number): Promise<void> {
    const gated = new Set<string>();
    for (const row of mostThreadsFirst(rows)) {
      // Each workload once, whatever the time; on its other threads as long as there is some.
      if (gated.has(row.workload) && this.#until(until) <= 0) continue;
      gated.add(row.workload);
      this.#progress.step(`checking ${row.label}`, this.#spent());
      const before = stage.shrink();
      await this.#try(stage, row, row.program === undefined ? GATE_OPS : 1, 'verify');
      row.highWaterPages = stage.arena.meminfo().highWaterPages - before;
    }
  }

  async #time(): Promise<StudyTimes> {
    const stages: Stages = { turn: this.#open('turn'), op: this.#open('op') };
    try {
      await this.#warmUp(stages);
      return { rounds: await this.#rounds(stages), sampleMs: this.#sampleMs };
    } finally {
      for (const policy of LOCK_POLICIES) await this.#close(stages[policy]);
    }
  }

  /** Compiles and measures every row, and sets its scale so that a run takes as long as there is time for. */
  async #warmUp(stages: Stages): Promise<void> {
    const { rows } = this.#plan;
    const costs: number[] = [];
    const nsPerUnit = new Map<Row, number>();
    // The row of a workload with the most threads warms the threads of all its others.
    const largest = new Map<string, Row>();
    for (const row of mostThreadsFirst(rows)) {
      const first = largest.get(`${row.workload} ${row.policy}`) ?? row;
      largest.set(`${row.workload} ${row.policy}`, first);
      const late = this.#until(WARM_UNTIL) <= 0;
      if (late && first !== row) {
        nsPerUnit.set(row, nsPerUnit.get(first)!);
        continue;
      }
      this.#progress.step(`warming up ${row.label}`, this.#spent());
      const scale = row.program === undefined ? FIRST_OPS : WARM_PASSES;
      const runs = row.program !== undefined ? 1 : first === row && !late ? WARM_RUNS : WARM_RUNS_MIN;
      let last: Sample | undefined;
      for (let i = 0; i < runs; i++) {
        const start = performance.now();
        last = await this.#try(stages[row.policy], row, scale, 'plain');
        costs.push(performance.now() - start - (last?.wallMs ?? 0));
      }
      nsPerUnit.set(row, ((last?.wallMs ?? 1) * 1e6) / scale);
    }
    this.#overheadMs = median(costs);
    this.#setScales(nsPerUnit);
  }

  #setScales(nsPerUnit: ReadonlyMap<Row, number>): void {
    const { rows } = this.#plan;
    const share = this.#until(TIME_UNTIL) / ROUNDS_WANTED / rows.length - this.#overheadMs;
    this.#sampleMs = Math.min(SAMPLE_MAX_MS, Math.max(SAMPLE_MIN_MS, share));
    for (const row of rows) {
      const scale = Math.round((this.#sampleMs * 1e6) / nsPerUnit.get(row)!);
      row.scale = Math.min(SCALE_MAX, Math.max(row.program === undefined ? FIRST_OPS : 1, scale));
    }
  }

  async #rounds(stages: Stages): Promise<number> {
    let round = 0;
    let roundMs = 0;
    while (round < ROUNDS_MAX) {
      const left = this.#until(TIME_UNTIL);
      if (round > 0 && (left <= 0 || (round >= ROUNDS_MIN && left < roundMs))) break;
      const start = performance.now();
      for (const row of this.#shuffled(this.#plan.rows)) {
        this.#progress.step(`round ${round + 1}: ${row.label}`, this.#spent());
        const sample = await this.#try(stages[row.policy], row, row.scale, 'plain');
        if (sample !== undefined) row.keep(sample);
      }
      roundMs = performance.now() - start;
      round++;
    }
    return round;
  }

  async #latency(stage: Stage, rows: readonly Row[], until: number): Promise<void> {
    await this.#warmThreads(stage, rows, 'sampled', until);
    for (const [i, row] of this.#shuffled(rows).entries()) {
      if (i > 0 && this.#until(until) <= 0) break;
      this.#progress.step(`latency of ${row.label}`, this.#spent());
      const scale = this.#scaleFor(row, this.#until(until) / (rows.length - i));
      row.histogram = (await this.#try(stage, row, scale, 'sampled'))?.histogram;
    }
  }

  async #locks(stage: Stage, rows: readonly Row[], until: number): Promise<void> {
    const several = rows.filter(({ threads }) => threads > 1);
    await this.#warmThreads(stage, several, 'plain', until);
    for (const [i, row] of this.#shuffled(several).entries()) {
      if (i > 0 && this.#until(until) <= 0) break;
      this.#progress.step(`locks of ${row.label}`, this.#spent());
      const scale = this.#scaleFor(row, this.#until(until) / (several.length - i));
      stage.takeLockStat();
      const sample = await this.#try(stage, row, scale, 'plain');
      if (sample === undefined) continue;
      row.locks = stage.takeLockStat();
      row.lockRunMs = sample.wallMs;
    }
  }

  /** Compiles the loops on threads that have not run them: the row with the most threads does it for its workload. */
  async #warmThreads(stage: Stage, rows: readonly Row[], heap: HeapKind, until: number): Promise<void> {
    const warm = new Set<string>();
    for (const row of mostThreadsFirst(rows)) {
      if (warm.has(row.workload) || this.#until(until) <= 0) continue;
      warm.add(row.workload);
      this.#progress.step(`warming up ${row.label}`, this.#spent());
      await this.#try(stage, row, row.program === undefined ? 2 * FIRST_OPS : 1, heap);
    }
  }

  /** The row's scale for a run that has `ms`, dispatch and validate included. */
  #scaleFor(row: Row, ms: number): number {
    const runMs = Math.min(ONE_RUN_MAX_MS, Math.max(0, ms - this.#overheadMs));
    const least = row.program === undefined ? Math.min(FIRST_OPS, row.scale) : 1;
    // Timed calls and statistics take their time.
    return Math.min(SCALE_MAX, Math.max(least, Math.round((row.scale * runMs) / this.#sampleMs / 2)));
  }

  /** Runs a row; an error makes the row void and the study goes on. */
  async #try(stage: Stage, row: Row, scale: number, heap: HeapKind): Promise<Sample | undefined> {
    try {
      return await row.run(stage, scale, heap, this.#plan.seed);
    } catch {
      return undefined;
    }
  }

  #shuffled(rows: readonly Row[]): Row[] {
    const order = [...rows];
    for (let i = order.length - 1; i > 0; i--) {
      const j = Math.floor(this.#random() * (i + 1));
      [order[i], order[j]] = [order[j]!, order[i]!];
    }
    return order;
  }
}
