/** Replaying one trace on an arena of its own, and everything that is to be told about it. */
import type { Finding } from '../debug/index.js';
import type { CheckLevel, Layer, LockPolicy } from '../struct/index.js';
import type { LockStatRow, LockStatTier } from '../sync/index.js';
import { noProgress, type Progress } from './progress.js';
import { arenaBytesFor } from './replayBytes.js';
import { checkShape, type ReplayFigures, Stage } from './stage.js';
import { bootstrapMedian, median } from './stats.js';
import {
  compileTrace,
  opCount,
  type ReplaySummary,
  replayedEvents,
  type TraceProgram,
} from './trace/index.js';

export interface ReplayOptions {
  cpus?: number;
  rounds?: number;
  nodes?: number;
  policy?: LockPolicy;
  check?: CheckLevel;
  /** What stands in front of the slabs. */
  layer?: Layer;
  /** Frees of the kernel's own contexts go through kfree_rcu. */
  kthreadRcu?: boolean;
  /** Seed of the bootstrap. */
  seed?: number;
  /** Size of the arena; from the trace unless given. */
  bytes?: number | undefined;
  progress?: Progress;
}

/** The options with all defaults filled in. */
type Settings = { [K in keyof Omit<ReplayOptions, 'progress'>]-?: NonNullable<ReplayOptions[K]> };

/** One cache's part in a replay. */
interface CacheFigures {
  name: string;
  objectSize: number;
  allocs: number;
  frees: number;
  /** Calls that the CPU's sheaves served, by all calls. */
  fastPathShare: number;
  /** Objects taken from slabs, by allocations. */
  slabShare: number;
}

export interface ReplayMemory {
  arenaBytes: number;
  totalPages: number;
  highWaterPages: number;
  /** In use before the trace's caches were made, and after they were destroyed. */
  pagesBefore: number;
  pagesAfter: number;
  /** Objects of the arena's own caches at these moments: the same, or memory was lost. */
  objectsBefore: Record<string, number>;
  objectsAfter: Record<string, number>;
}

/** A trace's summary is that of one pass over it; `lost`, cookie errors and failures are those of all passes. */
export interface ReplayReport extends ReplaySummary {
  file: string;
  cpus: number;
  nodes: number;
  policy: LockPolicy;
  check: CheckLevel;
  layer: Layer;
  kthreadRcu: boolean;
  seed: number;
  rounds: number;
  /** Passes over the trace in a round. */
  passesPerRound: number;
  /** Median of the rounds: events replayed by the time of the slowest CPU. */
  eventsPerSecond: number;
  eventsPerSecondLow: number;
  eventsPerSecondHigh: number;
  eventsPerSecondBest: number;
  perRound: number[];
  caches: CacheFigures[];
  memory: ReplayMemory;
  locks: LockStatRow[];
  /** What validate found after any of the rounds; empty when the arena was sound. */
  findings: Finding[];
  /** Everything that makes the replay unsound, in words. */
  problems: string[];
}

const ROUND_MS = 60;
const WARM_MS = 400;
const WARM_PASSES_MIN = 3;
const PASSES_MAX = 200;
const WAIT_MS = 10_000;
/** One CPU may have nearly all of a trace, and the others wait for it at the end of a pass. */
const WAIT_MS_PER_OP = 0.01;

interface Rounds {
  readonly perRound: number[];
  readonly passesPerRound: number;
  readonly passes: ReplaySummary[];
  readonly problems: string[];
}

/** Each round begins with a pass that fills the sheaves and is not timed. */
async function runRounds(
  stage: Stage,
  program: TraceProgram,
  rounds: number,
  progress: Progress,
): Promise<Rounds> {
  const passes: ReplaySummary[] = [];
  const problems: string[] = [];
  const run = async (n: number): Promise<ReplayFigures> => {
    const figures = await stage.runReplay(program, n);
    passes.push(...figures.passes);
    problems.push(...figures.problems);
    return figures;
  };
  progress.step('warming up', 0);
  const first = await run(1);
  const firstMs = Math.max(0.1, first.passes[0]!.elapsedMs);
  await run(Math.min(PASSES_MAX, Math.max(WARM_PASSES_MIN, Math.ceil(WARM_MS / firstMs))));
  const warmMs = median(passes.slice(-WARM_PASSES_MIN).map((pass) => pass.elapsedMs));
  const passesPerRound = Math.min(PASSES_MAX, Math.max(1, Math.round(ROUND_MS / Math.max(0.1, warmMs))));
  const perRound: number[] = [];
  for (let round = 0; round < rounds; round++) {
    progress.step(`round ${round + 1} of ${rounds}`, round / rounds);
    const timed = (await run(passesPerRound + 1)).passes.slice(1);
    const ms = timed.reduce((sum, pass) => sum + pass.elapsedMs, 0);
    perRound.push((timed.reduce((sum, pass) => sum + replayedEvents(pass), 0) * 1e3) / ms);
  }
  return { perRound, passesPerRound, passes, problems };
}

/** The caches of the arena by the allocations they served. */
function cacheFigures(stage: Stage): CacheFigures[] {
  const figures = stage.arena.cacheInfo().map(({ name, object_size, stats }) => {
    const allocs = stats.ALLOC_FASTPATH + stats.ALLOC_SLOWPATH;
    // An object that kfree_rcu put into a sheaf is counted nowhere else: it is in a full sheaf when its time has come.
    const freesFast = stats.FREE_FASTPATH + stats.FREE_RCU_SHEAF;
    const frees = freesFast + stats.FREE_SLOWPATH;
    return {
      name,
      objectSize: object_size,
      allocs,
      frees,
      fastPathShare: allocs + frees === 0 ? 1 : (stats.ALLOC_FASTPATH + freesFast) / (allocs + frees),
      slabShare: allocs === 0 ? 0 : (stats.ALLOC_SLOWPATH + stats.SHEAF_REFILL) / allocs,
    };
  });
  return figures.filter(({ allocs }) => allocs > 0).sort((a, b) => b.allocs - a.allocs);
}

class Replay {
  readonly #program: TraceProgram;
  readonly #options: Settings;
  readonly problems: string[] = [];
  readonly findings: Finding[] = [];
  leaked = 0;

  constructor(program: TraceProgram, options: Settings) {
    this.#program = program;
    this.#options = options;
  }

  open(lockStat: LockStatTier): Stage {
    const { cpus, nodes, policy, check, layer, bytes } = this.#options;
    const ops = this.#program.ops.reduce((sum, _, cpu) => sum + opCount(this.#program, cpu), 0);
    return new Stage({
      threads: cpus,
      nodes,
      lockPolicy: policy,
      check,
      layer,
      bytes,
      lockStat,
      maxCaches: Math.min(254, 32 + this.#program.caches.length),
      waitLimitMs: WAIT_MS + ops * WAIT_MS_PER_OP,
    });
  }

  /** Ends a stage; returns what is in use when all is given back. */
  async end(stage: Stage): Promise<{ pagesAfter: number; objectsAfter: Record<string, number> }> {
    this.problems.push(...stage.destroyCaches());
    stage.settlePercpu();
    const pagesAfter = stage.shrink();
    const objectsAfter = stage.heldObjects();
    this.problems.push(...(await stage.close()));
    this.findings.push(...stage.findings);
    this.leaked += stage.leaked;
    return { pagesAfter, objectsAfter };
  }

  /** Lock statistics of one warm round, on an arena that keeps them. */
  async locks(passes: number): Promise<LockStatRow[]> {
    const stage = this.open('contended');
    try {
      stage.addTrace(this.#program);
      this.problems.push(...(await stage.runReplay(this.#program, passes)).problems);
      stage.takeLockStat();
      this.problems.push(...(await stage.runReplay(this.#program, passes)).problems);
      return stage.takeLockStat();
    } finally {
      await this.end(stage);
    }
  }
}

/** Compiles and replays a trace. Rejects with a TraceError for a bad file, with a RangeError for bad options. */
export async function replayTrace(file: string, options: ReplayOptions = {}): Promise<ReplayReport> {
  const { cpus = 1, rounds = 5, nodes = 1, policy = 'turn', check = 'free', seed = 1 } = options;
  const { layer = 'sheaves', kthreadRcu = false } = options;
  checkShape(cpus, cpus, nodes, policy);
  const progress = options.progress ?? noProgress;
  progress.step('reading the trace', 0);
  const program = await compileTrace(file, { cpus, kthreadRcu });
  const bytes = options.bytes ?? arenaBytesFor([program]);
  const all: Settings = { cpus, rounds, nodes, policy, check, layer, kthreadRcu, seed, bytes };
  const replay = new Replay(program, all);
  const stage = replay.open('off');
  let measured: Rounds;
  let caches: CacheFigures[];
  let before: Omit<ReplayMemory, 'pagesAfter' | 'objectsAfter'>;
  try {
    stage.settlePercpu();
    const pagesBefore = stage.shrink();
    const objectsBefore = stage.heldObjects();
    stage.addTrace(program);
    measured = await runRounds(stage, program, rounds, progress);
    const { totalPages, highWaterPages } = stage.arena.meminfo();
    caches = cacheFigures(stage);
    before = { arenaBytes: bytes, totalPages, highWaterPages, pagesBefore, objectsBefore };
  } catch (error) {
    await stage.pool.close();
    throw error;
  }
  const memory = { ...before, ...(await replay.end(stage)) };
  const locks = await replay.locks(Math.min(20, measured.passesPerRound + 1));
  progress.clear();
  return report(file, all, replay, measured, caches, memory, locks);
}

function report(
  file: string,
  options: Settings,
  replay: Replay,
  { perRound, passesPerRound, passes, problems: found }: Rounds,
  caches: CacheFigures[],
  memory: ReplayMemory,
  locks: LockStatRow[],
): ReplayReport {
  const { cpus, nodes, policy, check, layer, kthreadRcu, seed, rounds } = options;
  const sum = (of: (pass: ReplaySummary) => number): number =>
    passes.reduce((total, pass) => total + of(pass), 0);
  const { estimate, low, high } = bootstrapMedian(perRound, { seed });
  const problems = [...found, ...replay.problems];
  for (const [name, objects] of Object.entries(memory.objectsAfter)) {
    const more = objects - (memory.objectsBefore[name] ?? 0);
    if (more !== 0) problems.push(`${more} objects of ${name} were not given back`);
  }
  return {
    ...passes.at(-1)!,
    lost: sum((pass) => pass.lost) + replay.leaked,
    failures: sum((pass) => pass.failures),
    cookieErrors: sum((pass) => pass.cookieErrors),
    file,
    cpus,
    nodes,
    policy,
    check,
    layer,
    kthreadRcu,
    seed,
    rounds,
    passesPerRound,
    eventsPerSecond: estimate,
    eventsPerSecondLow: low,
    eventsPerSecondHigh: high,
    eventsPerSecondBest: Math.max(...perRound),
    perRound,
    caches,
    memory,
    locks,
    findings: replay.findings,
    problems: [...new Set(problems)],
  };
}
