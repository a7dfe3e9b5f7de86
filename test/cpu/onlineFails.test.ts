/** online() that is stopped by an error on its way: the slot is free again, and the thread may try again. */
import { afterEach, expect, it, vi } from 'vitest';
import { Caches } from '#src/cache/index.js';
import { Arena, CpuError } from '#src/index.js';
import { PercpuCounters } from '#src/percpu/index.js';
import { boot, expectSound } from '../cache/support/arena.js';

afterEach(() => void vi.restoreAllMocks());

const fail = (): never => {
  throw new Error('no memory for this thread');
};

it.each([
  ['the caches are opened', () => vi.spyOn(Caches.prototype, 'openAll').mockImplementationOnce(fail)],
  [
    'the percpu allocator is made',
    () => vi.spyOn(PercpuCounters.prototype, 'updateBatch').mockImplementationOnce(fail),
  ],
])('where %s', (_where, stop) => {
  const arena = boot({ cpus: 2 });
  const other = Arena.attach(arena.handle);
  stop();
  expect(() => other.online({ cpu: 1 })).toThrow('no memory for this thread');
  expect(other.isOnline).toBe(false);
  expect(arena.onlineThreads).toEqual([0]);
  expect(() => other.cpu).toThrow(CpuError);
  expect(() => arena.cpuDead(1)).toThrow(/has no thread/);
  expect(other.online({ cpu: 1 }).id).toBe(1);
  const cache = other.createCache('c', { size: 64 });
  cache.free(cache.alloc());
  expect(cache.destroy().leaked).toBe(0);
  other.offline();
  expectSound(arena);
});
