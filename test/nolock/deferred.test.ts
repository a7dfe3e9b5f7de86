/** Frees that were put off: who makes up for them, what counts, and that none is lost. */

import { describe, expect, it } from 'vitest';
import { ThreadRecord, threadRecordOf } from '#src/cpu/index.js';
import { validateArena } from '#src/debug/index.js';
import { type Arena, LockError, type LockPolicy, SlabBugError } from '#src/index.js';
import { zoneLock, zoneOf } from '#src/page/index.js';
import { listLock, nodeOf } from '#src/slab/index.js';
import { LockClass, type LockPtr, OWNER_DIED, storeRelease } from '#src/sync/index.js';
import {
  boot,
  expectRefused,
  expectSound,
  footprint,
  inside,
  moved,
  secondCpu,
} from '../cache/support/arena.js';

const SIZE = 8192;

/** Frees of full slabs past the sheaves, which another CPU keeps locked: each must be deferred. */
function deferSome(arena: Arena, other: Arena, n = 3): number[] {
  const cache = arena.openCache('kmalloc-8k');
  const objects = Array.from({ length: 8 * cache.objsPerSlab }, () => arena.kmalloc(SIZE));
  arena.endTurn();
  const picked = Array.from({ length: n }, (_, i) => objects[4 * i]!);
  const at = pcsLock(arena);
  storeRelease(arena.i32, at, other.cpu.locks.owner);
  for (const p of picked) arena.kfreeNolock(p);
  storeRelease(arena.i32, at, 0);
  return objects.filter((p) => !picked.includes(p));
}

const pcsLock = (arena: Arena): number => (arena.openCache('kmalloc-8k') as unknown as { pcs: number }).pcs;

/** The deferred list of a CPU. */
function deferred(arena: Arena, cpu = 0): number[] {
  const { offset } = arena.openCache('kmalloc-8k').desc;
  const found: number[] = [];
  let p = arena.i32[threadRecordOf(arena.geometry, cpu) + ThreadRecord.deferred]!;
  for (; p !== 0; p = arena.i32[(p + offset) >> 2]!) found.push(p);
  return found;
}

describe.each(['turn', 'op'] as LockPolicy[])('deferred frees, policy %s', (lockPolicy) => {
  const setup = () => {
    const arena = boot({ lockPolicy, cpus: 3 });
    const other = secondCpu(arena);
    const before = footprint(arena);
    const rest = deferSome(arena, other);
    return { arena, other, before, rest, cache: arena.openCache('kmalloc-8k') };
  };
  const settle = ({ arena, before, rest }: Pick<ReturnType<typeof setup>, 'arena' | 'before' | 'rest'>) => {
    for (const p of rest) arena.kfree(p);
    expectSound(arena);
    expect(footprint(arena)).toEqual(before);
    expectSound(arena);
  };

  it('count when they are made up for, at the end of the turn', () => {
    const all = setup();
    const { arena, cache } = all;
    expect(deferred(arena)).toHaveLength(3);
    expect(moved(cache, () => arena.endTurn())).toMatchObject({ FREE_SLOWPATH: 3 });
    expect(deferred(arena)).toEqual([]);
    settle(all);
  });

  it('end with the microtask that ends the turn', async () => {
    const all = setup();
    expect(deferred(all.arena)).toHaveLength(3);
    await Promise.resolve();
    expect(deferred(all.arena)).toEqual([]);
    settle(all);
  });

  it('end with the next slow path of the thread', () => {
    const all = setup();
    all.arena.kfree(all.arena.kmalloc(512));
    expect(deferred(all.arena)).toEqual([]);
    settle(all);
  });

  it('end when another CPU shrinks or destroys a cache', () => {
    for (const end of ['shrink', 'destroy'] as const) {
      const all = setup();
      const cache = all.other.createCache('c', { size: 64 });
      // Making it was an operation of the other CPU alone.
      expect(deferred(all.arena)).toHaveLength(3);
      cache[end]();
      expect(deferred(all.arena)).toEqual([]);
      if (end === 'shrink') cache.destroy();
      settle(all);
    }
  });

  it('end when the CPU goes offline', () => {
    const all = setup();
    all.arena.offline();
    all.arena.online({ cpu: 2 });
    expect(deferred(all.arena)).toEqual([]);
    settle(all);
  });

  it.each(['deferred', 'draining'] as const)('of a dead CPU are found by its reaper: %s', (where) => {
    const { arena, other, rest, before } = setup();
    const record = threadRecordOf(arena.geometry, 0);
    if (where === 'draining') {
      arena.i32[record + ThreadRecord.draining] = arena.i32[record + ThreadRecord.deferred]!;
      arena.i32[record + ThreadRecord.deferred] = 0;
    }
    expect(other.cpuDead(0)).toMatchObject({ notes: [] });
    expect(arena.i32[record + ThreadRecord.deferred]).toBe(0);
    expect(arena.i32[record + ThreadRecord.draining]).toBe(0);
    settle({ arena: other, rest, before });
  });

  it('are free objects: found by validate, refused by a second free', () => {
    const all = setup();
    const { arena } = all;
    const [p] = deferred(arena);
    expect(validateArena(inside(all.other))).toEqual([]);
    expect(() => arena.kfreeNolock(p!)).toThrow(SlabBugError);
    expect(() => arena.kfreeNolock(p!)).toThrow(/already free/);
    const { offset } = arena.openCache('kmalloc-8k').desc;
    const link = arena.i32[(p! + offset) >> 2]!;
    arena.i32[(p! + offset) >> 2] = p!;
    const kinds = validateArena(inside(all.other)).map(({ invariant }) => invariant);
    expect(kinds).toContain('I10');
    arena.i32[(p! + offset) >> 2] = link;
    settle(all);
  });

  it('stay on the list when list_lock died, and come back with it', () => {
    const all = setup();
    const { arena, cache, other } = all;
    const lock = listLock(nodeOf(arena.i32, cache.desc, 0));
    storeRelease(arena.i32, lock, other.cpu.locks.owner | OWNER_DIED);
    const listed = deferred(arena);
    expect(() => arena.endTurn()).not.toThrow();
    expect(() => inside(arena).nolock.drainAll()).toThrow(LockError);
    expect(arena.cpu.depth).toBe(0);
    storeRelease(arena.i32, lock, 0);
    arena.endTurn();
    expect(deferred(arena)).toEqual([]);
    expect(cache.stats().FREE_SLOWPATH).toBeGreaterThanOrEqual(listed.length);
    settle(all);
  });

  it('are pages as well, when the zone is taken', () => {
    const arena = boot({ lockPolicy });
    const other = secondCpu(arena);
    const before = footprint(arena);
    const large = arena.kmalloc(50_000);
    const lock = zoneLock(zoneOf(arena.geometry, 0)) as LockPtr;
    other.cpu.locks.lock(lock, LockClass.Zone);
    arena.kfreeNolock(large);
    other.cpu.locks.unlock(lock, LockClass.Zone);
    expect(arena.i32[arena.cpu.record + ThreadRecord.deferred]).toBe(large);
    expect(validateArena(inside(other))).toEqual([]);
    expect(() => arena.kfree(large)).toThrow(/freed already/);
    expect(() => arena.freePages(large, 4)).toThrow(SlabBugError);
    arena.endTurn();
    expectRefused(arena, () => arena.kfree(large), SlabBugError, /BUG/);
    expect(footprint(arena)).toEqual(before);
  });
});
