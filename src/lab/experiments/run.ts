/**
 * The phases of an experiment.
 *
 *  1. Warm up: every variant runs every case on its own arena, whose threads run nothing else; then each case gets a
 *     number of operations, the same for all variants.
 *  2. Time: all cases round by round, in an order that the seed shuffles; within a case all variants at once, in a
 *     shuffled order, too. No statistics, no clock inside.
 *  3. Gate: every row once with cookies in all objects, and its memory measured. It comes last, because what it makes
 *     V8 compile is slower.
 *  4. Locks: on arenas and threads of their own, with lock statistics; only where the experiment asks for it.
 *
 * Each run is followed by a validate of the arena. One finding, and the variant's figures are void.
 */
import { KMALLOC_SIZES, MAX_CACHES } from '../../cache/index.js';
import { noProgress, type Progress } from '../progress.js';
import { arenaBytesFor } from '../replayBytes.js';
import { Stage } from '../stage.js';
import { median, rng } from '../stats.js';
import { cachesFor } from '../study/plan.js';
import type { Variant } from './experiment.js';
import { ROUNDS_MIN } from './judge.js';
import type { ExperimentPlan } from './plan.js';
import type { Case, Row } from './row.js';

const KERNEL_BARN_FULL = 10;

/** Ends of the phases, as shares of the whole time; the last is for closing down. */
const WITHOUT_LOCKS = { warm: 0.25, time: 0.88, gate: 0.97, locks: 0.97 };
const WITH_LOCKS = { warm: 0.2, time: 0.68, gate: 0.76, locks: 0.97 };

const ROUNDS_MAX = 201;
const ROUNDS_WANTED = 15;
const LOCK_ROUNDS = ROUNDS_MIN;
const SAMPLE_MIN_MS = 1;
const SAMPLE_MAX_MS = 40;
/** Operations of a thread where nothing is known of the row yet, and where correctness is looked at. */
const FIRST_OPS = 5000;
const GATE_OPS = 20_000;
const QUICK_OPS = 1000;
const QUICK_LOCK_ROUNDS = 2;
const SCALE_MAX = 2 ** 26;
/** Runs before a row is timed: by then its loop is compiled. */
const WARM_RUNS = 8;
const WARM_RUNS_LEAST = 2;
const WARM_PASSES = 12;
const MIB = 2 ** 20;
/** For slub-bulk, where all objects live at once, and what threads keep. */
const BYTES_PER_THREAD = 12 * MIB;

interface ExperimentTimes {
  rounds: number;
  /** How long a run took, mean of the variants, that the cases were scaled for. */
  sampleMs: number;
}

export class ExperimentRun {
  readonly #plan: ExperimentPlan;
  readonly #progress: Progress;
  readonly #start: number;
  readonly #random: () => number;
  readonly #ends: typeof WITH_LOCKS;
  #sampleMs = SAMPLE_MIN_MS;
  /** What a run takes besides its loop. */
  #overheadMs = 0;

  constructor(plan: ExperimentPlan, start: number, progress: Progress = noProgress) {
    this.#plan = plan;
    this.#progress = progress;
    this.#start = start;
    this.#random = rng(plan.seed);
    this.#ends = this.#wantsLocks ? WITH_LOCKS : WITHOUT_LOCKS;
  }

  async run(): Promise<ExperimentTimes> {
    const rounds = await this.#onStages({}, async (stages) => {
      await this.#warmUp(stages);
      const done = await this.#rounds(stages);
      await this.#gate(stages);
      return done;
    });
    if (this.#wantsLocks) {
      await this.#onStages({ lockStat: 'contended' }, (stages) => this.#locks(stages));
    }
    return { rounds, sampleMs: this.#sampleMs };
  }

  get #wantsLocks(): boolean {
    const { experiment, cases } = this.#plan;
    return (
      experiment.shows.some((shown) => shown === 'locks' || shown === 'perf-lock') &&
      cases.some(({ threads }) => threads > 1)
    );
  }

  get #firstOps(): number {
    return this.#plan.quick ? QUICK_OPS : FIRST_OPS;
  }

  #spent(): number {
    return Math.min(1, (performance.now() - this.#start) / (this.#plan.seconds * 1000));
  }

  /** Milliseconds until a share of the whole time is over. */
  #until(share: number): number {
    return this.#start + share * this.#plan.seconds * 1000 - performance.now();
  }

  /** An arena with its threads for each variant; what is wrong with one in the end makes its variant void. */
  async #onStages<T>(
    options: { lockStat?: 'contended' },
    body: (stages: readonly Stage[]) => Promise<T>,
  ): Promise<T> {
    const stages: Stage[] = [];
    try {
      for (const i of this.#plan.variants.keys()) stages.push(this.#open(i, options));
      return await body(stages);
    } finally {
      for (const [i, stage] of stages.entries()) await this.#close(i, stage);
    }
  }

  #open(variant: number, options: { lockStat?: 'contended' }): Stage {
    const { experiment, threads, programs, variants } = this.#plan;
    this.#progress.step(`starting ${variants[variant]!.name}`, this.#spent());
    const most = threads.at(-1)!;
    const copies = variants[variant]!.stage.kmalloc?.copies ?? 0;
    const stage = new Stage({
      // What is compared is the kernel's work, and its barns do not grow.
      barnFull: KERNEL_BARN_FULL,
      ...variants[variant]!.stage,
      ...cpusFor(variants[variant]!, most),
      ...options,
      threads: most,
      bytes: experiment.bytes ?? arenaBytesFor(programs) + Math.ceil((most * BYTES_PER_THREAD) / MIB) * MIB,
      maxCaches: Math.min(MAX_CACHES, cachesFor(programs) + copies * KMALLOC_SIZES.length),
    });
    for (const program of programs) stage.addTrace(variants[variant]!.program?.(program) ?? program);
    return stage;
  }

  async #close(variant: number, stage: Stage): Promise<void> {
    let problems: string[];
    try {
      problems = await stage.close();
    } catch (error) {
      problems = [`the arena could not be left: ${error instanceof Error ? error.message : String(error)}`];
    }
    for (const { rows } of this.#plan.cases) rows[variant]!.problems.push(...problems);
  }

  async #warmUp(stages: readonly Stage[]): Promise<void> {
    const { cases, quick } = this.#plan;
    const costs: number[] = [];
    const nsPerUnit = new Map<Case, number>();
    const seen = new Set<string>();
    // The case of a workload with the most threads warms the threads of all its others.
    for (const one of [...cases].sort((a, b) => b.threads - a.threads)) {
      const first = !seen.has(one.workload);
      seen.add(one.workload);
      const late = this.#until(this.#ends.warm) <= 0;
      const runs = one.program === undefined && first && !late && !quick ? WARM_RUNS : WARM_RUNS_LEAST;
      const scale = one.program === undefined ? this.#firstOps : quick ? 1 : WARM_PASSES;
      const each: number[] = [];
      for (const [i, row] of one.rows.entries()) {
        this.#progress.step(`warming up ${row.label}`, this.#spent());
        let wallMs = 1;
        for (let run = 0; run < runs; run++) {
          const start = performance.now();
          wallMs = (await this.#run(stages[i]!, row, scale))?.wallMs ?? wallMs;
          costs.push(performance.now() - start - wallMs);
        }
        each.push((wallMs * 1e6) / scale);
      }
      nsPerUnit.set(one, each.reduce((sum, ns) => sum + ns, 0) / each.length);
    }
    this.#overheadMs = Math.max(0, median(costs));
    this.#setScales(nsPerUnit);
  }

  #setScales(nsPerUnit: ReadonlyMap<Case, number>): void {
    const { cases, variants, rounds = ROUNDS_WANTED } = this.#plan;
    const runs = rounds * cases.length * variants.length;
    const share = this.#until(this.#ends.time) / runs - this.#overheadMs;
    this.#sampleMs = Math.min(SAMPLE_MAX_MS, Math.max(SAMPLE_MIN_MS, share));
    for (const one of cases) {
      const scale = Math.round((this.#sampleMs * 1e6) / nsPerUnit.get(one)!);
      one.scale = Math.min(SCALE_MAX, Math.max(one.program === undefined ? this.#firstOps : 1, scale));
    }
  }

  async #rounds(stages: readonly Stage[]): Promise<number> {
    const { rounds } = this.#plan;
    let round = 0;
    let roundMs = 0;
    while (round < (rounds ?? ROUNDS_MAX)) {
      const left = this.#until(this.#ends.time);
      if (rounds === undefined && round >= ROUNDS_MIN && left < roundMs) break;
      const start = performance.now();
      for (const one of this.#shuffled(this.#plan.cases)) {
        this.#progress.step(
          `round ${round + 1}: ${one.rows[0]!.label.replace(/, [^,]*$/, '')}`,
          this.#spent(),
        );
        for (const i of this.#shuffled([...one.rows.keys()])) {
          const row = one.rows[i]!;
          const sample = await this.#run(stages[i]!, row, one.scale);
          if (sample !== undefined) row.keep(sample);
        }
      }
      roundMs = performance.now() - start;
      round++;
    }
    return round;
  }

  /** Every workload once whatever the time; its other thread counts as long as there is some. */
  async #gate(stages: readonly Stage[]): Promise<void> {
    const gated = new Set<string>();
    for (const one of [...this.#plan.cases].sort((a, b) => b.threads - a.threads)) {
      if (gated.has(one.workload) && this.#until(this.#ends.gate) <= 0) continue;
      gated.add(one.workload);
      for (const [i, row] of one.rows.entries()) {
        if (row.problems.length > 0) continue;
        this.#progress.step(`checking ${row.label}`, this.#spent());
        const before = stages[i]!.shrink();
        const scale = one.program === undefined ? Math.min(one.scale, GATE_OPS) : 1;
        await row.run(stages[i]!, scale, 'verify', this.#plan.seed);
        row.highWaterPages = stages[i]!.arena.meminfo().highWaterPages - before;
      }
    }
  }

  async #locks(stages: readonly Stage[]): Promise<void> {
    const rounds = this.#plan.quick ? QUICK_LOCK_ROUNDS : LOCK_ROUNDS;
    const several = this.#plan.cases.filter(({ threads }) => threads > 1);
    const runs = several.length * this.#plan.variants.length * (rounds + 1);
    const runMs = Math.max(SAMPLE_MIN_MS, this.#until(this.#ends.locks) / runs - this.#overheadMs);
    const share = Math.min(1, runMs / this.#sampleMs / 2);
    for (let round = 0; round <= rounds; round++) {
      // The first one only warms up.
      if (round > 1 && this.#until(this.#ends.locks) <= 0) break;
      for (const one of this.#shuffled(several)) {
        const least = one.program === undefined ? Math.min(this.#firstOps, one.scale) : 1;
        const scale = Math.max(least, Math.round(one.scale * share));
        for (const i of this.#shuffled([...one.rows.keys()])) {
          this.#progress.step(`locks of ${one.rows[i]!.label}`, this.#spent());
          stages[i]!.takeLockStat();
          const sample = await this.#run(stages[i]!, one.rows[i]!, scale);
          const locks = stages[i]!.takeLockStat();
          if (sample !== undefined && round > 0) one.rows[i]!.keepLocks(sample, locks);
        }
      }
    }
  }

  #run(stage: Stage, row: Row, scale: number) {
    return row.run(stage, scale, 'plain', this.#plan.seed);
  }

  #shuffled<T>(items: readonly T[]): T[] {
    const order = [...items];
    for (let i = order.length - 1; i > 0; i--) {
      const j = Math.floor(this.#random() * (i + 1));
      [order[i], order[j]] = [order[j]!, order[i]!];
    }
    return order;
  }
}

/** Fewer CPUs than threads, where they are to share them; otherwise a stage has one for each. */
function cpusFor({ threadsPerCpu = 1 }: Variant, threads: number): object {
  return threadsPerCpu === 1 ? {} : { cpus: Math.ceil(threads / threadsPerCpu) };
}
