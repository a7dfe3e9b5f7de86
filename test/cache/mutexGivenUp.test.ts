/** slab_mutex is given up whatever is thrown while a thread has it, at its beginning and at its end. */
import { expect, it } from 'vitest';
import { type Arena, CpuError } from '#src/index.js';
import { LockClass } from '#src/sync/index.js';
import { cutIn } from '../slab/support.js';
import { boot, expectSound, inside, secondCpu } from './support/arena.js';

function expectFree(arena: Arena, other: Arena): void {
  expect(arena.cpu.depth).toBe(0);
  expect(inside(arena).ownsSlabMutex).toBe(false);
  other.cpu.locks.limitMs = 20;
  for (const each of [other, arena]) {
    const cache = each.createCache('c', { size: 64 });
    cache.free(cache.alloc());
    expect(cache.destroy().leaked).toBe(0);
  }
  expectSound(arena);
}

it('at the end of the turn: a read section that was left open in it', () => {
  const arena = boot();
  const other = secondCpu(arena);
  expect(() => inside(arena).withSlabMutex(() => arena.rcu.readLock())).toThrow(CpuError);
  expectFree(arena, other);
});

it('where the operation begins: what a restricted context deferred is damaged', () => {
  const arena = boot();
  const other = secondCpu(arena);
  const { cpu } = arena;
  cutIn(arena, LockClass.SlabMutex, 'after lock', 1, () => {
    // As another object of a debug cache that a user wrote behind would do when it is freed.
    cpu.callbacksDue = true;
    const { runCallbacks } = cpu;
    cpu.runCallbacks = () => {
      cpu.callbacksDue = false;
      cpu.runCallbacks = runCallbacks;
      throw new Error('damaged');
    };
  });
  expect(() => arena.cacheNames()).toThrow('damaged');
  expectFree(arena, other);
});
