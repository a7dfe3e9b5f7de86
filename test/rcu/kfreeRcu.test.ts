/** kfree_rcu: through the rcu_free sheaf and the barn, and past them, step by step with two CPUs on this thread. */

import { describe, expect, it } from 'vitest';
import { type Arena, type ArenaOptions, type KmemCache, SlabBugError } from '#src/index.js';
import {
  allocMany,
  barnSizes,
  boot,
  expectSound,
  expectUnchanged,
  footprint,
  inside,
  moved,
  secondCpu,
} from '../cache/support/arena.js';

const C = 60;

function setup(options: Partial<ArenaOptions> = {}): { arena: Arena; other: Arena; cache: KmemCache } {
  const arena = boot({ cpus: 4, ...options });
  const cache = arena.createCache('c', { size: 64 });
  return { arena, other: secondCpu(arena), cache };
}

describe.each(['turn', 'op'] as const)('a sheaf of objects freed by RCU, %s', (lockPolicy) => {
  it('is submitted when it is full, and is an ordinary full sheaf after the grace period', () => {
    const { arena, other, cache } = setup({ lockPolicy });
    const held = allocMany(cache, 2 * C);
    const first = held.splice(0, C);
    other.rcu.readLock();
    const freed = moved(cache, () => {
      for (const p of first) cache.freeRcu(p);
    });
    expect(freed).toMatchObject({ FREE_RCU_SHEAF: C });
    expect(cache.rcuSheavesWait).toBe(true);
    expectSound(arena);
    cache.recycleAllRcuSheaves();
    expect(barnSizes(arena, cache).full, 'somebody reads').toEqual([]);
    other.rcu.readUnlock();
    other.endTurn();
    expect(moved(cache, () => cache.recycleAllRcuSheaves())).toEqual({ BARN_PUT: 1 });
    expect(barnSizes(arena, cache).full).toEqual([C]);
    expectSound(arena);
    for (const p of held) cache.free(p);
    expect(cache.destroy().leaked).toBe(0);
  });

  it('serves an allocation that finds the barn empty, and no slab is touched', () => {
    const { arena, cache } = setup({ lockPolicy });
    const held = allocMany(cache, 10 * C);
    for (const p of held.slice(0, 2 * C)) cache.freeRcu(p);
    const more = moved(cache, () => held.push(...allocMany(cache, 2 * C)));
    expect(more.ALLOC_SLAB ?? 0).toBe(0);
    expect(more).toMatchObject({ BARN_PUT: 2, ALLOC_FASTPATH: 2 * C });
    expectSound(arena);
  });

  it('does not hand an object out before the grace period', () => {
    const { arena, other, cache } = setup({ lockPolicy });
    const [p] = allocMany(cache, 1);
    other.rcu.readLock();
    cache.freeRcu(p!);
    const taken = allocMany(cache, 5 * C);
    expect(taken).not.toContain(p);
    other.rcu.readUnlock();
    other.endTurn();
    for (const q of taken) cache.free(q);
    cache.rcuBarrier();
    expectSound(arena);
    expect(allocMany(cache, 7 * C)).toContain(p);
  });

  it('counts as freed at once: a second free is refused, and changes nothing', () => {
    const { arena, cache } = setup({ lockPolicy });
    const [p, q] = allocMany(cache, 2) as [number, number];
    cache.freeRcu(p);
    for (const free of [() => cache.free(p), () => cache.freeRcu(p), () => arena.kfreeRcu(p)]) {
      expectUnchanged(arena, () => expect(free).toThrow(SlabBugError));
    }
    for (const bad of [q + 8, 0, -8, Number.NaN]) {
      expectUnchanged(arena, () => expect(() => cache.freeRcu(bad)).toThrow(SlabBugError));
    }
    cache.free(q);
    expect(cache.destroy().leaked).toBe(0);
  });

  it('that is not full waits for a barrier, for its CPU to leave, or for the cache to end', () => {
    const { arena, other, cache } = setup({ lockPolicy });
    const theirs = other.openCache('c');
    for (const p of allocMany(cache, 5)) cache.freeRcu(p);
    for (const p of allocMany(theirs, 7)) theirs.freeRcu(p);
    arena.endTurn();
    other.endTurn();
    expectSound(arena);
    cache.rcuBarrier();
    expect(cache.rcuSheavesWait).toBe(false);
    expectSound(arena);
    for (const p of allocMany(theirs, 7)) theirs.freeRcu(p);
    other.offline();
    expectSound(arena);
    for (const p of allocMany(cache, 3)) cache.freeRcu(p);
    expect(cache.destroy().leaked).toBe(0);
    expectSound(arena);
  });

  it('leaves no heap of empty sheaves behind, however many have waited', () => {
    const { arena, other, cache } = setup({ lockPolicy, barnFull: 10 });
    for (let round = 0; round < 3; round++) {
      other.rcu.readLock();
      for (const p of allocMany(cache, 50 * C)) cache.freeRcu(p);
      other.rcu.readUnlock();
      other.endTurn();
      const held = allocMany(cache, 50 * C);
      expectSound(arena);
      expect(barnSizes(arena, cache).empty).toBeLessThanOrEqual(20);
      for (const p of held) cache.free(p);
    }
    cache.rcuBarrier();
    expectSound(arena);
    expect(cache.destroy().leaked).toBe(0);
  });

  it('of a CPU that died between the push and the mark has the object free', () => {
    const { arena, other, cache } = setup({ lockPolicy });
    const theirs = other.openCache('c');
    const held = allocMany(theirs, 9);
    for (const p of held) theirs.freeRcu(p);
    const { shadow } = inside(arena).views;
    expect(shadow[held[8]! >> 3]).toBe(0);
    if (lockPolicy === 'turn') shadow[held[8]! >> 3] = cache.desc.tag; // its lock is held, as it was when it died
    arena.cpuDead(1);
    expectSound(arena);
    expect(() => cache.free(held[8]!)).toThrow(SlabBugError);
    expect(cache.destroy().leaked).toBe(0);
  });

  it.each(['none', 'free', 'full'] as const)('takes its objects whatever is checked: %s', (check) => {
    const { arena, cache } = setup({ lockPolicy, check, nodes: 2 });
    const held = allocMany(cache, 200);
    const far = Array.from({ length: 5 }, () => cache.allocNode(1));
    const freed = moved(cache, () => {
      for (const p of [...held, ...far]) cache.freeRcu(p);
    });
    expect(freed).toMatchObject({ FREE_RCU_SHEAF: 200, FREE_RCU_SHEAF_FAIL: 5 });
    expectSound(arena);
    if (check !== 'none') for (const p of held) expect(() => cache.freeRcu(p)).toThrow(SlabBugError);
    cache.rcuBarrier();
    expectSound(arena);
    expect(cache.destroy().leaked).toBe(0);
  });

  it('of a CPU that died comes back', () => {
    const { arena, other, cache } = setup({ lockPolicy });
    const theirs = other.openCache('c');
    for (const p of allocMany(theirs, C + 9)) theirs.freeRcu(p);
    other.endTurn();
    arena.cpuDead(1);
    expectSound(arena);
    expect(cache.destroy().leaked).toBe(0);
    expectSound(arena);
  });
});

describe('what goes past the sheaves', () => {
  it.each(['none', 'percpu-array', 'cpu-slab'] as const)('is everything of a cache of layer %s', (layer) => {
    const { arena, other, cache } = setup({ layer });
    const held = allocMany(cache, 3000);
    other.rcu.readLock();
    const freed = moved(cache, () => {
      for (const p of held) cache.freeRcu(p);
    });
    expect(freed).toMatchObject({ FREE_RCU_SHEAF_FAIL: 3000 });
    expectSound(arena);
    const more = allocMany(cache, 100);
    expect(
      more.filter((p) => held.includes(p)),
      'somebody reads',
    ).toEqual([]);
    for (const p of more) cache.free(p);
    other.rcu.readUnlock();
    other.endTurn();
    cache.rcuBarrier();
    expectSound(arena);
    expect(cache.destroy().leaked).toBe(0);
  });

  it('is what lies on another node', () => {
    const { arena, cache } = setup({ nodes: 2 });
    const held = Array.from({ length: 50 }, () => cache.allocNode(1));
    const freed = moved(cache, () => {
      for (const p of held) cache.freeRcu(p);
    });
    expect(freed).toMatchObject({ FREE_RCU_SHEAF_FAIL: 50 });
    expectSound(arena);
    cache.rcuBarrier();
    expectSound(arena);
    expect(cache.destroy().leaked).toBe(0);
  });

  it('is a large kmalloc; small ones take the sheaf of their size', () => {
    const arena = boot({ cpus: 2, bytes: 32 << 20 });
    const before = footprint(arena);
    for (let size = 8; size < 100_000; size = Math.ceil(size * 1.3)) arena.kfreeRcu(arena.kmalloc(size));
    arena.kfreeRcu(0);
    expectSound(arena);
    arena.kfreeRcuBarrier();
    expectSound(arena);
    expect(footprint(arena)).toEqual(before);
    expect(() => arena.kfreeRcu(12345)).toThrow(SlabBugError);
  });

  it('waits for the grace period at once when there is no memory for a page of addresses', () => {
    const { arena, cache } = setup({ layer: 'none' });
    const held = allocMany(cache, 10);
    arena.failPageAlloc(1);
    for (const p of held.slice(0, 5)) cache.freeRcu(p);
    arena.rcu.readLock();
    for (const p of held.slice(5)) cache.freeRcu(p);
    arena.rcu.readUnlock();
    expect(arena.failPageAlloc(0).refused).toBeGreaterThan(0);
    arena.rcu.barrier();
    expectSound(arena);
    expect(cache.destroy().leaked).toBe(0);
  });

  it('is taken over from a CPU that does not run, and from one that died', () => {
    const { arena, other, cache } = setup({ layer: 'none' });
    const theirs = other.openCache('c');
    for (const p of allocMany(theirs, 20)) theirs.freeRcu(p);
    other.endTurn();
    cache.rcuBarrier();
    expectSound(arena);
    for (const p of allocMany(theirs, 20)) theirs.freeRcu(p);
    other.endTurn();
    arena.cpuDead(1);
    expectSound(arena);
    expect(cache.destroy().leaked).toBe(0);
    expectSound(arena);
  });

  it('is not freed by a callback that was for an older grace period', async () => {
    const { arena, other, cache } = setup({ layer: 'none' });
    cache.freeRcu(cache.alloc());
    cache.rcuBarrier(); // frees it; its callback is still to come
    const p = cache.alloc();
    other.rcu.readLock();
    cache.freeRcu(p);
    arena.rcu.quiescent(); // the old callback runs now
    const more = allocMany(cache, 100);
    expect(more).not.toContain(p);
    other.rcu.readUnlock();
    other.endTurn();
    await arena.rcu.barrierAsync();
    for (const q of more) cache.free(q);
    expectSound(arena);
    expect(cache.destroy().leaked).toBe(0);
  });
});
