/** The arena's own limits of its barns, in place of the kernel's 10 and 10. */

import { describe, expect, it } from 'vitest';
import type { LockPolicy } from '#src/index.js';
import { barnOf, barnPutEmptySheaf, barnPutFullSheaf } from '#src/sheaf/index.js';
import {
  allocMany,
  barnSizes,
  boot,
  expectSound,
  freeMany,
  inside,
  moved,
  sheafSizes,
} from '../cache/support/arena.js';
import { slabAlloc } from '../slab/support.js';

const C = 4;

function setup(barnFull: number, barnEmpty = 10, lockPolicy: LockPolicy = 'turn') {
  const arena = boot({ barnFull, barnEmpty, lockPolicy, bytes: 16 << 20 });
  const cache = arena.createCache('c', { size: 4096 });
  expect(cache.sheafCapacity).toBe(C);
  const held = slabAlloc(arena, cache, (barnFull + 8) * C);
  const free = (n: number) => {
    // Where a flushed object finds its slab says nothing about the sheaves.
    const {
      FREE_ADD_PARTIAL: _,
      FREE_REMOVE_PARTIAL: __,
      FREE_SLAB: ___,
      ...rest
    } = moved(cache, () => freeMany(cache, held.splice(0, n)));
    return rest;
  };
  return { arena, cache, held, free };
}

describe.each(['turn', 'op'] as LockPolicy[])('a barn of the arena, policy %s', (policy) => {
  it.each([0, 1, 3, 25])('takes %i full sheaves, and then each further one is flushed', (limit) => {
    const { arena, cache, free } = setup(limit, 10, policy);
    expect(free(2 * C)).toEqual({ FREE_FASTPATH: 2 * C, SHEAF_ALLOC: 1 });
    for (let full = 1; full <= limit; full++) {
      expect(free(C)).toEqual({ FREE_FASTPATH: C, SHEAF_ALLOC: 1, BARN_PUT: 1 });
      expect(barnSizes(arena, cache)).toEqual({ full: new Array(full).fill(C), empty: 0 });
    }
    for (let round = 0; round < 3; round++) {
      expect(free(C)).toEqual({ FREE_FASTPATH: C, BARN_PUT_FAIL: 1, SHEAF_FLUSH: C });
      expect(barnSizes(arena, cache)).toEqual({ full: new Array(limit).fill(C), empty: 0 });
    }
    expect(sheafSizes(arena, cache)).toEqual({ main: C, spare: C });
    expectSound(arena);
    expect(moved(cache, () => allocMany(cache, (2 + limit) * C))).toEqual({
      ALLOC_FASTPATH: (2 + limit) * C,
      ...(limit > 0 ? { BARN_GET: limit } : {}),
    });
    expectSound(arena);
  });

  it('that takes none makes a bulk free go to the slabs', () => {
    const { arena, cache, held, free } = setup(0, 10, policy);
    free(2 * C);
    const list = Int32Array.from(held.splice(0, 5));
    const { FREE_ADD_PARTIAL: _, ...moves } = moved(cache, () => cache.freeBulk(list, 5));
    expect(moves).toEqual({ BARN_PUT_FAIL: 1, FREE_SLOWPATH: 5 });
    expect(barnSizes(arena, cache)).toEqual({ full: [], empty: 0 });
    expectSound(arena);
  });
});

describe('the limit of empty sheaves', () => {
  it('does not touch exchanges and sheaves put back, as in the kernel: those are bounded by the full ones', () => {
    const { arena, cache, held, free } = setup(3, 0);
    free(5 * C);
    held.push(...allocMany(cache, 5 * C));
    expect(barnSizes(arena, cache)).toEqual({ full: [], empty: 3 });
    expectSound(arena);
    expect(free(5 * C)).toEqual({ FREE_FASTPATH: 5 * C, BARN_PUT: 3 });
    expectSound(arena);
  });
});

describe('validate', () => {
  const sheafOf = (scene: ReturnType<typeof setup>, objects: number[]) => {
    const { arena, cache } = scene;
    const sheaf = inside(arena).allocEmptySheaf(cache.desc, C);
    arena.i32.set([objects.length, 0, ...objects], sheaf + 2);
    for (const p of objects) arena.u8[arena.geometry.shadow + (p >> 3)] = 0;
    return sheaf;
  };

  it.each([0, 2, 10])('knows the limit of full sheaves: %i, and one more for each CPU', (limit) => {
    const scene = setup(limit);
    const { arena, cache, held } = scene;
    const barn = barnOf(arena.cpu, cache.desc, 0);
    for (let i = 0; i < limit + 2; i++) barnPutFullSheaf(arena.cpu, barn, sheafOf(scene, held.splice(0, 1)));
    arena.endTurn();
    expectSound(arena);
    barnPutFullSheaf(arena.cpu, barn, sheafOf(scene, held.splice(0, 1)));
    arena.endTurn();
    expect(arena.validate()).toEqual([
      { invariant: 'I6', where: 'c', what: `node 0: ${limit + 3} full sheaves` },
    ]);
  });

  it.each([
    [0, 0],
    [0, 3],
    [4, 1],
  ])('knows both limits for the empty ones: %i full, %i empty', (barnFull, barnEmpty) => {
    const scene = setup(barnFull, barnEmpty);
    const { arena, cache } = scene;
    const barn = barnOf(arena.cpu, cache.desc, 0);
    const most = barnFull + barnEmpty + 2;
    for (let i = 0; i < most; i++) barnPutEmptySheaf(arena.cpu, barn, sheafOf(scene, []));
    arena.endTurn();
    expectSound(arena);
    barnPutEmptySheaf(arena.cpu, barn, sheafOf(scene, []));
    arena.endTurn();
    expect(arena.validate()).toEqual([
      { invariant: 'I6', where: 'c', what: `node 0: ${most + 1} empty sheaves` },
    ]);
  });
});

describe('the options', () => {
  it.each([
    ['barnFull', -1],
    ['barnFull', 1001],
    ['barnEmpty', 0.5],
  ])('refuse %s %s', (name, value) => {
    expect(() => boot({ [name]: value })).toThrow(
      `${name} is ${value}; it must be an integer from 0 to 1000`,
    );
  });
});
