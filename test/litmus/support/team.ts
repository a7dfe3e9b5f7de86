/** Starting the roles of workers/litmus.ts, and waiting for what they say. */
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

export function launch<T = unknown>(role: string, { control, handle, args = {} }: Start): Member<T> {
  const task: LitmusTask = { role, control: control.buffer, args, ...(handle ? { handle } : {}) };
  const worker = new Worker(FILE, { workerData: task });
  const exited = new Promise<number>((resolve) => worker.once('exit', resolve));
  const result = new Promise<T>((resolve, reject) => {
    worker.once('message', (message: { result: T }) => resolve(message.result));
    worker.once('error', reject);
    void exited.then((code) => reject(new Error(`${role} ended with code ${code} before it had a result`)));
  });
  result.catch(() => {});
  return { worker, result, exited };
}

/** Waits, without blocking this thread, until something holds. The test's own time limit ends a wait in vain. */
export async function until(holds: () => boolean): Promise<void> {
  while (!holds()) await new Promise((resolve) => setTimeout(resolve, 1));
}

/** Runs one member per entry of `tasks`, all through the gate at once, and returns their results. */
export async function runTeam<T>(
  role: string,
  handle: ArenaHandle | undefined,
  tasks: Array<Record<string, number | string>>,
  control: Control = new Control(),
): Promise<T[]> {
  const members = tasks.map((args) => launch<T>(role, { control, args, ...(handle ? { handle } : {}) }));
  const failed = Promise.race(members.map(({ result }) => result.then(() => new Promise<never>(() => {}))));
  await Promise.race([until(() => control.arrived >= members.length), failed]);
  control.open();
  const results = await Promise.all(members.map(({ result }) => result));
  await Promise.all(members.map(({ exited }) => exited));
  return results;
}
