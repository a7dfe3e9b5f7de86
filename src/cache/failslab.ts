/**
 * Fault injection into allocations, for caches that are marked for it (SLAB_FAILSLAB, `A` in slabDebug): the pre-alloc hook
 * of the kernel's failslab. What is injected is a thread's own matter, as with /proc/self/task/N/fail-nth.
 */
import { __GFP_NOFAIL } from '../page/index.js';
import { requireInteger, requireObject } from '../struct/index.js';

/** What fails; all that is given must be met. `{}` injects nothing. */
export interface FailslabOptions {
  /** The n-th allocation from now on fails, and no other. Kernel: fail-nth. */
  nth?: number;
  /** Every n-th fails. Kernel: interval. */
  interval?: number;
  /** At most so many fail; by default as many as there are. Kernel: times. */
  times?: number;
  /** So many succeed before the first fails. Kernel: space, in allocations instead of bytes. */
  space?: number;
}

export class Failslab {
  private nth = 0;
  private interval = 0;
  private times = 0;
  private space = 0;
  private seen = 0;
  /** Allocations that were made to fail since the last set. */
  injected = 0;

  set(options: FailslabOptions): void {
    requireObject('options', options);
    const { nth = 0, interval = 0, times = 0x7fffffff, space = 0 } = options;
    for (const [name, value] of Object.entries({ nth, interval, times, space })) {
      requireInteger(name, value, 0, 0x7fffffff);
    }
    this.nth = nth;
    this.interval = interval;
    this.times = times;
    this.space = space;
    this.seen = 0;
    this.injected = 0;
  }

  /** Whether the nth allocation has not come yet: a loop over all failures of an operation ends when it has not. */
  get pending(): boolean {
    return this.nth > 0 && this.seen < this.nth;
  }

  /** Counts one allocation; true if it is to fail. Kernel: `should_failslab`. */
  shouldFail(gfp: number): boolean {
    if ((gfp & __GFP_NOFAIL) !== 0 || (this.nth === 0 && this.interval === 0)) return false;
    const at = ++this.seen - this.space;
    if (this.nth > 0 && this.seen !== this.nth) return false;
    if (this.interval > 0 && (at <= 0 || at % this.interval !== 0)) return false;
    if (this.injected >= this.times) return false;
    this.injected++;
    return true;
  }
}
