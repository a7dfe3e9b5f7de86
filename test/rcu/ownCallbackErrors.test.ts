/** The library's own callbacks and a lock that a dead thread left: nobody called them, so nobody is thrown at. */
import { expect, it } from 'vitest';
import { listLock, nodeOf } from '#src/slab/index.js';
import { LockError } from '#src/struct/index.js';
import { LockClass } from '#src/sync/index.js';
import { boot, secondCpu } from '../cache/support/arena.js';

it('are on record in callbackErrors, and the callbacks after them run', () => {
  // A barn that takes next to none: a full sheaf of freed objects goes to the slabs when its grace period is over.
  const arena = boot({ barnFull: 1 });
  const cache = arena.createCache('a', { size: 64, sheafCapacity: 4 });
  const objects = Array.from({ length: 400 }, () => cache.alloc());
  const other = secondCpu(arena);
  const lock = listLock(nodeOf(arena.i32, cache.desc, 0));
  const { limitMs } = arena.cpu.locks;
  arena.cpu.locks.limitMs = 5;
  let ran = false;
  for (const p of objects) cache.freeRcu(p);
  other.cpu.locks.lock(lock, LockClass.ListLock);
  try {
    arena.rcu.call(() => {
      ran = true;
    });
    arena.rcu.barrier();
  } finally {
    other.cpu.locks.unlock(lock, LockClass.ListLock);
    arena.cpu.locks.limitMs = limitMs;
  }
  expect(ran).toBe(true);
  const errors = arena.callbackErrors;
  expect(errors.length).toBeGreaterThan(0);
  for (const { cache: name, what, cause } of errors) {
    expect(name).toBe('a');
    expect(what).toMatch(/^a: not freed after its grace period: .*list_lock/);
    expect(cause).toBeInstanceOf(LockError);
  }
});
