/**
 * An arena with its pool of threads, and the runs on it. Every run is followed by a validate of the whole arena and
 * a count of what was not given back: a figure from an unsound run is no figure.
 */
import { Arena } from '../arena.js';
import { definitionOf } from '../cache/index.js';
import type { Finding } from '../debug/index.js';
import { Zone, zoneOf } from '../page/index.js';
import { type ArenaOptions, ArenaTooSmallError, NODES_MAX } from '../plan.js';
import { SLAB_NO_MERGE } from '../slab/index.js';
import { type LockPolicy, requireInteger } from '../struct/index.js';
import { LOCK_SITES_WORDS, LOCK_STAT_WORDS, type LockStatRow } from '../sync/index.js';
import type { HeapKind } from './heaps.js';
import { HISTOGRAM_WORDS, Histogram } from './histogram.js';
import { type ReplayJob, type ReplayResult, type WorkloadJob, type WorkloadResult, wallMs } from './jobs.js';
import { type CacheHits, PathCounter, type PathCounts } from './paths.js';
import { CpuPool } from './pool.js';
import {
  createReplayCaches,
  createSlotTable,
  type ReplaySummary,
  summarizeReplay,
  type TraceProgram,
} from './trace/index.js';
import { workloadNamed } from './workloads/index.js';

export interface StageOptions extends Omit<ArenaOptions, 'threads' | 'buffer'> {
  /** Threads of the pool; the calling thread is one more. */
  threads: number;
  /** CPU slots, by default one for each thread; fewer under the 'op' policy, and the threads share them. */
  cpus?: number;
  /** How long a thread waits for another before the run fails. */
  waitLimitMs?: number;
}

/** What every run tells besides its time. */
interface RunFigures {
  readonly threads: number;
  /** Empty when the run was sound. */
  readonly problems: string[];
  readonly paths: PathCounts;
  /** Of the arena's caches that were used, by name, but kmalloc's. */
  readonly hits: ReadonlyMap<string, CacheHits>;
  readonly histogram: Histogram | undefined;
}

interface WorkloadFigures extends RunFigures {
  /** From the first thread's start to the last one's end. */
  readonly wallMs: number;
  /** Operations of the run, all threads together. */
  readonly totalOps: number;
  /** Time by the operations of one thread. */
  readonly nsPerOp: number;
}

export interface ReplayFigures extends RunFigures {
  /** One a pass. */
  readonly passes: ReplaySummary[];
}

interface RunOptions {
  threads: number;
  heap?: HeapKind;
  seed?: number;
}

/** More than any machine this was made for. */
const POOL_THREADS_MAX = 64;

const cacheFor = (workload: string): string => `lab-${workload}`;
/** Whether a workload's caches may merge. */
const kinOf = (workload: string): boolean => workloadNamed(workload).kin !== undefined;

/** Whoever asked for so many threads has not asked for the one more, and is not told of it as if he had. */
function createWithOneMore(options: ArenaOptions & { threads: number }): Arena {
  try {
    return Arena.create(options);
  } catch (error) {
    if (!(error instanceof ArenaTooSmallError)) throw error;
    const threads = options.threads - 1;
    throw new ArenaTooSmallError(
      options.bytes,
      error.least,
      `with ${threads} ${threads === 1 ? 'thread' : 'threads'} and the main thread`,
    );
  }
}

/**
 * Checks what a command was asked for before the arena has a thread and a CPU more for the lab itself. Throws RangeError
 * or TypeError that names the option.
 */
export function checkShape(cpus: number, threads: number, nodes: number, lockPolicy: LockPolicy): void {
  requireInteger('cpus', cpus, 1, POOL_THREADS_MAX);
  requireInteger('threads', threads, cpus, POOL_THREADS_MAX);
  requireInteger('nodes', nodes, 1, NODES_MAX);
  if (nodes > cpus) {
    throw new RangeError(`nodes is ${nodes}, more than cpus, ${cpus}; each node has at least one CPU`);
  }
  if (threads > cpus && lockPolicy !== 'op') {
    throw new RangeError(
      `threads is ${threads}, more than cpus, ${cpus}, and the policy is '${lockPolicy}', which keeps the lock of a CPU's ` +
        "sheaves for a whole turn; threads can share a CPU only with policy 'op'",
    );
  }
}

export class Stage {
  readonly arena: Arena;
  readonly pool: CpuPool;
  readonly waitLimitMs: number | undefined;
  /** All that validate found in any of the runs. */
  readonly findings: Finding[] = [];
  /** Objects that its caches still had when they were destroyed. */
  leaked = 0;
  readonly #paths = new PathCounter();
  readonly #shared = new Map<string, Int32Array>();
  readonly #slots = new Map<TraceProgram, Int32Array>();
  readonly #made: string[] = [];

  constructor(options: StageOptions) {
    const { threads, cpus = threads + 1, waitLimitMs, ...arenaOptions } = options;
    this.arena = createWithOneMore({ ...arenaOptions, cpus, threads: threads + 1 });
    this.arena.online({ thread: threads });
    this.waitLimitMs = waitLimitMs;
    this.pool = new CpuPool(this.arena, waitLimitMs === undefined ? { threads } : { threads, waitLimitMs });
  }

  /** Makes the caches that a trace needs, unless its program for other CPUs had them made. */
  addTrace(program: TraceProgram): void {
    const caches = program.caches.filter(({ name }) => !this.#made.includes(name));
    const defined = caches.map(({ name }) => definitionOf(name)).filter((each) => each !== undefined);
    for (const each of defined) this.arena.createCache(each);
    const plain = caches.filter(({ name }) => definitionOf(name) === undefined);
    createReplayCaches(this.arena, { ...program, caches: plain });
    this.#made.push(...caches.map(({ name }) => name));
  }

  /** Runs one workload once. `ops` are those of one thread, rounded down to the workload's granule. */
  async runWorkload(name: string, ops: number, options: RunOptions): Promise<WorkloadFigures> {
    const { threads, heap = 'plain', seed = 1 } = options;
    const workload = workloadNamed(name);
    const wanted = Math.min(ops, workload.opsMax ?? ops);
    const whole = Math.max(1, Math.floor(wanted / workload.granule)) * workload.granule;
    const histograms = heap === 'sampled' ? histogramWords(threads) : undefined;
    const job: WorkloadJob = {
      kind: 'workload',
      workload: name,
      caches: this.#cachesOf(name),
      heap,
      ops: whole,
      seed,
      shared: this.#sharedWords(name, threads),
      histograms,
    };
    const results = await this.pool.run<WorkloadJob, WorkloadResult>(job, threads);
    const sum = (of: (result: WorkloadResult) => number): number => results.reduce((n, r) => n + of(r), 0);
    const lost = sum((r) => r.allocs) - sum((r) => r.frees);
    const wall = wallMs(results);
    return {
      threads,
      wallMs: wall,
      totalOps: (whole * threads) / workload.threadsPerOp,
      nsPerOp: (wall * 1e6) / whole,
      problems: this.#problems(
        lost,
        sum((r) => r.cookieErrors),
      ),
      paths: this.#paths.take(this.arena),
      hits: this.#paths.hits,
      histogram: mergeHistograms(histograms, threads),
    };
  }

  /** Replays a trace `passes` times, on as many CPUs as it was compiled for. */
  async runReplay(
    program: TraceProgram,
    passes: number,
    options: { sampled?: boolean } = {},
  ): Promise<ReplayFigures> {
    const threads = program.cpus;
    const histograms = options.sampled ? histogramWords(threads) : undefined;
    const slots = this.#slots.get(program) ?? createSlotTable(program);
    this.#slots.set(program, slots);
    const job: ReplayJob = {
      kind: 'replay',
      program,
      slots,
      passes,
      histograms,
      waitLimitMs: this.waitLimitMs,
    };
    const results = await this.pool.run<ReplayJob, ReplayResult>(job, threads);
    const summaries = Array.from({ length: passes }, (_, pass) =>
      summarizeReplay(
        program,
        results.map((r) => r.counts[pass]!),
        results[0]!.finishes[pass]!,
      ),
    );
    const sum = (of: (summary: ReplaySummary) => number): number => summaries.reduce((n, s) => n + of(s), 0);
    const problems = this.#problems(
      sum((s) => s.lost),
      sum((s) => s.cookieErrors),
    );
    if (sum((s) => s.failures) > 0)
      problems.push('allocations failed: the arena is too small for this trace');
    return {
      threads,
      passes: summaries,
      problems,
      paths: this.#paths.take(this.arena),
      hits: this.#paths.hits,
      histogram: mergeHistograms(histograms, threads),
    };
  }

  /** Gives surplus percpu chunks back: the one that stays is there before a run as after it. */
  settlePercpu(): void {
    const { arena } = this;
    arena.freePercpu(arena.allocPercpu(4));
    arena.percpu.drainAreas();
    // What the first populates for atomic allocations that failed, the second may find too much.
    for (let round = 0; round < 2; round++) arena.percpu.balance();
  }

  /** Gives back what caches keep for later, and starts the high-water mark anew. Returns the pages in use. */
  shrink(): number {
    const { arena } = this;
    let pages = Number.POSITIVE_INFINITY;
    // A cache's sheaves are objects of other caches, which may have been shrunk before: again, as long as it helps.
    for (;;) {
      for (const name of arena.cacheNames()) arena.openCache(name).shrink();
      const { usedPages } = arena.meminfo();
      if (usedPages >= pages) break;
      pages = usedPages;
    }
    for (let node = 0; node < arena.geometry.nodes; node++) {
      const zone = zoneOf(arena.geometry, node);
      // All other CPUs are quiet, so the two words do not change meanwhile.
      arena.i32[zone + Zone.nrFreeMin] = arena.i32[zone + Zone.nrFree]!;
    }
    return pages;
  }

  /**
   * Objects that the arena's own caches have handed out, by cache, after a shrink. They are what caches are made of and
   * one sheaf per CPU and cache: their number is the same whenever the same caches exist, but not their places, since
   * sheaves are exchanged, so that pages can be held by few of them.
   */
  heldObjects(): Record<string, number> {
    const held: Record<string, number> = {};
    for (const { name, objects } of this.arena.cacheInfo())
      if (!this.#made.includes(name)) held[name] = objects;
    return held;
  }

  /** The lock statistics since the last call; only while the pool is idle. */
  takeLockStat(): LockStatRow[] {
    const { arena } = this;
    const rows = arena.lockStat();
    const from = arena.geometry.lockStats;
    if (rows.length > 0) arena.i32.fill(0, from, from + arena.geometry.threads * LOCK_STAT_WORDS);
    if (arena.geometry.lockSites !== 0) {
      const sites = arena.geometry.lockSites;
      arena.i32.fill(0, sites, sites + arena.geometry.threads * LOCK_SITES_WORDS);
    }
    return rows;
  }

  /** Destroys the caches that this stage made. Returns what was wrong. */
  destroyCaches(): string[] {
    const problems: string[] = [];
    for (const name of this.#made.splice(0)) {
      const { leaked } = this.arena.openCache(name).destroy();
      this.leaked += leaked;
      if (leaked > 0) problems.push(`${leaked} objects of ${name} were never freed`);
    }
    return problems;
  }

  /** Destroys what is left, ends the threads, and says what was wrong in the end. */
  async close(): Promise<string[]> {
    await this.pool.close();
    const problems = [...this.destroyCaches(), ...this.#problems(0, 0)];
    this.arena.offline();
    return problems;
  }

  /** The caches of a workload, made when it is run first. */
  #cachesOf(name: string): string[] {
    const { objectSize, defined, kin = 1, cacheName = defined?.name ?? cacheFor(name) } = workloadNamed(name);
    if (objectSize === undefined) return [];
    const names = Array.from({ length: kin }, (_, i) => (i === 0 ? cacheName : `${cacheName}.${i}`));
    const known = new Set([...this.#made, ...this.arena.cacheNames()]);
    for (const cache of names.filter((each) => !known.has(each))) {
      if (defined !== undefined) this.arena.createCache(defined);
      else this.arena.createCache(cache, { size: objectSize, flags: kinOf(name) ? 0 : SLAB_NO_MERGE });
      this.#made.push(cache);
    }
    return names;
  }

  #sharedWords(name: string, threads: number): Int32Array {
    const key = `${name}/${threads}`;
    const words = workloadNamed(name).sharedWords?.(threads) ?? 0;
    let shared = this.#shared.get(key);
    if (shared === undefined) {
      shared = new Int32Array(new SharedArrayBuffer(words * Int32Array.BYTES_PER_ELEMENT));
      this.#shared.set(key, shared);
    }
    return shared.fill(0);
  }

  #problems(lost: number, cookieErrors: number): string[] {
    const problems: string[] = [];
    const findings = this.arena.validate();
    if (findings.length > 0) {
      this.findings.push(...findings);
      const { invariant, where, what } = findings[0]!;
      problems.push(`${findings.length} findings of validate, the first: ${invariant}, ${where}: ${what}`);
    }
    if (lost !== 0) problems.push(`${lost} objects lost`);
    if (cookieErrors > 0) problems.push(`${cookieErrors} objects overwritten or handed out twice`);
    return problems;
  }
}

function histogramWords(threads: number): Int32Array {
  return new Int32Array(new SharedArrayBuffer(threads * HISTOGRAM_WORDS * Int32Array.BYTES_PER_ELEMENT));
}

function mergeHistograms(words: Int32Array | undefined, threads: number): Histogram | undefined {
  if (words === undefined) return undefined;
  const merged = new Histogram();
  for (let rank = 0; rank < threads; rank++) {
    merged.merge(new Histogram(words.subarray(rank * HISTOGRAM_WORDS, (rank + 1) * HISTOGRAM_WORDS)));
  }
  return merged;
}
