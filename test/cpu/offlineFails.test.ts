/** offline() that is stopped by a lock: the thread goes on being a CPU, with all that it does for RCU, and may try again. */
import { expect, it } from 'vitest';
import { slabMutex } from '#src/cache/registry.js';
import { LockError } from '#src/index.js';
import { LockClass } from '#src/sync/index.js';
import { allocMany, boot, expectSound, secondCpu } from '../cache/support/arena.js';
import { cutIn } from '../slab/support.js';

it.each([1, 2, 3])('at slab_mutex, the %i. time that it takes it', async (nth) => {
  const arena = boot();
  const other = secondCpu(arena);
  const cache = other.createCache('c', { size: 64 });
  const capacity = cache.sheafCapacity;
  const { limitMs } = other.cpu.locks;
  const lock = slabMutex(arena.geometry);
  cutIn(other, LockClass.SlabMutex, 'before lock', nth, () => {
    arena.cpu.locks.lock(lock, LockClass.SlabMutex);
    other.cpu.locks.limitMs = 10;
  });
  expect(() => other.offline()).toThrow(LockError);
  arena.cpu.locks.unlock(lock, LockClass.SlabMutex);
  other.cpu.locks.limitMs = limitMs;
  expect(other.isOnline).toBe(true);
  for (const p of allocMany(cache, capacity)) cache.freeRcu(p);
  expect(cache.rcuSheavesWait).toBe(true);
  await other.rcu.barrierAsync();
  expect(cache.rcuSheavesWait, 'it looks when the grace period is over').toBe(false);
  expectSound(arena);
  other.offline();
  expect(arena.onlineThreads).toEqual([0]);
  expectSound(arena);
});
