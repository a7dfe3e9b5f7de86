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

/** A thread of its own, which ends when its role does, if nobody ends it before. */
export function launch<T = unknown>(role: string, start: Start): Member<T> {
  const worker = new Worker(FILE, { workerData: taskOf(role, start) });
  const exited = new Promise<number>((resolve) => worker.once('exit', resolve));
  const result = resultOf<T>(worker, role);
  result.catch(() => {});
  return { worker, result, exited };
}

/** Threads that wait for their next role: a start costs more than most roles do. */
const idle: Worker[] = [];

/** One role on a thread that others had before, or will have. A role leaves its CPU when it ends. */
async function runOnce<T>(role: string, start: Start): Promise<T> {
  const worker = idle.pop() ?? new Worker(FILE);
  worker.postMessage(taskOf(role, start));
  const result = await resultOf<T>(worker, role);
  idle.push(worker);
  return result;
}

/** After the last test of a file. */
export async function endTeams(): Promise<void> {
  await Promise.all(idle.splice(0).map((worker) => worker.terminate()));
}

/** Waits, without blocking this thread, until something holds. The test's own time limit ends a wait in vain. */
export async function until(holds: () => boolean): Promise<void> {
  while (!holds()) await new Promise((resolve) => setTimeout(resolve, 1));
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
