import { describe, expect, it } from 'vitest';
import type { CheckLevel, LockPolicy } from '#src/index.js';
import { SlabBugError } from '#src/index.js';
import {
  allocMany,
  boot,
  expectRefused,
  expectSound,
  footprint,
  freeMany,
  secondCpu,
} from './support/arena.js';

const MODES = (['turn', 'op'] as LockPolicy[]).flatMap((lockPolicy) =>
  (['none', 'free', 'full'] as CheckLevel[]).map((check) => ({ lockPolicy, check })),
);

describe.each(MODES)('destroy, policy $lockPolicy, check $check', (mode) => {
  it('of a cache without objects gives everything back', () => {
    const arena = boot(mode);
    const before = footprint(arena);
    const cache = arena.createCache('c', { size: 192 });
    freeMany(cache, allocMany(cache, 1000));
    expect(cache.destroy()).toEqual({ cache: 'c', leaked: 0, objects: [] });
    expect(arena.cacheNames()).not.toContain('c');
    expect(footprint(arena)).toEqual(before);
    expectSound(arena);
  });

  it('reports each object that was not freed, once', () => {
    const arena = boot({ ...mode, cpus: 2, nodes: 2 });
    const cache = arena.createCache('c', { size: 192 });
    const other = secondCpu(arena);
    const theirs = other.openCache('c');
    const held = [...allocMany(cache, 100), ...allocMany(theirs, 100)];
    const freed = held.filter((_, i) => i % 3 === 0);
    freeMany(cache, freed);
    other.endTurn();
    const leaked = held.filter((_, i) => i % 3 !== 0).sort((a, b) => a - b);
    const report = cache.destroy();
    expect(report).toMatchObject({ cache: 'c', leaked: leaked.length });
    expect(report.objects.toSorted((a, b) => a - b)).toEqual(leaked);
    expectSound(arena);
  });

  it('waits for what freeRcu was given, in sheaves and past them, and reports only the rest', () => {
    const arena = boot({ ...mode, cpus: 2, nodes: 2 });
    const cache = arena.createCache('c', { size: 192 });
    const other = secondCpu(arena);
    const theirs = other.openCache('c');
    const [kept, remote] = [cache.alloc(), cache.allocNode(1)];
    for (const p of allocMany(cache, 7)) cache.freeRcu(p);
    for (let i = 0; i < 5; i++) cache.freeRcu(cache.allocNode(1));
    for (const p of allocMany(theirs, 70)) theirs.freeRcu(p);
    const stats = cache.stats();
    expect([stats.FREE_RCU_SHEAF, stats.FREE_RCU_SHEAF_FAIL]).toEqual([77, 5]);
    other.endTurn();
    const objects = [kept, remote].sort((a, b) => a - b);
    expect(cache.destroy()).toEqual({ cache: 'c', leaked: 2, objects });
    expectSound(arena);
  });

  it('with objects left takes the cache away but not their memory', () => {
    const arena = boot(mode);
    const cache = arena.createCache('c', { size: 192 });
    const [p] = allocMany(cache, 30);
    arena.u8.fill(0x5a, p, p! + 192);
    expect(cache.destroy().leaked).toBe(30);
    expect(arena.cacheNames()).not.toContain('c');
    expect(() => arena.openCache('c')).toThrow('no cache is named "c"');
    const again = arena.createCache('c', { size: 192 });
    expect(again.desc.slot).not.toBe(cache.desc.slot);
    freeMany(again, allocMany(again, 500));
    expect(again.destroy().leaked).toBe(0);
    expect(arena.u8.subarray(p, p! + 192).every((byte) => byte === 0x5a)).toBe(true);
    expectSound(arena);
  });

  it('ends every handle, in every thread', () => {
    const arena = boot(mode);
    const cache = arena.createCache('c', { size: 192 });
    const other = secondCpu(arena);
    const theirs = other.openCache('c');
    const [p] = allocMany(theirs, 1);
    other.endTurn();
    expect(cache.destroy().leaked).toBe(1);
    const uses: Array<() => unknown> = [cache, theirs].flatMap((handle) => [
      () => handle.alloc(),
      () => handle.free(p!),
      () => handle.allocBulk(new Int32Array(3), 3),
      () => handle.freeBulk(Int32Array.of(p!), 1),
      () => handle.allocNode(0),
      () => handle.shrink(),
      () => handle.destroy(),
      () => {
        handle.minPartial = 3;
      },
      () => handle.minPartial,
      () => handle.stats(),
      () => handle.stat('ALLOC_FASTPATH'),
    ]);
    for (const use of [...uses, () => arena.kfree(p!), () => other.kfree(p!)]) {
      expectRefused(arena, use, SlabBugError, /BUG c: the cache was destroyed/);
    }
  });

  it('frees the slot for another cache, and a handle of the former one does not reach it', () => {
    const arena = boot(mode);
    const other = secondCpu(arena);
    const cache = arena.createCache('old', { size: 192 });
    const theirs = other.openCache('old');
    freeMany(theirs, allocMany(theirs, 3));
    other.endTurn();
    cache.destroy();
    const fresh = arena.createCache('new', { size: 64 });
    expect(fresh.desc.slot).toBe(cache.desc.slot);
    expect(fresh.desc.serial).not.toBe(cache.desc.serial);
    const [p] = allocMany(fresh, 1);
    arena.endTurn();
    for (const stale of [cache, theirs]) {
      expectRefused(arena, () => stale.alloc(), SlabBugError, /BUG old: the cache was destroyed/);
      expectRefused(arena, () => stale.free(p!), SlabBugError, /BUG old: the cache was destroyed/);
      expectRefused(arena, () => stale.destroy(), SlabBugError, /BUG old: the cache was destroyed/);
      expectRefused(arena, () => stale.stats(), SlabBugError, /BUG old: the cache was destroyed/);
      expectRefused(arena, () => stale.minPartial, SlabBugError, /BUG old: the cache was destroyed/);
    }
    const after = other.openCache('new');
    expect(after === theirs).toBe(false);
    after.free(p!);
    other.endTurn();
    expect(fresh.stats()).toMatchObject({ SHEAF_ALLOC: expect.any(Number), ALLOC_FASTPATH: 1 });
    expectSound(arena);
  });

  it('leaves the counters of a new cache in the slot at zero', () => {
    const arena = boot(mode);
    const cache = arena.createCache('old', { size: 192 });
    freeMany(cache, allocMany(cache, 500));
    cache.destroy();
    const { SHEAF_ALLOC, ...rest } = arena.createCache('new', { size: 192 }).stats();
    expect(SHEAF_ALLOC).toBe(2);
    expect(Object.values(rest).every((count) => count === 0)).toBe(true);
  });

  it('is refused for the caches that the arena itself is made of', () => {
    const arena = boot(mode);
    for (const name of arena.cacheNames()) {
      const cache = arena.openCache(name);
      expectRefused(arena, () => cache.destroy(), RangeError, /is one of the arena's own caches/);
    }
  });
});
