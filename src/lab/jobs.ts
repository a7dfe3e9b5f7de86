/** What a thread of a pool can be asked to do: a workload, a replay, or a probe of the machine. */
import { fetchAdd } from '../sync/index.js';
import {
  Cookies,
  type HeapKind,
  SampledBlocks,
  SampledObjects,
  VerifiedBlocks,
  VerifiedObjects,
} from './heaps.js';
import { HISTOGRAM_WORDS, Histogram } from './histogram.js';
import type { Member } from './member.js';
import {
  type FinishCounts,
  finishReplay,
  type ReplayCounts,
  replayCpu,
  type TraceProgram,
} from './trace/index.js';
import { type WorkloadContext, workloadNamed } from './workloads/index.js';

export interface WorkloadJob {
  readonly kind: 'workload';
  readonly workload: string;
  /** The caches to use, for workloads with objects of one size. */
  readonly caches: readonly string[];
  readonly heap: HeapKind;
  readonly ops: number;
  readonly seed: number;
  /** Zeroed words for the threads of this run. */
  readonly shared: Int32Array;
  /** One histogram a thread, for `sampled`. */
  readonly histograms?: Int32Array | undefined;
}

export interface WorkloadResult {
  /** On a clock that all threads share. */
  readonly startMs: number;
  readonly endMs: number;
  readonly allocs: number;
  readonly frees: number;
  readonly cookieErrors: number;
}

export interface ReplayJob {
  readonly kind: 'replay';
  readonly program: TraceProgram;
  /** All zeros. */
  readonly slots: Int32Array;
  /** How often the whole trace is run. */
  readonly passes: number;
  /** Milliseconds to wait for an object of another CPU. */
  readonly waitLimitMs?: number | undefined;
  readonly histograms?: Int32Array | undefined;
}

export interface ReplayResult {
  /** One entry a pass. */
  readonly counts: ReplayCounts[];
  /** One entry a pass, from CPU 0 only. */
  readonly finishes: FinishCounts[];
}

export interface ProbeJob {
  readonly kind: 'probe';
  readonly shared: Int32Array;
  /** Words between the counters of two threads: 0 puts all on one cache line. */
  readonly stride: number;
  readonly adds: number;
}

export interface ProbeResult {
  readonly startMs: number;
  readonly endMs: number;
}

export type LabJob = WorkloadJob | ReplayJob | ProbeJob;
export type LabResult = WorkloadResult | ReplayResult | ProbeResult;

/** Milliseconds on the clock of the process: performance.now() starts anew in each thread. */
function sharedClock(): number {
  const [seconds, nanoseconds] = process.hrtime();
  return seconds * 1e3 + nanoseconds / 1e6;
}

/** From the first start to the last end. */
export function wallMs(results: ReadonlyArray<{ startMs: number; endMs: number }>): number {
  return Math.max(...results.map((r) => r.endMs)) - Math.min(...results.map((r) => r.startMs));
}

/** This thread's histogram within the words of all; one of its own that nobody reads when there are none. */
function histogramOf(words: Int32Array | undefined, rank: number): Histogram {
  if (words === undefined) return new Histogram(new Int32Array(HISTOGRAM_WORDS));
  return new Histogram(words.subarray(rank * HISTOGRAM_WORDS, (rank + 1) * HISTOGRAM_WORDS));
}

function contextFor(job: WorkloadJob, member: Member, cookies: Cookies): WorkloadContext {
  const { arena, rank, threads } = member;
  const caches = job.caches.map((name) => arena.openCache(name));
  const base = {
    arena,
    i32: arena.i32,
    rcu: arena.rcu,
    view: arena,
    rank,
    threads,
    seed: job.seed,
    shared: job.shared,
    barrier: () => member.barrier(),
    awaitChange: (words: Int32Array, index: number, seen: number) => member.awaitChange(words, index, seen),
  };
  // A workload without objects of its own never looks at `objects`.
  const objects = caches[0] as (typeof caches)[0];
  if (job.heap === 'verify') {
    const verified = caches.map((cache) => new VerifiedObjects(cache, cookies));
    const named = { openCache: (name: string) => verified[job.caches.indexOf(name)]! };
    return {
      ...base,
      objects: verified[0]!,
      kin: verified,
      named,
      blocks: new VerifiedBlocks(arena, cookies),
    };
  }
  if (job.heap === 'sampled') {
    const histogram = histogramOf(job.histograms, rank);
    const sampled = caches.map((cache) => new SampledObjects(cache, histogram));
    const named = { openCache: (name: string) => sampled[job.caches.indexOf(name)]! };
    return {
      ...base,
      objects: sampled[0]!,
      kin: sampled,
      named,
      blocks: new SampledBlocks(arena, histogram),
    };
  }
  return { ...base, objects, kin: caches, named: arena, blocks: arena };
}

function runWorkload(job: WorkloadJob, member: Member): WorkloadResult {
  const cookies = new Cookies(member.arena.i32);
  const context = contextFor(job, member, cookies);
  const run = workloadNamed(job.workload).prepare(context, job.ops);
  run.fill?.();
  member.barrier();
  const startMs = sharedClock();
  run.run();
  const endMs = sharedClock();
  // What others still use is not to be drained.
  member.barrier();
  run.drain?.();
  return { startMs, endMs, allocs: run.allocs, frees: run.frees, cookieErrors: cookies.errors };
}

function runReplay(job: ReplayJob, member: Member): ReplayResult {
  const { program, slots, waitLimitMs } = job;
  const { arena, rank } = member;
  const histogram = histogramOf(job.histograms, rank);
  const record = (ns: number): void => histogram.record(ns);
  const latency = job.histograms === undefined ? undefined : { recordAlloc: record, recordFree: record };
  const counts: ReplayCounts[] = [];
  const finishes: FinishCounts[] = [];
  for (let pass = 0; pass < job.passes; pass++) {
    member.barrier();
    counts.push(replayCpu(program, arena, rank, slots, { latency, waitLimitMs }));
    member.barrier();
    // The slot table is all zeros after this, as the next pass needs it.
    if (rank === 0) finishes.push(finishReplay(program, arena, slots));
  }
  return { counts, finishes };
}

function addMany(words: Int32Array, index: number, n: number): void {
  for (let i = 0; i < n; i++) fetchAdd(words, index, 1);
}

function runProbe(job: ProbeJob, member: Member): ProbeResult {
  member.barrier();
  const startMs = sharedClock();
  addMany(job.shared, member.rank * job.stride, job.adds);
  return { startMs, endMs: sharedClock() };
}

/** Runs any of the lab's jobs; the role of workers/lab.ts. */
export function runJob(job: LabJob, member: Member): LabResult {
  switch (job.kind) {
    case 'workload':
      return runWorkload(job, member);
    case 'replay':
      return runReplay(job, member);
    case 'probe':
      return runProbe(job, member);
  }
}
