/** Waiting for a mutex within a limit: in the line of sleepers like everybody else. */
import { expect, it } from 'vitest';
import { slabMutex } from '#src/cache/registry.js';
import { lockWithin } from '#src/cache/remote.js';
import { LockClass, loadAcquire, WAITERS } from '#src/sync/index.js';
import { boot, inside, secondCpu } from './support/arena.js';

const { SlabMutex } = LockClass;

/** Two CPUs, and slab_mutex in the hands of the other. */
function held() {
  const arena = boot();
  const [mine, theirs] = [inside(arena).cpu, inside(secondCpu(arena)).cpu];
  const lock = slabMutex(arena.geometry);
  theirs.locks.lock(lock, SlabMutex);
  return { arena, mine, theirs, lock };
}

it('who was woken in the place of another wakes that one when it gives the lock up', () => {
  const { arena, mine, theirs, lock } = held();
  const { wait } = Atomics;
  let sleeps = 0;
  // The holder gives it up while we sleep. Who sleeps behind us is on no list but the word's.
  Object.assign(Atomics, {
    wait() {
      sleeps++;
      theirs.locks.unlock(lock, SlabMutex);
      return 'ok';
    },
  });
  try {
    expect(lockWithin(mine, lock, SlabMutex, 1000)).toBe(true);
  } finally {
    Object.assign(Atomics, { wait });
  }
  expect(sleeps).toBe(1);
  expect(loadAcquire(arena.i32, lock) & WAITERS).toBe(WAITERS);
  mine.locks.unlock(lock, SlabMutex);
});

it('gives up after its limit, and leaves the limit of all others as it was', () => {
  const { mine, theirs, lock } = held();
  const { limitMs } = mine.locks;
  expect(lockWithin(mine, lock, SlabMutex, 5)).toBe(false);
  expect(mine.locks.limitMs).toBe(limitMs);
  expect(mine.locks.held).toBe(0);
  theirs.locks.unlock(lock, SlabMutex);
});
