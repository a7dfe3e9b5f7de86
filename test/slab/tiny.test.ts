/** Tiny arenas: CONFIG_SLUB_TINY. */
import { describe, expect, it } from 'vitest';
import { __GFP_RECLAIMABLE, GFP_KERNEL, type KmallocOptions } from '#src/index.js';
import { planArena } from '#src/plan.js';
import { calculateSizes, listLock, nodeOf, TINY_MAX_ORDER } from '#src/slab/index.js';
import { LockClass } from '#src/sync/index.js';
import {
  allocMany,
  boot,
  expectSound,
  footprint,
  freeMany,
  inside,
  MiB,
  moved,
  nodeCounts,
  partialList,
  secondCpu,
} from '../cache/support/arena.js';

describe('a tiny arena', () => {
  it('has slabs of one or two pages wherever an object fits, and no sheaves', () => {
    const arena = boot({ tiny: true });
    for (const cache of inside(arena).all()) {
      expect([cache.layer, cache.sheafCapacity, cache.minPartial]).toEqual(['none', 0, 0]);
      expect(cache.order).toBeLessThanOrEqual(TINY_MAX_ORDER);
    }
    for (const size of [8, 100, 700, 1000, 4000, 5000, 8192, 8193, 30_000]) {
      const full = calculateSizes({ objectSize: size, cpus: 8 });
      const tiny = calculateSizes({ objectSize: size, cpus: 8, tiny: true });
      const least = calculateSizes({ objectSize: size, cpus: 8, maxOrder: 1 });
      expect(tiny).toEqual({ ...least, minPartial: 0, cpuPartial: 0, sheafCapacity: 0 });
      expect(tiny.order).toBeLessThanOrEqual(full.order);
    }
    expect(arena.createCache('asked', { size: 64, sheafCapacity: 32 }).sheafCapacity).toBe(0);
  });

  it('uses fewer pages than another arena for the same objects', () => {
    const used = (tiny: boolean): number => {
      const arena = boot({ tiny });
      for (let size = 8; size <= 8192; size *= 2) arena.kmalloc(size);
      return arena.meminfo().usedPages;
    };
    expect(used(true)).toBeLessThan(used(false) / 2);
  });

  it('keeps no empty slab, and puts one that was full at the tail', () => {
    const arena = boot({ tiny: true });
    const cache = arena.createCache('c', { size: 1024 });
    const { objsPerSlab } = cache;
    expect(objsPerSlab).toBe(8);
    const objects = allocMany(cache, 3 * objsPerSlab - 1);
    expect([nodeCounts(arena, cache).slabs, partialList(arena, cache).length]).toEqual([3, 1]);
    const order = () => partialList(arena, cache).map(({ address }) => address);
    const [first, second, third] = [0, 1, 2].map((i) => objects[i * objsPerSlab]!) as [
      number,
      number,
      number,
    ];
    expect(moved(cache, () => cache.free(first))).toEqual({ FREE_SLOWPATH: 1, FREE_ADD_PARTIAL: 1 });
    cache.free(second);
    expect(order()).toEqual([third, first, second].map((p) => p & ~8191));
    const rest = objects.filter((p) => p !== first && (p & ~8191) === (first & ~8191));
    expect(moved(cache, () => freeMany(cache, rest))).toEqual({
      FREE_SLOWPATH: 7,
      FREE_REMOVE_PARTIAL: 1,
      FREE_SLAB: 1,
    });
    expect(order()).toEqual([third, second].map((p) => p & ~8191));
    expectSound(arena);
  });

  it('takes list_lock once for each object that comes or goes', () => {
    const arena = boot({ tiny: true });
    const cache = arena.createCache('c', { size: 512 });
    const held = allocMany(cache, 40);
    const { locks } = arena.cpu;
    const n = listLock(nodeOf(arena.i32, cache.desc, 0));
    let taken = 0;
    const lock = locks.lock;
    locks.lock = function (at, lockClass) {
      if (at === n && lockClass === LockClass.ListLock) taken++;
      return lock.call(this, at, lockClass);
    };
    // A slab that is neither full nor about to be empty: elsewhere such a free needs no lock.
    cache.free(held[20]!);
    taken = 0;
    cache.free(held[21]!);
    cache.free(held[22]!);
    expect(taken).toBe(2);
    const out = new Int32Array(3);
    expect(cache.allocBulk(out, 3)).toBe(true);
    expect(taken).toBe(5);
    locks.lock = lock;
    expectSound(arena);
  });

  it('serves bulk, prefilled sheaves, RCU, restricted contexts and other threads', () => {
    const arena = boot({ tiny: true, kmalloc: { types: ['cgroup'], requestedSize: true } });
    const cache = arena.createCache('c', { size: 100 });
    const before = footprint(arena);
    const out = new Int32Array(200);
    expect(moved(cache, () => cache.allocBulk(out, 200)).ALLOC_SLOWPATH).toBe(200);
    cache.freeBulk(out, 200);
    const sheaf = cache.prefill(20)!;
    expect(moved(cache, () => cache.free(sheaf.alloc()))).toEqual({ FREE_SLOWPATH: 1 });
    cache.return(sheaf);
    cache.freeRcu(cache.alloc());
    arena.kfreeRcu(arena.kmalloc(700));
    const p = arena.kmallocNolock(40);
    arena.kfreeNolock(p);
    const other = secondCpu(arena);
    other.kfree(arena.kmalloc(100, GFP_KERNEL | __GFP_RECLAIMABLE));
    other.offline();
    arena.kfreeRcuBarrier();
    expect(footprint(arena)).toEqual(before);
    expectSound(arena);
  });

  it.each([
    [{ layer: 'sheaves' as const }, /layer is 'sheaves'; a tiny arena has nothing in front of its slabs/],
    [{ kmalloc: { copies: 1 } as KmallocOptions }, /kmalloc.copies is 1; a tiny arena has none/],
    [{ kmalloc: { types: ['reclaimable'] } as KmallocOptions }, /kmalloc.types has reclaimable/],
  ])('refuses %j', (options, message) => {
    expect(() => planArena({ bytes: 8 * MiB, tiny: true, ...options })).toThrow(message);
  });

  it('refuses caches with a layer', () => {
    expect(() => planArena({ bytes: 8 * MiB, tiny: 1 as never })).toThrow(/tiny is 1; it must be a boolean/);
    const arena = boot({ tiny: true });
    expect(() => arena.createCache('c', { size: 8, layer: 'cpu-slab' })).toThrow(/layer is 'cpu-slab'/);
  });
});
