/**
 * Worker threads as the CPUs of one arena, all running the same task at a time. piscina hands tasks out; what the
 * threads need to meet is in shared memory (control.ts), because a message takes 100 microseconds.
 *
 * Each thread keeps the rank it got first, and a run on fewer threads uses the lowest ranks: so it is always the same
 * threads that have compiled the code for a figure.
 */
import { fileURLToPath } from 'node:url';
import { Piscina } from 'piscina';
import type { Arena } from '../arena.js';
import { GranaryError, requireInteger } from '../struct/index.js';
import { Control, controlWords } from './control.js';
import { WORKER_EXEC_ARGV } from './execArgv.js';
import type { Answer, PoolSetup, Task } from './member.js';

const WORKER = new URL(import.meta.resolve('#workers/lab.js'));
const WAIT_LIMIT_MS = 10_000;

/** A thread of the pool failed; the message is its error with its stack. */
export class PoolError extends GranaryError {
  override name = 'PoolError';
}

export interface PoolOptions {
  /** Threads, one thread slot each: 0 to threads - 1. The arena needs one more for the thread that owns the pool. */
  threads: number;
  /** How long a thread waits for another before it fails. Default 10 seconds. */
  waitLimitMs?: number;
  /** A module whose default export calls `serve`; the lab's own unless given. */
  filename?: string | URL;
}

export class CpuPool {
  readonly arena: Arena;
  readonly size: number;
  readonly #piscina: Piscina;
  readonly #control: Control;
  #dead: string | undefined;

  /** The calling thread must be online in the arena, in the last thread slot: the others belong to the pool's threads. */
  constructor(arena: Arena, options: PoolOptions) {
    const { threads, waitLimitMs = WAIT_LIMIT_MS, filename = WORKER } = options;
    this.size = requireInteger('threads', threads, 1, arena.geometry.threads - 1);
    this.arena = arena;
    this.#control = new Control(controlWords(), waitLimitMs);
    const control = this.#control.words;
    this.#piscina = new Piscina({
      filename: filename instanceof URL ? fileURLToPath(filename) : filename,
      minThreads: threads,
      maxThreads: threads,
      concurrentTasksPerWorker: 1,
      idleTimeout: Number.POSITIVE_INFINITY,
      atomics: 'disabled',
      recordTiming: false,
      execArgv: [...WORKER_EXEC_ARGV],
      workerData: { handle: arena.handle, control, size: threads, waitLimitMs } satisfies PoolSetup,
    });
  }

  /**
   * Runs a job on the CPUs 0 to `threads` - 1 at once; results in the order of CPUs. Rejects with a PoolError, after
   * every thread has ended its task, when one of them fails. The pool can be used on unless a thread died.
   */
  async run<Job, Result>(job: Job, threads: number = this.size): Promise<Result[]> {
    requireInteger('threads', threads, 1, this.size);
    if (this.#dead !== undefined) throw new PoolError(`a thread of the pool died: ${this.#dead}`);
    this.#control.reset();
    this.arena.endTurn();
    const task: Task<Job> = { threads, job };
    // Submitted in one go to as many threads, all idle: each gets exactly one.
    const answers = Array.from({ length: this.size }, () => this.#submit<Job, Result>(task));
    const results: Result[] = [];
    const failures: Array<{ text: string; aborted: boolean }> = [];
    for (const answer of await Promise.all(answers)) {
      if ('result' in answer) results[answer.rank] = answer.result;
      else if ('error' in answer) failures.push(answer.error);
    }
    if (failures.length > 0) throw this.#failed(failures);
    return results;
  }

  async #submit<Job, Result>(task: Task<Job>): Promise<Answer<Result>> {
    try {
      return (await this.#piscina.run(task)) as Answer<Result>;
    } catch (error) {
      // The thread is gone, or its module does not load: nobody else tells the others.
      this.#control.abort();
      const text = error instanceof Error ? error.message : String(error);
      this.#dead ??= text;
      return { rank: -1, error: { text, aborted: false } };
    }
  }

  /** A thread that died left its CPU taken, and one that failed while leaving too. */
  #failed(failures: ReadonlyArray<{ text: string; aborted: boolean }>): PoolError {
    const mine = this.arena.cpu.thread;
    for (const thread of this.arena.onlineThreads) if (thread !== mine) this.arena.cpuDead(thread);
    const first = failures.find(({ aborted }) => !aborted) ?? failures[0]!;
    return new PoolError(first.text);
  }

  /** Ends the threads. */
  async close(): Promise<void> {
    await this.#piscina.destroy();
  }
}
