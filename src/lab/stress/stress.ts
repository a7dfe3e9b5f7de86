/**
 * The stress: more threads than cores, both lock policies, several caches, bulk, frees on other CPUs, threads that come
 * and go, caches that come and go, shrinking meanwhile. It ends with an empty validate and all memory back, or says what
 * was wrong. A seed repeats the choices, not the interleaving.
 */
import { once } from 'node:events';
import { fileURLToPath } from 'node:url';
import type { Worker } from 'node:worker_threads';
import { Piscina } from 'piscina';
import type { StressTask } from '../../../workers/stress.js';
import { Arena } from '../../index.js';
import { LAYERS } from '../../struct/index.js';
import { loadAcquire } from '../../sync/index.js';
import { WORKER_EXEC_ARGV } from '../execArgv.js';
import { rng } from '../stats.js';
import {
  addCounts,
  bequeathed,
  Control,
  type Counts,
  makeShared,
  noCounts,
  STRESS_CACHES,
  type StressConfig,
  type StressCounts,
  type StressShared,
  stop,
} from './shared.js';
import { drainTransfer, StressThread } from './stressWorker.js';

interface RoundResult {
  config: StressConfig;
  seconds: number;
  lives: number;
  vanished: number;
  cachesMade: number;
  shrinks: number;
  counts: Counts;
  problems: string[];
}

const MIB = 1 << 20;

/**
 * Configurations that a run goes through in turn: both policies, two nodes, exact checks, memory that runs out, and
 * threads that share the sheaves of a CPU.
 */
const SHAPES: readonly Omit<StressConfig, 'layer'>[] = [
  { lockPolicy: 'turn', nodes: 1, check: 'free', bytes: 128 * MIB, threadsPerCpu: 1 },
  { lockPolicy: 'op', nodes: 1, check: 'free', bytes: 128 * MIB, threadsPerCpu: 1 },
  { lockPolicy: 'turn', nodes: 2, check: 'full', bytes: 128 * MIB, threadsPerCpu: 1 },
  { lockPolicy: 'turn', nodes: 1, check: 'free', bytes: 8 * MIB, threadsPerCpu: 1 },
  { lockPolicy: 'op', nodes: 2, check: 'none', bytes: 8 * MIB, threadsPerCpu: 1 },
  { lockPolicy: 'op', nodes: 1, check: 'full', bytes: 64 * MIB, threadsPerCpu: 3 },
];

/** Links of freelists encoded and checked, freelists in random order. */
const HARDENED = { freelistRandom: true, freelistHardened: true } as const;

/** The shapes with one caching layer. */
export const stressConfigs = (layer: StressConfig['layer']): StressConfig[] =>
  SHAPES.map((shape) => ({ layer, ...shape }));

/**
 * What a change is tried on: the default layer in every shape, each other one where memory lasts and where it does not, and a
 * tiny arena, and hardened links in the layer that reads most of them.
 */
export const STRESS_CONFIGS: readonly StressConfig[] = [
  ...LAYERS.flatMap((layer) =>
    layer === 'sheaves' ? stressConfigs(layer) : stressConfigs(layer).filter((_, i) => i === 0 || i === 4),
  ),
  { layer: 'none', tiny: true, lockPolicy: 'op', nodes: 2, check: 'full', bytes: 8 * MIB, threadsPerCpu: 1 },
  { layer: 'cpu-slab', ...SHAPES[0]!, ...HARDENED },
];

/** One line that tells a configuration. */
export const stressName = ({
  layer,
  tiny,
  lockPolicy,
  nodes,
  check,
  bytes,
  threadsPerCpu,
  freelistHardened = false,
}: StressConfig): string =>
  `${tiny ? 'tiny' : layer} ${lockPolicy} nodes=${nodes} check=${check} ${bytes / MIB} MiB` +
  (threadsPerCpu > 1 ? `, ${threadsPerCpu} threads a CPU` : '') +
  (freelistHardened ? ', hardened' : '');

const WORKER = fileURLToPath(import.meta.resolve('#workers/stress.js'));

/** Objects in use by cache once everything is shrunk: no sheaf, barn or node may be left over from what is gone. */
function ownObjects(arena: Arena): string {
  // Freed sheaves are objects in other caches' sheaves: three passes until nothing moves.
  for (let pass = 0; pass < 3; pass++) {
    for (const name of arena.cacheNames()) arena.openCache(name).shrink();
  }
  return arena
    .cacheInfo()
    .map(({ name, objects }) => `${name}:${objects}`)
    .join(' ');
}

class Round {
  readonly result: RoundResult;
  private readonly arena: Arena;
  private readonly shared: StressShared;
  private readonly pool: Piscina;
  private readonly random: () => number;
  private readonly deadline: number;
  private readonly threads: number;
  /** What the arena's own caches hold while there are no others. */
  private readonly baseline: string;

  constructor(config: StressConfig, threads: number, seed: number, seconds: number) {
    const { threadsPerCpu, ...options } = config;
    const cpus = Math.ceil((threads + 1) / threadsPerCpu);
    const watched = { lockStat: 'contended', lockdep: true } as const;
    this.arena = Arena.create({ ...options, ...watched, cpus, threads: threads + 1 });
    this.arena.online({ thread: threads });
    this.baseline = ownObjects(this.arena);
    for (const { name, ...options } of STRESS_CACHES) this.arena.createCache(name, options);
    this.shared = makeShared(this.arena.handle, config.bytes);
    this.random = rng(seed);
    this.threads = threads;
    this.deadline = performance.now() + seconds * 1000;
    this.pool = new Piscina({
      filename: WORKER,
      minThreads: threads,
      maxThreads: threads,
      concurrentTasksPerWorker: 1,
      idleTimeout: Number.POSITIVE_INFINITY,
      execArgv: [...WORKER_EXEC_ARGV],
    });
    this.result = {
      config,
      seconds,
      lives: 0,
      vanished: 0,
      cachesMade: 0,
      shrinks: 0,
      counts: noCounts(),
      problems: [],
    };
  }

  async run(): Promise<RoundResult> {
    const slots = Array.from({ length: this.threads }, (_, slot) => this.livesOf(slot));
    await Promise.all([...slots, this.meddle()]);
    await this.pool.destroy();
    try {
      this.finish();
    } catch (error) {
      this.fail(`at the end: ${(error as Error).stack}`);
    }
    return this.result;
  }

  /** One life after another in a thread slot, until the round ends. */
  private async livesOf(slot: number): Promise<void> {
    while (performance.now() < this.deadline && this.result.problems.length === 0) {
      const left = this.deadline - performance.now();
      const ms = Math.min(left, 100 + this.random() * 900);
      const end = this.random() < 0.3 ? 'vanish' : 'offline';
      const task: StressTask = {
        shared: this.shared,
        slot,
        seed: Math.floor(this.random() * 2 ** 31),
        ms,
        end,
      };
      this.shared.control[Control.parked + slot] = 0;
      this.result.lives++;
      try {
        if (end === 'offline') this.add(await this.pool.run(task));
        else await this.vanish(task);
      } catch (error) {
        this.fail(`CPU of thread ${slot}: ${(error as Error).stack}`);
      }
    }
  }

  private add(counts: StressCounts): void {
    addCounts(this.result.counts, counts);
    for (const problem of counts.problems) this.fail(problem);
  }

  private fail(problem: string): void {
    this.result.problems.push(problem);
    stop(this.shared);
  }

  /** Terminates the thread once it is parked, with its locks held, and lets this thread flush its CPU. */
  private async vanish(task: StressTask): Promise<void> {
    const abort = new AbortController();
    const running = this.pool.run(task, { signal: abort.signal });
    const ended = running.then(
      () => 'returned',
      (error: Error) => (error.name === 'AbortError' ? 'aborted' : Promise.reject(error)),
    );
    while (loadAcquire(this.shared.control, Control.parked + task.slot) === 0) {
      const early = await Promise.race([ended, new Promise((resolve) => setTimeout(resolve, 5, ''))]);
      if (early !== '') throw new Error(`the thread ended before it parked: ${early}`);
    }
    const id = loadAcquire(this.shared.control, Control.threadId + task.slot);
    const worker = (this.pool.threads as Worker[]).find((thread) => thread.threadId === id);
    if (worker === undefined) throw new Error(`no worker has thread id ${id}`);
    const exit = once(worker, 'exit');
    abort.abort();
    // The rejection is not the death: only the exit is.
    await Promise.all([ended, exit]);
    const report = this.arena.cpuDead(loadAcquire(this.shared.control, Control.cpu + task.slot));
    // Its callbacks were for bringing sheaves back early, which others do as well.
    const notes = report.notes.filter((note) => !note.includes('RCU callbacks'));
    if (report.heldLocks.length > 0 || notes.length > 0) this.fail(`reaping: ${JSON.stringify(report)}`);
    this.result.vanished++;
  }

  /** Meanwhile this thread shrinks caches, makes and destroys others, and reads the statistics. */
  private async meddle(): Promise<void> {
    while (performance.now() < this.deadline && this.result.problems.length === 0) {
      await new Promise((resolve) => setTimeout(resolve, 20));
      try {
        this.meddleOnce();
      } catch (error) {
        this.fail(`main thread: ${(error as Error).stack}`);
      }
    }
  }

  private meddleOnce(): void {
    const name = STRESS_CACHES[Math.floor(this.random() * STRESS_CACHES.length)]!.name;
    this.arena.openCache(name).shrink();
    this.result.shrinks++;
    this.arena.slabinfo();
    let cache: ReturnType<Arena['createCache']>;
    try {
      cache = this.arena.createCache(`passing-${this.result.cachesMade}`, {
        size: 8 + Math.floor(this.random() * 500),
      });
    } catch (error) {
      if ((error as Error).name === 'OutOfMemoryError') return;
      throw error;
    }
    this.result.cachesMade++;
    const objects = [];
    for (let i = 0; i < 200; i++) objects.push(cache.alloc());
    for (const p of objects) if (p !== 0) cache.free(p);
    const report = cache.destroy();
    if (report.leaked > 0) this.fail(`a passing cache leaked ${report.leaked} objects`);
  }

  /** Everything is freed; the arena must be sound, and as empty as it began. */
  private finish(): void {
    const { arena, shared, result } = this;
    for (const report of arena.lockdep().reports) this.fail(report);
    const main = new StressThread(shared, arena, 0);
    drainTransfer(main, shared);
    arena.kfreeRcuBarrier();
    this.add(main.counts);
    addCounts(result.counts, bequeathed(shared));
    const lost = shared.live.reduce((sum, owner) => sum + (owner !== 0 ? 1 : 0), 0);
    if (lost > 0) this.fail(`${lost} objects were handed out and never came back`);
    for (const finding of arena.validate())
      this.fail(`${finding.invariant} ${finding.where}: ${finding.what}`);
    for (const { name } of STRESS_CACHES) {
      const report = arena.openCache(name).destroy();
      if (report.leaked > 0) this.fail(`${name} leaked ${report.leaked} objects`);
    }
    const left = ownObjects(arena);
    if (left !== this.baseline)
      this.fail(`the arena's own caches hold ${left}, at the start ${this.baseline}`);
    for (const finding of arena.validate())
      this.fail(`after destroy: ${finding.invariant} ${finding.where}: ${finding.what}`);
    result.problems.splice(50);
  }
}

/** One round of the stress. */
export function stressRound(
  config: StressConfig,
  threads: number,
  seed: number,
  seconds: number,
): Promise<RoundResult> {
  return new Round(config, threads, seed, seconds).run();
}
