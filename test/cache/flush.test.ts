/** Getting at the sheaves of every CPU: shrink, destroy, going offline. */

import { describe, expect, it } from 'vitest';
import { Pcs, pcsOf } from '#src/cpu/index.js';
import { CpuError, type LockPolicy } from '#src/index.js';
import {
  allocMany,
  barnSizes,
  boot,
  expectSound,
  freeMany,
  moved,
  nodeCounts,
  secondCpu,
  sheafSizes,
} from './support/arena.js';

const POLICIES: LockPolicy[] = ['turn', 'op'];
const C = 4;

describe.each(POLICIES)('shrink, policy %s', (policy) => {
  const setup = (nodes = 1) => {
    const arena = boot({ cpus: 3, nodes, lockPolicy: policy, bytes: 16 << 20 });
    const cache = arena.createCache('c', { size: 4096 });
    const other = secondCpu(arena, 2);
    const theirs = other.openCache('c');
    return { arena, cache, other, theirs };
  };

  it.each([1, 2])('empties the sheaves of every CPU, the barns and the slabs of %i nodes', (nodes) => {
    const { arena, cache, other, theirs } = setup(nodes);
    const used = arena.meminfo().usedPages;
    freeMany(cache, allocMany(cache, 10 * C));
    freeMany(theirs, allocMany(theirs, 10 * C));
    other.endTurn();
    // A CPU that was online, and left what it could not flush behind: its slot has no thread now.
    const third = secondCpu(arena, 1);
    const gone = third.openCache('c');
    freeMany(gone, allocMany(gone, 3));
    third.endTurn();
    third.offline();
    let report = {};
    const moves = moved(cache, () => (report = cache.shrink()));
    expect(report).toEqual({ slabs: 0, skippedCpus: [] });
    for (const cpu of [0, 1, 2]) expect(sheafSizes(arena, cache, cpu)).toEqual({ main: 0, spare: null });
    for (let node = 0; node < nodes; node++) {
      expect(barnSizes(arena, cache, node)).toEqual({ full: [], empty: 0 });
      expect(nodeCounts(arena, cache, node)).toEqual({ partial: 0, slabs: 0, objects: 0 });
    }
    expect(moves.SHEAF_FLUSH).toBeGreaterThanOrEqual(4 * C);
    expect(moves.SHEAF_FREE).toBeGreaterThanOrEqual(2);
    arena.openCache('kmalloc-32').shrink();
    expect(arena.meminfo().usedPages).toBeLessThanOrEqual(used + 2);
    expectSound(arena);
  });

  it('keeps the objects in use, and their slabs', () => {
    const { arena, cache, other, theirs } = setup();
    const held = allocMany(cache, 9);
    freeMany(theirs, allocMany(theirs, 30));
    other.endTurn();
    expect(cache.shrink()).toEqual({ slabs: 2, skippedCpus: [] });
    expectSound(arena);
    freeMany(theirs, held);
    other.endTurn();
    expect(cache.shrink()).toEqual({ slabs: 0, skippedCpus: [] });
    expectSound(arena);
  });

  it('serves any cache, those that sheaves are made of too', () => {
    const { arena } = setup();
    freeMany(arena.openCache('kmalloc-128'), allocMany(arena.openCache('kmalloc-128'), 3000));
    for (const name of arena.cacheNames()) {
      expect(arena.openCache(name).shrink().skippedCpus, name).toEqual([]);
      expectSound(arena);
    }
  });
});

describe('a CPU that is blocked within its turn', () => {
  const setup = () => {
    const arena = boot({ cpus: 2, bytes: 16 << 20 });
    const cache = arena.createCache('c', { size: 4096 });
    const other = secondCpu(arena);
    const theirs = other.openCache('c');
    const held = allocMany(theirs, 2);
    // Its turn lasts as long as ours, since it is on this thread: it cannot answer.
    expect(arena.i32[pcsOf(arena.geometry, 1, cache.desc.slot) + Pcs.lock]).not.toBe(0);
    return { arena, cache, other, theirs, held };
  };

  it('is skipped by shrink, and named', () => {
    const { arena, cache, other, theirs, held } = setup();
    const own = allocMany(cache, 1);
    expect(cache.shrink()).toMatchObject({ skippedCpus: [1] });
    freeMany(cache, own);
    other.endTurn();
    expectSound(arena);
    expect(sheafSizes(arena, cache, 1).main).toBe(2);
    freeMany(theirs, held);
    other.endTurn();
    expect(cache.shrink()).toEqual({ slabs: 0, skippedCpus: [] });
    expectSound(arena);
  });

  it('makes destroy fail with everything as it was, and succeed later', () => {
    const { arena, cache, other, theirs, held } = setup();
    freeMany(cache, allocMany(cache, 1));
    expect(() => cache.destroy()).toThrow(CpuError);
    expect(() => cache.destroy()).toThrow(
      /CPU 1 did not give up its sheaves of c: .* call arena\.endTurn\(\)/,
    );
    const p = cache.alloc();
    expect(p).not.toBe(0);
    cache.free(p);
    freeMany(theirs, held);
    other.endTurn();
    expectSound(arena);
    expect(cache.destroy()).toEqual({ cache: 'c', leaked: 0, objects: [] });
    expectSound(arena);
  });

  it('polls in its next allocation, once the wish is known', () => {
    const { arena, cache, other, theirs } = setup();
    const pcs = pcsOf(arena.geometry, 1, cache.desc.slot);
    arena.i32[pcs + Pcs.request] = arena.cpu.locks.owner;
    arena.cpu.requestThread(1);
    expect(moved(theirs, () => undefined)).toEqual({});
    allocMany(theirs, 1);
    expect(arena.i32[pcs + Pcs.lock]).toBe(0);
    arena.i32[pcs + Pcs.request] = 0;
    allocMany(theirs, 1);
    expect(arena.i32[pcs + Pcs.lock]).not.toBe(0);
    other.endTurn();
    expectSound(arena);
  });
});

describe.each(POLICIES)('going offline, policy %s', (policy) => {
  it('flushes the sheaves of every cache, kmalloc ones last', () => {
    const arena = boot({ cpus: 2, lockPolicy: policy });
    const other = secondCpu(arena);
    const names = ['a', 'b', 'c'];
    for (const name of names) arena.createCache(name, { size: 64 });
    for (const name of names) freeMany(other.openCache(name), allocMany(other.openCache(name), 200));
    for (const size of [8, 128, 256, 8192]) other.kfree(other.kmalloc(size));
    other.offline();
    for (const name of arena.cacheNames()) {
      const cache = arena.openCache(name);
      if (cache.sheafCapacity === 0) continue;
      expect(sheafSizes(arena, cache, 1), name).toEqual({ main: 0, spare: null });
    }
    expectSound(arena);
  });

  it('makes the slot free, and what the thread holds a thing of the past', () => {
    const arena = boot({ cpus: 2, lockPolicy: policy });
    const other = secondCpu(arena);
    arena.createCache('c', { size: 64 });
    const theirs = other.openCache('c');
    const p = theirs.alloc();
    other.offline();
    expect(arena.onlineCpus).toEqual([0]);
    const left = /this thread has left CPU 1: call arena\.online\(\) again/;
    expect(() => theirs.alloc()).toThrow(left);
    expect(() => theirs.free(p)).toThrow(left);
    expect(() => theirs.allocBulk(new Int32Array(4), 4)).toThrow(left);
    expect(() => theirs.freeBulk(Int32Array.of(p), 1)).toThrow(left);
    expect(() => theirs.shrink()).toThrow(left);
    expect(() => theirs.destroy()).toThrow(left);
    expect(() => other.kmalloc(64)).toThrow(
      /this thread is no CPU of the arena: call arena\.online\(\) first/,
    );
    const again = other.online();
    expect(again.id).toBe(1);
    expect(() => theirs.alloc(), 'a handle of the former life').toThrow(left);
    other.openCache('c').free(p);
    other.endTurn();
    expectSound(arena);
  });
});
