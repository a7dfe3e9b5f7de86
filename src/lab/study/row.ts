/** A row of a study: one workload on some threads under one lock policy, and what has been measured of it. */
import { availableParallelism } from 'node:os';
import type { LockPolicy } from '../../struct/index.js';
import type { LockStatRow } from '../../sync/index.js';
import type { HeapKind } from '../heaps.js';
import type { Histogram } from '../histogram.js';
import { addPaths, noPaths } from '../paths.js';
import { type Sample, takeSample } from '../sample.js';
import type { Stage } from '../stage.js';
import { bootstrapMedian, median } from '../stats.js';
import type { TraceProgram } from '../trace/index.js';

/** With fewer samples the 99.9th percentile is little else than the maximum. */
export const SAMPLES_FOR_P999 = 2000;

/** Quantiles of sampled calls, and the histogram they are from. */
export interface LatencyFigures {
  samples: number;
  p50: number;
  p99: number;
  p999: number;
  max: number;
  buckets: Array<[endNs: number, count: number]>;
}

/** What a study says about a row; goes into the JSON as it is. */
export interface RowResult {
  workload: string;
  threads: number;
  policy: LockPolicy;
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
  opsPerSecond: number;
  fastPathShare: number;
  /** Objects taken from slabs per allocation. */
  slabShare: number;
  /** Most pages in use above those of the empty arena, in the run with cookies; null when there was no time for it. */
  highWaterPages: number | null;
  latency: LatencyFigures | null;
  /** Of a run of its own with statistics on; null for rows of one thread. */
  locks: LockStatRow[] | null;
  /** How long that run took. */
  lockRunMs: number;
}

export class Row {
  readonly workload: string;
  readonly threads: number;
  readonly policy: LockPolicy;
  readonly oversubscribed: boolean;
  /** For rows that replay a trace, compiled for as many CPUs as there are threads. */
  readonly program: TraceProgram | undefined;
  /** Operations of one thread in a run; for a replay, passes over the trace. */
  scale = 1;
  readonly problems: string[] = [];
  readonly #samples: Sample[] = [];
  readonly #paths = noPaths();
  highWaterPages: number | null = null;
  histogram: Histogram | undefined;
  locks: LockStatRow[] | null = null;
  lockRunMs = 0;

  constructor(workload: string, threads: number, policy: LockPolicy, program?: TraceProgram) {
    this.workload = workload;
    this.threads = threads;
    this.policy = policy;
    this.program = program;
    this.oversubscribed = threads > availableParallelism();
  }

  get label(): string {
    return `${this.workload}, ${this.threads} ${this.threads === 1 ? 'thread' : 'threads'}, ${this.policy}`;
  }

  /** Runs the row once; the row remembers if it was unsound. */
  async run(stage: Stage, scale: number, heap: HeapKind, seed: number): Promise<Sample> {
    try {
      const sample = await takeSample(stage, this, scale, heap, seed);
      this.problems.push(...sample.problems);
      return sample;
    } catch (error) {
      this.problems.push(error instanceof Error ? error.message : String(error));
      throw error;
    }
  }

  /** Keeps a timed run. */
  keep(sample: Sample): void {
    this.#samples.push(sample);
    addPaths(this.#paths, sample.paths);
  }

  result(seed: number): RowResult {
    const nsPerOp = this.#samples.map((sample) => sample.nsPerOp);
    const measured = nsPerOp.length > 0;
    const { estimate, low, high } = measured
      ? bootstrapMedian(nsPerOp, { seed })
      : { estimate: 0, low: 0, high: 0 };
    const { fast, slow, allocs, fromSlabs } = this.#paths;
    return {
      workload: this.workload,
      threads: this.threads,
      policy: this.policy,
      oversubscribed: this.oversubscribed,
      problems: [...new Set(this.problems), ...(measured ? [] : ['never measured'])],
      opsPerThread: this.program === undefined ? this.scale : pairsPerPass(this.program) * this.scale,
      nsPerOp,
      median: estimate,
      low,
      high,
      opsPerSecond: measured ? median(this.#samples.map((sample) => sample.opsPerSecond)) : 0,
      fastPathShare: fast + slow === 0 ? 1 : fast / (fast + slow),
      slabShare: allocs === 0 ? 0 : fromSlabs / allocs,
      highWaterPages: this.highWaterPages,
      latency: latencyOf(this.histogram),
      locks: this.locks,
      lockRunMs: this.lockRunMs,
    };
  }
}

const pairsPerPass = ({ summary, cpus }: TraceProgram): number => summary.allocs / cpus;

function latencyOf(histogram: Histogram | undefined): LatencyFigures | null {
  if (histogram === undefined || histogram.count === 0) return null;
  return {
    samples: histogram.count,
    p50: histogram.percentile(50),
    p99: histogram.percentile(99),
    p999: histogram.percentile(99.9),
    max: histogram.max,
    buckets: histogram.buckets(),
  };
}
