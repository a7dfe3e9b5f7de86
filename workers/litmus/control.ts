/**
 * How a test steers its workers: a start gate, a stop flag and a few words of the test's own, in a buffer beside the
 * arena.
 */
import type { ArenaHandle } from '../../src/index.js';
import type { Words } from '../../src/struct/index.js';
import { fetchAdd, futexWait, futexWake, loadAcquire, storeRelease } from '../../src/sync/index.js';

const ARRIVED = 0;
const GATE = 1;
const STOP = 2;
const NEVER = 3;
/** First word that a role and its test may use as they like. */
export const FREE_WORDS = 16;
export const CONTROL_WORDS = 4096;

/** What a worker is started with. */
export interface LitmusTask {
  role: string;
  control: SharedArrayBuffer;
  handle?: ArenaHandle;
  args: Readonly<Record<string, number | string>>;
}

export class Control {
  readonly buffer: SharedArrayBuffer;
  readonly m: Words;

  constructor(buffer: SharedArrayBuffer = new SharedArrayBuffer(CONTROL_WORDS * 4)) {
    this.buffer = buffer;
    this.m = new Int32Array(buffer);
  }

  /** In a worker: reports readiness and waits for the gate. */
  arrive(): void {
    fetchAdd(this.m, ARRIVED, 1);
    while (loadAcquire(this.m, GATE) === 0) futexWait(this.m, GATE, 0, 1000);
  }

  get arrived(): number {
    return loadAcquire(this.m, ARRIVED);
  }

  open(): void {
    storeRelease(this.m, GATE, 1);
    futexWake(this.m, GATE, Number.POSITIVE_INFINITY);
  }

  stop(): void {
    storeRelease(this.m, STOP, 1);
    futexWake(this.m, STOP, Number.POSITIVE_INFINITY);
  }

  get stopped(): boolean {
    return loadAcquire(this.m, STOP) !== 0;
  }

  /** In a worker: blocks until the test says stop. */
  waitForStop(): void {
    while (!this.stopped) futexWait(this.m, STOP, 0, 1000);
  }

  sleep(ms: number): void {
    futexWait(this.m, NEVER, 0, ms);
  }

  get(word: number): number {
    return loadAcquire(this.m, FREE_WORDS + word);
  }

  set(word: number, value: number): void {
    storeRelease(this.m, FREE_WORDS + word, value);
  }

  add(word: number, value: number): number {
    return fetchAdd(this.m, FREE_WORDS + word, value);
  }
}

/** A small generator of pseudo-random integers; each thread has its own, seeded by the test. */
export function random(seed: number): (below: number) => number {
  let state = seed | 0 || 1;
  return (below) => {
    state ^= state << 13;
    state ^= state >>> 17;
    state ^= state << 5;
    return (state >>> 0) % below;
  };
}

export const number = (task: LitmusTask, name: string): number => Number(task.args[name]);
