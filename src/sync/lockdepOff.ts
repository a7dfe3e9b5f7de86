/**
 * What the layers above tell lockdep, with nobody listening: the base class, for arenas made without. Each method stands
 * on a path that waits, makes a slab or calls back; none on a path that serves an object.
 */
import type { LockPtr } from './lock.js';
import type { LockClassId } from './lockClass.js';

export type CallbackKind = 'ctor' | 'dtor';

/** The cache whose constructor or destructor runs: its name, and its place in the registry. */
export interface CallbackCache {
  readonly name: string;
  readonly slot: number;
}

export class LockdepOff {
  /**
   * A constructor or destructor of the cache begins. Until {@link leaveCallback} a constructor may not allocate from
   * that cache, and a destructor may wait for leaf locks only and free into no cache. Throws LockdepError when it is
   * called with a lock held that it may not be called with; then no leaveCallback is due.
   * @example
   * cpu.lockdep.enterCallback('ctor', desc);
   * try {
   *   ctor(p);
   * } finally {
   *   cpu.lockdep.leaveCallback();
   * }
   */
  enterCallback(_kind: CallbackKind, _cache: CallbackCache): void {}

  /** It is over, in whatever way. They nest: a constructor may allocate from a cache that has one. */
  leaveCallback(): void {}

  /**
   * This thread may sleep here for something that is no lock. Of locks it may hold mutexes, and those of the classes
   * `under`, which nobody waits for without a limit. Kernel: `might_sleep`.
   */
  mightSleep(_what: string, _under?: readonly LockClassId[]): void {}

  /** The caller must hold this lock. Kernel: `lockdep_assert_held`. */
  assertHeld(_lock: LockPtr, _cls: LockClassId): void {}
}
