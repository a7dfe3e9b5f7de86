/**
 * Fault injection into allocations, for caches that are marked for it (SLAB_FAILSLAB, `A` in slabDebug): the pre-alloc hook
 * of the kernel's failslab. What is injected is a thread's own matter, as with /proc/self/task/N/fail-nth. With `space`,
 * `ignoreGfpWait` and `callback` it does what the kernel's user-space tests of data structures do with stubs in place of
 * the allocator (tools/testing/shared/linux.c).
 */
import { __GFP_DIRECT_RECLAIM, __GFP_NOFAIL } from '../../page/index.js';
import { describe, requireInteger, requireKnown, requireObject } from '../../struct/index.js';

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
  /** Allocations that may wait neither fail nor count. Default false. Kernel: ignore-gfp-wait. */
  ignoreGfpWait?: boolean;
  /**
   * Called once after one or more have failed, before this thread's next allocation that may wait from a marked cache: by
   * then it holds no lock, and what another thread could do between a failure and the next attempt can be done. Kernel:
   * `kmem_cache_set_callback` of the stubs.
   */
  callback?: () => void;
}

const KNOWN = Object.keys({
  nth: true,
  interval: true,
  times: true,
  space: true,
  ignoreGfpWait: true,
  callback: true,
} satisfies Record<keyof FailslabOptions, true>);

/** What {@link FailslabOptions} inject, and how many have failed; from `arena.failslab`. */
export class Failslab {
  private nth = 0;
  private interval = 0;
  private times = 0;
  private space = 0;
  private ignoreGfpWait = false;
  private callback: (() => void) | undefined;
  private called = 0;
  /** Allocations that were looked at since the last set: those that may not fail, or are ignored, are not. */
  seen = 0;
  /** Allocations that were made to fail since the last set. */
  injected = 0;

  /** @internal */
  set(options: FailslabOptions): void {
    requireObject('options', options);
    requireKnown('options', options, KNOWN);
    const { nth = 0, interval = 0, times = 0x7fffffff, space = 0, ignoreGfpWait = false, callback } = options;
    for (const [name, value] of Object.entries({ nth, interval, times, space })) {
      requireInteger(name, value, 0, 0x7fffffff);
    }
    if (typeof ignoreGfpWait !== 'boolean') {
      throw new TypeError(`ignoreGfpWait is ${describe(ignoreGfpWait)}; it must be a boolean`);
    }
    if (callback !== undefined && typeof callback !== 'function') {
      throw new TypeError(`callback is ${describe(callback)}; it must be a function`);
    }
    this.nth = nth;
    this.interval = interval;
    this.times = times;
    this.space = space;
    this.ignoreGfpWait = ignoreGfpWait;
    this.callback = callback;
    this.called = 0;
    this.seen = 0;
    this.injected = 0;
  }

  /** Whether the nth allocation has not come yet: a loop over all failures of an operation ends when it has not. */
  get pending(): boolean {
    return this.nth > 0 && this.seen < this.nth;
  }

  /** Counts one allocation; true if it is to fail. Kernel: `should_failslab`. @internal */
  shouldFail(gfp: number): boolean {
    const mayWait = (gfp & __GFP_DIRECT_RECLAIM) !== 0;
    if (mayWait) this.callBack();
    if ((gfp & __GFP_NOFAIL) !== 0 || (mayWait && this.ignoreGfpWait)) return false;
    this.seen++;
    if (this.nth === 0 && this.interval === 0) return false;
    const at = this.seen - this.space;
    if (this.nth > 0 && this.seen !== this.nth) return false;
    if (this.interval > 0 && (at <= 0 || at % this.interval !== 0)) return false;
    if (this.injected >= this.times) return false;
    this.injected++;
    return true;
  }

  /** What it calls may allocate, and set anew. */
  private callBack(): void {
    if (this.callback === undefined || this.called === this.injected) return;
    this.called = this.injected;
    this.callback();
  }
}
