/**
 * Functions that run after a grace period, on the thread that gave them. They wait in two batches, as in the kernel's
 * segmented list: one whose grace period has been asked for, and one that gathers until that is over.
 */
import type { GracePeriods } from './gracePeriod.js';

/** What {@link Rcu.call} takes. */
export type RcuCallback = () => void;

export class RcuCallbacks {
  private readonly gracePeriods: GracePeriods;
  private waiting: RcuCallback[] = [];
  private waitingFor = 0;
  private gathering: RcuCallback[] = [];

  constructor(gracePeriods: GracePeriods) {
    this.gracePeriods = gracePeriods;
  }

  get pending(): number {
    return this.waiting.length + this.gathering.length;
  }

  add(callback: RcuCallback): void {
    this.gathering.push(callback);
    if (this.waiting.length === 0) this.startBatch();
  }

  /** Forgets all of them. */
  clear(): void {
    this.waiting = [];
    this.gathering = [];
  }

  /** Runs what is due. Returns how many ran. What they throw surfaces after all have run, the first one first. */
  run(): number {
    let ran = 0;
    const errors: unknown[] = [];
    while (this.waiting.length > 0 && this.gracePeriods.poll(this.waitingFor)) {
      const due = this.waiting;
      this.waiting = [];
      this.startBatch();
      for (const callback of due) {
        ran++;
        try {
          callback();
        } catch (error) {
          errors.push(error);
        }
      }
    }
    for (const error of errors) {
      queueMicrotask(() => {
        throw error;
      });
    }
    return ran;
  }

  /** The grace period that the last callback waits for, asking for it if nobody has; undefined when there is none. */
  lastGracePeriod(): number | undefined {
    return this.pending === 0 ? undefined : this.waitingFor;
  }

  private startBatch(): void {
    if (this.gathering.length === 0) return;
    this.waiting = this.gathering;
    this.gathering = [];
    this.waitingFor = this.gracePeriods.request();
  }
}
