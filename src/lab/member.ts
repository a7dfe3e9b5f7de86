/**
 * One thread of a pool, seen from inside. It attaches to the pool's arena once and for good, since the arena's
 * fast path is compiled for one arena a thread, and is a CPU of it only while it runs a task.
 */
import { threadId, workerData } from 'node:worker_threads';
import { Arena } from '../arena.js';
import type { ArenaHandle } from '../handle.js';
import { AbortedError, Control } from './control.js';

/** What a pool gives each of its threads, as workerData. */
export interface PoolSetup {
  readonly handle: ArenaHandle;
  readonly control: Int32Array;
  /** Threads in the pool. */
  readonly size: number;
  readonly waitLimitMs: number;
}

/** One run's task; every thread of the pool gets the same one. */
export interface Task<Job> {
  /** Threads that take part; those of a higher rank return at once. */
  readonly threads: number;
  readonly job: Job;
}

/** What a thread answers. An error is plain data: a clone of it would lose its class. */
export type Answer<Result> =
  | { readonly rank: number; readonly idle: true }
  | { readonly rank: number; readonly result: Result }
  | { readonly rank: number; readonly error: { text: string; aborted: boolean } };

/** What a job sees of its thread. */
export class Member {
  readonly arena: Arena;
  readonly control: Control;
  readonly rank: number;
  readonly threads: number;

  constructor(arena: Arena, control: Control, rank: number, threads: number) {
    this.arena = arena;
    this.control = control;
    this.rank = rank;
    this.threads = threads;
  }

  /** Returns when all threads that take part are here. Ends the turn first. */
  barrier(): void {
    this.arena.endTurn();
    this.control.barrier(this.threads);
  }

  /** The word's value once it is no longer `seen`. Ends the turn: the writer may need a lock that it holds. */
  awaitChange(words: Int32Array, index: number, seen: number): number {
    this.arena.endTurn();
    return this.control.poll(words, index, seen);
  }
}

let attached: { arena: Arena; control: Control; rank: number } | undefined;

function attach({ handle, control: words, waitLimitMs }: PoolSetup): NonNullable<typeof attached> {
  const control = new Control(words, waitLimitMs);
  return { arena: Arena.attach(handle), control, rank: control.takeRank() };
}

function describeError(error: unknown): { text: string; aborted: boolean } {
  const text = error instanceof Error ? (error.stack ?? error.message) : String(error);
  return { text, aborted: error instanceof AbortedError };
}

/** Leaves the CPU whatever happened; an error on the way out must not hide the first one. */
function leave(arena: Arena): void {
  if (arena.isOnline) arena.offline();
}

/** Runs a task in a worker of a {@link CpuPool}: takes the thread slot of its rank, runs `role`, gives it back. */
export function serve<Job, Result>(
  task: Task<Job>,
  role: (job: Job, member: Member) => Result,
): Answer<Result> {
  const setup = workerData as PoolSetup;
  attached ??= attach(setup);
  const { arena, control, rank } = attached;
  control.enter();
  if (rank >= task.threads) return { rank, idle: true };
  try {
    control.awaitAllEntered(setup.size);
    arena.online({ thread: rank, tid: threadId });
    const result = role(task.job, new Member(arena, control, rank, task.threads));
    leave(arena);
    return { rank, result };
  } catch (error) {
    control.abort();
    try {
      leave(arena);
    } catch {
      // The first error says more; the pool finds the CPU still taken and reaps it.
    }
    return { rank, error: describeError(error) };
  }
}
