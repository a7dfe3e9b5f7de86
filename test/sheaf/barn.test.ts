/** The barn of a node: two stacks of whole sheaves, and what an exchange answers. */

import { describe, expect, it } from 'vitest';
import type { KmemCache } from '#src/cache/index.js';
import type { Arena } from '#src/index.js';
import {
  type BarnPtr,
  barnGetEmptySheaf,
  barnGetFullSheaf,
  barnOf,
  barnPutEmptySheaf,
  barnPutFullSheaf,
  barnReplaceEmptySheaf,
  barnReplaceFullSheaf,
  NO_EMPTY,
  type SheafPtr,
  TOO_MANY_FULL,
} from '#src/sheaf/index.js';
import { LockClass } from '#src/sync/index.js';
import {
  allocMany,
  barnAt,
  barnSizes,
  boot,
  expectSound,
  freeMany,
  inside,
  moved,
  secondCpu,
  sheafSizes,
  sheavesOf,
} from '../cache/support/arena.js';

interface Scene {
  arena: Arena;
  cache: KmemCache;
  barn: BarnPtr;
  sheaves: SheafPtr[];
}

function setup(): Scene {
  const arena = boot({ lockStat: 'contended' });
  const cache = arena.createCache('c', { size: 4096 });
  const caches = inside(arena);
  const sheaves = Array.from({ length: 14 }, () => caches.allocEmptySheaf(cache.desc, cache.sheafCapacity));
  return { arena, cache, barn: barnOf(arena.cpu, cache.desc, 0), sheaves };
}

const locksTaken = (arena: Arena) => arena.lockStat()[LockClass.Barn]!.acquisitions;

describe('the barn', () => {
  it('takes 10 of each, unless the arena says otherwise', () => {
    expect(boot().geometry).toMatchObject({ barnFull: 10, barnEmpty: 10 });
    expect(boot({ barnFull: 3, barnEmpty: 0 }).geometry).toMatchObject({ barnFull: 3, barnEmpty: 0 });
  });

  it('is two stacks: what came last goes first', () => {
    const { arena, cache, barn, sheaves } = setup();
    for (const sheaf of sheaves.slice(0, 3)) barnPutFullSheaf(arena.cpu, barn, sheaf);
    for (const sheaf of sheaves.slice(3, 6)) barnPutEmptySheaf(arena.cpu, barn, sheaf);
    expect(barnAt(arena, cache).full.map(({ at }) => at)).toEqual(sheaves.slice(0, 3).reverse());
    expect(barnAt(arena, cache).empty.map(({ at }) => at)).toEqual(sheaves.slice(3, 6).reverse());
    expect(barnGetFullSheaf(arena.cpu, barn)).toBe(sheaves[2]);
    expect(barnGetEmptySheaf(arena.cpu, barn)).toBe(sheaves[5]);
    expect(barnReplaceEmptySheaf(arena.cpu, barn, sheaves[2]!)).toBe(sheaves[1]);
    expect(barnReplaceFullSheaf(arena.cpu, barn, sheaves[1]!)).toBe(sheaves[2]);
    expect(barnAt(arena, cache)).toMatchObject({
      full: [{ at: sheaves[1] }, { at: sheaves[0] }],
      empty: [{ at: sheaves[4] }, { at: sheaves[3] }],
    });
  });

  it('answers without its lock when it has nothing', () => {
    const { arena, barn, sheaves } = setup();
    const before = locksTaken(arena);
    expect(barnReplaceEmptySheaf(arena.cpu, barn, sheaves[0]!)).toBe(0);
    expect(barnGetFullSheaf(arena.cpu, barn)).toBe(0);
    expect(barnGetEmptySheaf(arena.cpu, barn)).toBe(0);
    expect(barnReplaceFullSheaf(arena.cpu, barn, sheaves[0]!)).toBe(NO_EMPTY);
    expect(locksTaken(arena)).toBe(before);
  });

  it('refuses a full sheaf in exchange when it has 10, whether it has an empty one or not', () => {
    const { arena, cache, barn, sheaves } = setup();
    for (const sheaf of sheaves.slice(0, 9)) barnPutFullSheaf(arena.cpu, barn, sheaf);
    for (const sheaf of sheaves.slice(9, 11)) barnPutEmptySheaf(arena.cpu, barn, sheaf);
    expect(barnReplaceFullSheaf(arena.cpu, barn, sheaves[12]!)).toBe(sheaves[10]);
    expect(barnReplaceFullSheaf(arena.cpu, barn, sheaves[13]!)).toBe(TOO_MANY_FULL);
    expect(barnGetEmptySheaf(arena.cpu, barn)).toBe(sheaves[9]);
    expect(barnReplaceFullSheaf(arena.cpu, barn, sheaves[13]!)).toBe(TOO_MANY_FULL);
    expect(barnAt(arena, cache).full).toHaveLength(10);
  });

  it('takes any number that is put, not exchanged: that is for recovery', () => {
    const { arena, cache, barn, sheaves } = setup();
    for (const sheaf of sheaves) barnPutFullSheaf(arena.cpu, barn, sheaf);
    expect(barnSizes(arena, cache).full).toHaveLength(14);
    while (barnGetFullSheaf(arena.cpu, barn) !== 0);
    for (const sheaf of sheaves) barnPutEmptySheaf(arena.cpu, barn, sheaf);
    expect(barnSizes(arena, cache)).toEqual({ full: [], empty: 14 });
  });
});

describe('sheaves travel through the barn', () => {
  it('from one CPU to another, with the objects in them as they are', () => {
    const arena = boot();
    const cache = arena.createCache('c', { size: 4096 });
    const other = secondCpu(arena);
    const theirs = other.openCache('c');
    freeMany(cache, allocMany(cache, 12));
    arena.endTurn();
    // Main and spare are full, the third sheaf is in the barn.
    expect(sheafSizes(arena, cache)).toEqual({ main: 4, spare: 4 });
    const [{ at, objects }] = barnAt(arena, cache).full as [ReturnType<typeof sheavesOf>['main']];
    expect(objects).toHaveLength(4);
    const before = sheavesOf(arena, cache, 1).main.at;
    let got: number[] = [];
    expect(moved(theirs, () => (got = allocMany(theirs, 4)))).toEqual({ BARN_GET: 1, ALLOC_FASTPATH: 4 });
    expect(got).toEqual(objects.reverse());
    expect(sheavesOf(arena, cache, 1).main.at).toBe(at);
    expect(barnAt(arena, cache)).toMatchObject({ full: [], empty: [{ at: before, size: 0 }] });
    expectSound(arena);
  });

  it('within one node only', () => {
    const arena = boot({ cpus: 2, nodes: 2 });
    const cache = arena.createCache('c', { size: 4096 });
    const other = secondCpu(arena);
    const theirs = other.openCache('c');
    freeMany(cache, allocMany(cache, 12));
    arena.endTurn();
    expect(barnSizes(arena, cache, 0).full).toEqual([4]);
    expect(moved(theirs, () => theirs.alloc())).toMatchObject({ BARN_GET_FAIL: 1 });
    other.endTurn();
    expect(barnSizes(arena, cache, 0).full).toEqual([4]);
    expectSound(arena);
  });
});
