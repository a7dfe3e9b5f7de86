/** A row of an experiment: one variant in one case, and what has been measured of it. */
import { availableParallelism } from 'node:os';
import type { LockStatRow } from '../../sync/index.js';
import type { HeapKind } from '../heaps.js';
import { addPaths, type CacheHits, noPaths } from '../paths.js';
import { type Sample, takeSample } from '../sample.js';
import type { Stage } from '../stage.js';
import { bootstrapMedian, type Interval } from '../stats.js';
import type { TraceProgram } from '../trace/index.js';
import type { Variant } from './experiment.js';
import type { Outcome } from './judge.js';

/** Shares of all calls; they add up to 1. */
interface PathShares {
  /** Served by this CPU's own sheaves (array, slab). */
  fast: number;
  /** Took a sheaf from the barn or put one there. */
  barn: number;
  /** Had to go to the slabs. */
  slab: number;
}

/** Of runs of their own, with statistics on. */
interface LockFigures {
  /** How many; an interval of fewer than six is too narrow. */
  runs: number;
  /** Time that threads waited for locks other than slab_mutex, by operation. */
  waitNsPerOp: Interval;
  /** Tries for the lock of a CPU's sheaves that found it taken, by all tries. */
  tryFailedShare: number;
  /** The lock class that was waited for longest; null when none was. */
  mostWaitedFor: string | null;
  /** Operations of these runs, and each class's statistics over all of them. */
  ops: number;
  classes: LockStatRow[];
}

/** What an experiment says about a row; goes into the JSON as it is. */
export interface ExperimentRow {
  workload: string;
  threads: number;
  variant: string;
  /** More threads than processors. */
  oversubscribed: boolean;
  /** Why the figures of this row mean nothing; empty when they do. */
  problems: string[];
  opsPerThread: number;
  /** One a round. */
  nsPerOp: number[];
  median: number;
  low: number;
  high: number;
  /** To the baseline, round by round; null for the baseline itself and where something is void. */
  ratio: Interval | null;
  outcome: Outcome | 'baseline' | 'control';
  paths: PathShares;
  /** Objects that went between slabs and what stands in front of them, in either direction, by calls. */
  movedShare: number;
  /** Of all calls, those that went to a slab because another thread had the lock of this CPU's sheaves. */
  bypassShare: number;
  /** Most pages in use above those of the empty arena, in the run with cookies; null when there was no time for it. */
  highWaterPages: number | null;
  /** Of the caches of the arena that were used, by name: the share of their calls that the CPU's sheaves served. */
  hits: Readonly<Record<string, number>>;
  locks: LockFigures | null;
  /** Time saved against the baseline as published, where it was. */
  published: readonly number[] | null;
}

const PCS_LOCK = 'cpu_sheaves->lock';
/** Taken to come online, to open a cache and to leave: before and after the loop, and by nobody within. */
const SETUP_LOCK = 'slab_mutex';

/** All variants of a case do the same number of operations. */
export interface Case {
  readonly workload: string;
  readonly threads: number;
  readonly program: TraceProgram | undefined;
  readonly rows: readonly Row[];
  /** Operations of one thread in a run; for a replay, passes over the trace. */
  scale: number;
}

export class Row {
  readonly name: string;
  /** What it runs; the case may have another name. */
  readonly workload: string;
  readonly threads: number;
  readonly program: TraceProgram | undefined;
  readonly variant: Variant;
  readonly problems: string[] = [];
  readonly nsPerOp: number[] = [];
  highWaterPages: number | null = null;
  readonly #paths = noPaths();
  readonly #hits = new Map<string, CacheHits>();
  readonly #waits: number[] = [];
  readonly #waitsByClass = new Map<string, number>();
  readonly #classes = new Map<string, LockStatRow>();
  #lockOps = 0;
  #tries = 0;
  #triesFailed = 0;

  constructor(name: string, threads: number, variant: Variant, program: TraceProgram | undefined) {
    this.name = name;
    this.workload = variant.workload?.(name) ?? name;
    this.threads = threads;
    this.variant = variant;
    this.program = program === undefined ? undefined : (variant.program?.(program) ?? program);
  }

  get label(): string {
    return `${this.name}, ${this.threads} ${this.threads === 1 ? 'thread' : 'threads'}, ${this.variant.name}`;
  }

  /** Runs the row once, unless it is void already; the row remembers if it was unsound. */
  async run(stage: Stage, scale: number, heap: HeapKind, seed: number): Promise<Sample | undefined> {
    if (this.problems.length > 0) return undefined;
    try {
      const sample = await takeSample(stage, this, scale, heap, seed);
      this.problems.push(...sample.problems);
      return sample;
    } catch (error) {
      this.problems.push(error instanceof Error ? error.message : String(error));
      return undefined;
    }
  }

  /** Keeps a timed run. */
  keep(sample: Sample): void {
    this.nsPerOp.push(sample.nsPerOp);
    addPaths(this.#paths, sample.paths);
    for (const [name, { fast, calls }] of sample.hits ?? []) {
      const sum = this.#hits.get(name) ?? { fast: 0, calls: 0 };
      this.#hits.set(name, { fast: sum.fast + fast, calls: sum.calls + calls });
    }
  }

  /** Keeps the lock statistics of a run. */
  keepLocks(sample: Sample, locks: readonly LockStatRow[]): void {
    const ops = (sample.opsPerSecond * sample.wallMs) / 1e3;
    let total = 0;
    this.#lockOps += ops;
    for (const row of locks) {
      const { name, waitTotalNs, acquisitions, tryFailed } = row;
      this.#classes.set(name, addLocks(this.#classes.get(name), row));
      if (name === SETUP_LOCK) continue;
      total += waitTotalNs;
      this.#waitsByClass.set(name, (this.#waitsByClass.get(name) ?? 0) + waitTotalNs);
      if (name !== PCS_LOCK) continue;
      this.#tries += acquisitions + tryFailed;
      this.#triesFailed += tryFailed;
    }
    this.#waits.push(total / ops);
  }

  result(
    opsPerThread: number,
    ratio: Interval | null,
    outcome: ExperimentRow['outcome'],
    published: readonly number[] | null,
    seed: number,
  ): ExperimentRow {
    const { fast, slow, moved, bypassed } = this.#paths;
    const calls = Math.max(1, fast + slow);
    const measured = this.nsPerOp.length > 0;
    const { estimate, low, high } = measured
      ? bootstrapMedian(this.nsPerOp, { seed })
      : { estimate: 0, low: 0, high: 0 };
    return {
      workload: this.name,
      threads: this.threads,
      variant: this.variant.name,
      oversubscribed: this.threads > availableParallelism(),
      problems: [...new Set(this.problems)],
      opsPerThread,
      nsPerOp: this.nsPerOp,
      median: estimate,
      low,
      high,
      ratio,
      outcome,
      paths: this.#shares(),
      movedShare: moved / calls,
      bypassShare: bypassed / calls,
      highWaterPages: this.highWaterPages,
      hits: Object.fromEntries([...this.#hits].map(([name, { fast, calls }]) => [name, fast / calls])),
      locks: this.#lockFigures(seed),
      published,
    };
  }

  #shares(): PathShares {
    const { fast, slow, barn, barnFailed } = this.#paths;
    const calls = Math.max(1, fast + slow);
    const slab = Math.min(1, (slow + barnFailed) / calls);
    const moved = Math.min(1 - slab, barn / calls);
    return { fast: 1 - slab - moved, barn: moved, slab };
  }

  #lockFigures(seed: number): LockFigures | null {
    if (this.#waits.length === 0) return null;
    const [most] = [...this.#waitsByClass].filter(([, ns]) => ns > 0).sort((a, b) => b[1] - a[1]);
    return {
      runs: this.#waits.length,
      waitNsPerOp: bootstrapMedian(this.#waits, { seed }),
      tryFailedShare: this.#tries === 0 ? 0 : this.#triesFailed / this.#tries,
      mostWaitedFor: most === undefined ? null : most[0],
      ops: this.#lockOps,
      classes: [...this.#classes.values()].filter(({ acquisitions }) => acquisitions > 0),
    };
  }
}

/** The statistics of two times together. */
function addLocks(sum: LockStatRow | undefined, row: LockStatRow): LockStatRow {
  if (sum === undefined) return row;
  const waits = [sum, row].filter(({ contentions }) => contentions > 0).map(({ waitMinNs }) => waitMinNs);
  return {
    ...sum,
    acquisitions: sum.acquisitions + row.acquisitions,
    contentions: sum.contentions + row.contentions,
    bounces: sum.bounces + row.bounces,
    tryFailed: sum.tryFailed + row.tryFailed,
    waitTotalNs: sum.waitTotalNs + row.waitTotalNs,
    waitMinNs: waits.length === 0 ? 0 : Math.min(...waits),
    waitMaxNs: Math.max(sum.waitMaxNs, row.waitMaxNs),
  };
}
