/** Locks of any tier that tell lockdep of every step. A class of its own, so that an arena without pays nothing. */
import type { LockPtr, Locks } from './lock.js';
import type { LockClassId } from './lockClass.js';
import type { Lockdep } from './lockdep.js';

type LocksClass<Args extends unknown[]> = new (...args: Args) => Locks;

/** Make one class per thread and arena: it belongs to that thread's lockdep. */
export function withLockdep<Args extends unknown[]>(
  Base: LocksClass<Args>,
  lockdep: Lockdep,
): LocksClass<Args> {
  return class LockdepLocks extends Base {
    override lock(lock: LockPtr, cls: LockClassId): void {
      lockdep.beforeLock(lock, cls);
      super.lock(lock, cls);
      lockdep.acquired(lock, cls, false);
    }

    override tryLock(lock: LockPtr, cls: LockClassId): boolean {
      const taken = super.tryLock(lock, cls);
      if (taken) lockdep.acquired(lock, cls, true);
      return taken;
    }

    /** The lock is free before lockdep looks: a report must not leave it locked. */
    override unlock(lock: LockPtr, cls: LockClassId): void {
      super.unlock(lock, cls);
      lockdep.released(lock, cls);
    }

    override noteTry(lock: LockPtr, cls: LockClassId, taken: boolean): void {
      super.noteTry(lock, cls, taken);
      if (taken) lockdep.acquiredOwnWord(lock, cls);
    }
  };
}
