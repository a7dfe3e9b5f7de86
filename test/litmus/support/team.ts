/** Starting the roles of workers/litmus.ts, and waiting for what they say. */
import { once } from 'node:events';
import { Worker } from 'node:worker_threads';
import type { ArenaHandle } from '#src/index.js';
import { Control, type LitmusTask } from '#workers/litmus/control.js';

const FILE = new URL('../../../dist/workers/litmus.js', import.meta.url);

export interface Member<T = unknown> {
  worker: Worker;
  /** What the role returned; rejects when the thread ended without. */
  result: Promise<T>;
  exited: Promise<number>;
}

interface Start {
  control: Control;
  handle?: ArenaHandle;
  args?: Record<string, number | string>;
}

const taskOf = (role: string, { control, handle, args = {} }: Start): LitmusTask => ({
  role,
  control: control.buffer,
  args,
  ...(handle ? { handle } : {}),
});

/** What a thread says of its next role. */
async function resultOf<T>(worker: Worker, role: string): Promise<T> {
  const stop = new AbortController();
  const { signal } = stop;
  try {
    return await Promise.race([
      once(worker, 'message', { signal }).then(([{ result }]) => result as T),
      once(worker, 'exit', { signal }).then(([code]): never => {
        throw new Error(`${role} ended with code ${code} before it had a result`);
      }),
    ]);
  } finally {
    stop.abort();
  }
}

/** Why a thread has ended that nobody ended. */
let crash: unknown;

export function forgetCrash(): void {
  crash = undefined;
}

function start(task?: LitmusTask): Worker {
  const worker = new Worker(FILE, { workerData: task });
  worker.on('error', (error) => {
    crash = error;
  });
  return worker;
}

/** A thread of its own, which ends when its role does, if nobody ends it before. */
export function launch<T = unknown>(role: string, how: Start): Member<T> {
  const worker = start(taskOf(role, how));
  const exited = new Promise<number>((resolve) => worker.once('exit', resolve));
  const result = resultOf<T>(worker, role);
  result.catch(() => {});
  return { worker, result, exited };
}

/** Threads that wait for their next role: a start costs more than most roles do. */
const idle: Worker[] = [];

/** One role on a thread that others had before, or will have. A role leaves its CPU when it ends. */
async function runOnce<T>(role: string, how: Start): Promise<T> {
  const worker = idle.pop() ?? start();
  worker.postMessage(taskOf(role, how));
  const result = await resultOf<T>(worker, role);
  idle.push(worker);
  return result;
}

/** After the last test of a file. */
export async function endTeams(): Promise<void> {
  await Promise.all(idle.splice(0).map((worker) => worker.terminate()));
}

/** Waits, without blocking this thread, until something holds. A thread that crashes meanwhile ends the wait. */
export async function until(holds: () => boolean): Promise<void> {
  while (!holds()) {
    if (crash !== undefined) throw crash;
    await new Promise((resolve) => setTimeout(resolve, 1));
  }
}

/** Runs a role once per entry of `tasks`, all through the gate at once, and returns their results. */
export async function runTeam<T>(
  role: string,
  handle: ArenaHandle | undefined,
  tasks: Array<Record<string, number | string>>,
  control: Control = new Control(),
): Promise<T[]> {
  const results = tasks.map((args) => runOnce<T>(role, { control, args, ...(handle ? { handle } : {}) }));
  const all = Promise.all(results);
  const failed = all.then(() => new Promise<never>(() => {}));
  await Promise.race([until(() => control.arrived >= tasks.length), failed]);
  control.open();
  return await all;
}
