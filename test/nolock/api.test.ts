/** What the restricted calls accept, in which order they look for an object and for room, and what they count. */

import { describe, expect, it } from 'vitest';
import { Pcs, pcsOf } from '#src/cpu/index.js';
import {
  __GFP_NOWARN,
  __GFP_THISNODE,
  __GFP_ZERO,
  type Arena,
  GFP_KERNEL,
  type LockPolicy,
  SlabBugError,
  ZERO_SIZE_PTR,
} from '#src/index.js';
import { zoneLock, zoneOf } from '#src/page/index.js';
import { Barn, barnOf } from '#src/sheaf/index.js';
import { listLock, nodeOf } from '#src/slab/index.js';
import { LockClass, type LockPtr, storeRelease } from '#src/sync/index.js';
import {
  allocMany,
  boot,
  expectRefused,
  expectSound,
  expectUnchanged,
  freeMany,
  moved,
  nodeCounts,
  secondCpu,
  sheafSizes,
} from '../cache/support/arena.js';

const POLICIES: LockPolicy[] = ['turn', 'op'];
const bucket = (arena: Arena, size: string) => arena.openCache(`kmalloc-${size}`);

/** Runs `action` while another CPU holds that lock. */
function whileHeld(other: Arena, at: number, cls: 2 | 3 | 4, action: () => void): void {
  other.cpu.locks.lock(at as LockPtr, cls);
  try {
    action();
  } finally {
    other.cpu.locks.unlock(at as LockPtr, cls);
  }
}

describe.each(POLICIES)('kmallocNolock, policy %s', (lockPolicy) => {
  it('hands out objects of the bucket, zeroed if asked', () => {
    const arena = boot({ lockPolicy });
    for (const size of [1, 8, 65, 96, 193, 8192]) {
      const p = arena.kmallocNolock(size, __GFP_NOWARN);
      expect(arena.ksize(p)).toBeGreaterThanOrEqual(size);
      arena.u8.fill(0xaa, p, p + size);
      arena.kfreeNolock(p);
      const again = arena.kmallocNolock(size, __GFP_ZERO);
      expect(again).toBe(p);
      expect(arena.u8.subarray(p, p + size).every((byte) => byte === 0)).toBe(true);
      arena.kfree(again);
    }
    expectSound(arena);
  });

  it('knows the limits of size', () => {
    const arena = boot({ lockPolicy });
    expect(arena.kmallocNolock(0)).toBe(ZERO_SIZE_PTR);
    expect(arena.kmallocNolock(8193)).toBe(0);
    expect(arena.kmallocNolock(1 << 30)).toBe(0);
    for (const size of [-1, 1.5, Number.NaN]) {
      expectRefused(arena, () => arena.kmallocNolock(size), RangeError, /size/);
    }
    expectRefused(arena, () => arena.kmallocNolock('8' as never), TypeError, /size/);
  });

  it.each([GFP_KERNEL, __GFP_THISNODE, __GFP_ZERO | GFP_KERNEL, 1.5, 1 << 30])('refuses gfp %d', (gfp) => {
    const arena = boot({ lockPolicy });
    expectRefused(arena, () => arena.kmallocNolock(8, gfp), RangeError, /gfp is .*kmallocNolock allows/);
  });

  it('takes main, then the spare, then a full sheaf of the barn, and refills nothing', () => {
    const arena = boot({ lockPolicy });
    const cache = bucket(arena, '2k');
    const C = cache.sheafCapacity;
    freeMany(cache, allocMany(cache, 4 * C));
    arena.endTurn();
    const full = () => sheafSizes(arena, cache);
    expect(full()).toEqual({ main: C, spare: C });
    const take = (n: number) => moved(cache, () => allocNolock(arena, 2048, n));
    expect(take(C)).toEqual({ ALLOC_FASTPATH: C });
    expect(take(C)).toEqual({ ALLOC_FASTPATH: C });
    expect(take(1)).toEqual({ ALLOC_FASTPATH: 1, BARN_GET: 1 });
    const left = arena.cacheInfo().find(({ name }) => name === cache.name)!;
    expect(left.objects).toBeGreaterThan(0);
    // The barn runs dry, and no sheaf is filled.
    const rest = take(3 * C);
    expect(rest.SHEAF_REFILL).toBeUndefined();
    expect(rest.ALLOC_SLOWPATH).toBe(rest.BARN_GET_FAIL);
    expect(rest.ALLOC_SLOWPATH).toBeGreaterThan(0);
    expectSound(arena);
  });

  it('tries the next bucket once: what its own lacks', () => {
    const arena = boot({ lockPolicy });
    const other = secondCpu(arena);
    const cache = bucket(arena, '96');
    const kept = arena.kmalloc(96);
    cache.shrink();
    expect(nodeCounts(arena, cache).partial).toBe(1);
    expect(sheafSizes(arena, cache)).toEqual({ main: 0, spare: null });
    const lock = listLock(nodeOf(arena.i32, cache.desc, 0));
    whileHeld(other, lock, LockClass.ListLock, () => {
      const p = arena.kmallocNolock(96);
      expect(arena.ksize(p)).toBe(128);
      arena.kfreeNolock(p);
    });
    expect(arena.ksize(arena.kmallocNolock(96))).toBe(96);
    arena.kfree(kept);
    arena.endTurn();
    expectSound(arena);
  });

  it('returns 0 when the zone is taken, and waits for nothing', () => {
    const arena = boot({ lockPolicy });
    const other = secondCpu(arena);
    whileHeld(other, zoneLock(zoneOf(arena.geometry, 0)), LockClass.Zone, () => {
      expectUnchanged(arena, () => expect(arena.kmallocNolock(4096)).toBe(0));
    });
    expect(arena.kmallocNolock(4096)).not.toBe(0);
  });

  it('gives a new slab back when its list_lock is taken', () => {
    const arena = boot({ lockPolicy });
    const other = secondCpu(arena);
    const cache = bucket(arena, '8k');
    const { freePages } = arena.meminfo();
    whileHeld(other, listLock(nodeOf(arena.i32, cache.desc, 0)), LockClass.ListLock, () => {
      const counts = moved(cache, () => expect(arena.kmallocNolock(8192)).toBe(0));
      expect(counts).toMatchObject({ ALLOC_SLAB: 1, ALLOC_SLOWPATH: 1 });
    });
    expect(arena.meminfo().freePages).toBe(freePages);
    expectSound(arena);
  });

  it('passes by the barn when its lock is taken, and by sheaves that another CPU asked for', () => {
    const arena = boot({ lockPolicy });
    const other = secondCpu(arena);
    const cache = bucket(arena, '2k');
    freeMany(cache, allocMany(cache, 5 * cache.sheafCapacity));
    allocMany(cache, 2 * cache.sheafCapacity);
    arena.endTurn();
    whileHeld(other, barnOf(arena.cpu, cache.desc, 0) + Barn.lock, LockClass.Barn, () => {
      const counts = moved(cache, () => expect(arena.kmallocNolock(2048)).not.toBe(0));
      expect(counts).toMatchObject({ BARN_GET_FAIL: 1, ALLOC_SLOWPATH: 1 });
    });
    const request = pcsOf(arena.geometry, 0, cache.desc.slot) + Pcs.request;
    storeRelease(arena.i32, request, other.cpu.locks.owner);
    expect(moved(cache, () => arena.kmallocNolock(2048))).toMatchObject({ ALLOC_SLOWPATH: 1 });
    expect(arena.i32[request]).toBe(other.cpu.locks.owner);
    storeRelease(arena.i32, request, 0);
    expectSound(arena);
  });

  it('keeps sheaves that are held for the turn, and gives others back at once', () => {
    const arena = boot({ lockPolicy });
    const lock = pcsOf(arena.geometry, 0, bucket(arena, '64').desc.slot) + Pcs.lock;
    arena.kfreeNolock(arena.kmallocNolock(64));
    expect(arena.i32[lock]).toBe(0);
    const p = arena.kmalloc(64);
    const held = arena.i32[lock];
    arena.kfreeNolock(arena.kmallocNolock(64));
    expect(arena.i32[lock]).toBe(held);
    arena.kfree(p);
    expect(bucket(arena, '64').stats().FREE_SLOWPATH).toBe(0);
  });

  it('survives refused pages', () => {
    const arena = boot({ lockPolicy });
    arena.failPageAlloc(1);
    expect(arena.kmallocNolock(4096)).toBe(0);
    arena.failPageAlloc(0);
    expectSound(arena);
  });
});

describe.each(POLICIES)('kfreeNolock, policy %s', (lockPolicy) => {
  it('frees what kmalloc returned, large blocks too, and nothing for NULL', () => {
    const arena = boot({ lockPolicy });
    const { freePages } = arena.meminfo();
    arena.kfreeNolock(arena.kmalloc(100_000));
    expect(arena.meminfo().freePages).toBe(freePages);
    arena.kfreeNolock(0);
    arena.kfreeNolock(ZERO_SIZE_PTR);
    arena.kfreeNolock(arena.kmalloc(64));
    expectSound(arena);
  });

  it('refuses what kfree refuses, and changes nothing', () => {
    const arena = boot({ lockPolicy });
    const p = arena.kmallocNolock(64);
    const large = arena.kmalloc(20_000);
    const page = arena.allocPages(0);
    for (const bad of [p + 8, p + 4, large + 4096, page, 4, 2 ** 31, Number.NaN]) {
      expectRefused(arena, () => arena.kfreeNolock(bad), SlabBugError, /BUG/);
    }
    arena.kfreeNolock(p);
    expectRefused(arena, () => arena.kfreeNolock(p), SlabBugError, /already free/);
    arena.kfreeNolock(large);
    expectRefused(arena, () => arena.kfreeNolock(large), SlabBugError, /BUG/);
  });

  it('fills main, then the spare, then exchanges with the barn, and flushes nothing', () => {
    const arena = boot({ lockPolicy });
    const cache = bucket(arena, '2k');
    // The barn learns of empty sheaves when full ones are taken from it.
    freeMany(cache, allocMany(cache, 6 * cache.sheafCapacity));
    const objects = allocMany(cache, 40 * cache.sheafCapacity);
    const before = cache.stats();
    arena.endTurn();
    const counts = moved(cache, () => {
      for (const p of objects) arena.kfreeNolock(p);
    });
    expect(counts.SHEAF_FLUSH).toBeUndefined();
    expect(counts.BARN_PUT).toBeGreaterThan(0);
    arena.endTurn();
    const after = cache.stats();
    const slow = after.FREE_SLOWPATH - before.FREE_SLOWPATH;
    expect(after.FREE_FASTPATH - before.FREE_FASTPATH + slow).toBe(objects.length);
    expect(slow).toBeGreaterThan(0);
    expectSound(arena);
  });
});

function allocNolock(arena: Arena, size: number, n: number): void {
  for (let i = 0; i < n; i++) expect(arena.kmallocNolock(size)).not.toBe(0);
}
