/** A full main: the decision order of the kernel's __pcs_replace_full_main. */

import { describe, expect, it } from 'vitest';
import type { KmemCache } from '#src/cache/index.js';
import { Pcs, pcsOf } from '#src/cpu/index.js';
import type { Arena, LockPolicy } from '#src/index.js';
import {
  barnGetEmptySheaf,
  barnOf,
  barnPutEmptySheaf,
  PCS_BATCH_MAX,
  type SheafPtr,
} from '#src/sheaf/index.js';
import {
  allocMany,
  barnSizes,
  boot,
  expectSound,
  freeMany,
  inside,
  moved,
  sheafSizes,
  sheavesOf,
} from '../cache/support/arena.js';
import { slabAlloc } from '../slab/support.js';

const POLICIES: LockPolicy[] = ['turn', 'op'];
const C = 4;

interface Scene {
  arena: Arena;
  cache: KmemCache;
  /** Objects from the slabs: the sheaves do not know them. */
  held: number[];
  pcs: number;
  free: (n: number) => ReturnType<typeof moved>;
}

/** `cached` objects have gone through the sheaves; before the first, main is empty and there is no spare. */
function setup(policy: LockPolicy, cached: number, size = 4096): Scene {
  const arena = boot({ lockPolicy: policy, bytes: 16 << 20 });
  const cache = arena.createCache('c', { size });
  const held = slabAlloc(arena, cache, 20 * cache.sheafCapacity);
  freeMany(cache, held.splice(0, cached));
  arena.endTurn();
  const free = (n: number) => moved(cache, () => freeMany(cache, held.splice(0, n)));
  return { arena, cache, held, pcs: pcsOf(arena.geometry, 0, cache.desc.slot), free };
}

/** A number of slabs became partial, or empty, on the way: of no interest here. */
const NOT_LISTS = (moves: ReturnType<typeof moved>) => {
  const { FREE_ADD_PARTIAL: _, FREE_REMOVE_PARTIAL: __, FREE_SLAB: ___, ...rest } = moves;
  return rest;
};

const refuseSheaves = (arena: Arena) => {
  inside(arena).allocEmptySheaf = () => 0 as SheafPtr;
};

describe.each(POLICIES)('a full main, policy %s', (policy) => {
  it('1: without a spare, an empty sheaf of the barn becomes main and the full one the spare', () => {
    const { arena, cache, free } = setup(policy, C);
    const caches = inside(arena);
    const empty = caches.allocEmptySheaf(cache.desc, C);
    barnPutEmptySheaf(arena.cpu, barnOf(arena.cpu, cache.desc, 0), empty);
    expect(free(1)).toEqual({ FREE_FASTPATH: 1 });
    expect(sheafSizes(arena, cache)).toEqual({ main: 1, spare: C });
    expect(sheavesOf(arena, cache).main.at).toBe(empty);
    expectSound(arena);
  });

  it('2: without a spare and an empty barn, a new sheaf', () => {
    const { arena, cache, free } = setup(policy, C);
    expect(sheafSizes(arena, cache)).toEqual({ main: C, spare: null });
    expect(free(1)).toEqual({ SHEAF_ALLOC: 1, FREE_FASTPATH: 1 });
    expect(sheafSizes(arena, cache)).toEqual({ main: 1, spare: C });
    expectSound(arena);
  });

  it('3: a spare with room is swapped in, which nothing counts', () => {
    const { arena, cache, free } = setup(policy, 2 * C);
    allocMany(cache, C + 1);
    free(1);
    expect(sheafSizes(arena, cache)).toEqual({ main: C, spare: 0 });
    expect(free(1)).toEqual({ FREE_FASTPATH: 1 });
    expect(sheafSizes(arena, cache)).toEqual({ main: 1, spare: C });
    expectSound(arena);
  });

  it('4: a full spare: main is exchanged for an empty sheaf of the barn', () => {
    const { arena, cache, free } = setup(policy, 2 * C);
    barnPutEmptySheaf(
      arena.cpu,
      barnOf(arena.cpu, cache.desc, 0),
      inside(arena).allocEmptySheaf(cache.desc, C),
    );
    const { main, spare } = sheavesOf(arena, cache);
    expect(free(1)).toEqual({ BARN_PUT: 1, FREE_FASTPATH: 1 });
    expect(sheavesOf(arena, cache).spare).toEqual(spare);
    expect(barnSizes(arena, cache)).toEqual({ full: [C], empty: 0 });
    expect(sheavesOf(arena, cache).main.at).not.toBe(main.at);
    expectSound(arena);
  });

  it('5: no empty sheaf in the barn: a new one, and main goes to the barn', () => {
    const { arena, cache, free } = setup(policy, 2 * C);
    expect(free(1)).toEqual({ SHEAF_ALLOC: 1, BARN_PUT: 1, FREE_FASTPATH: 1 });
    expect(sheafSizes(arena, cache)).toEqual({ main: 1, spare: C });
    expect(barnSizes(arena, cache)).toEqual({ full: [C], empty: 0 });
    expectSound(arena);
  });

  it('6: a barn with 10 full sheaves: the spare is flushed to the slabs and becomes main', () => {
    const { arena, cache, free } = setup(policy, 12 * C);
    expect(barnSizes(arena, cache)).toEqual({ full: new Array(10).fill(C), empty: 0 });
    const { main, spare } = sheavesOf(arena, cache);
    expect(NOT_LISTS(free(1))).toEqual({ BARN_PUT_FAIL: 1, SHEAF_FLUSH: C, FREE_FASTPATH: 1 });
    expect(sheavesOf(arena, cache)).toMatchObject({
      main: { at: spare!.at, size: 1 },
      spare: { at: main.at, size: C },
    });
    expect(barnSizes(arena, cache).full).toHaveLength(10);
    expectSound(arena);
  });

  it('6b: so too when the barn has an empty sheaf: the limit is looked at first', () => {
    const { arena, cache, free } = setup(policy, 12 * C);
    const barn = barnOf(arena.cpu, cache.desc, 0);
    barnPutEmptySheaf(arena.cpu, barn, inside(arena).allocEmptySheaf(cache.desc, C));
    expect(NOT_LISTS(free(1))).toEqual({ BARN_PUT_FAIL: 1, SHEAF_FLUSH: C, FREE_FASTPATH: 1 });
    expect(barnSizes(arena, cache)).toEqual({ full: new Array(10).fill(C), empty: 1 });
    expect(barnGetEmptySheaf(arena.cpu, barn)).not.toBe(0);
  });

  it('7: no memory for a sheaf: main is flushed', () => {
    const { arena, cache, free } = setup(policy, 2 * C);
    refuseSheaves(arena);
    expect(NOT_LISTS(free(1))).toEqual({ BARN_PUT_FAIL: 1, SHEAF_FLUSH: C, FREE_FASTPATH: 1 });
    expect(sheafSizes(arena, cache)).toEqual({ main: 1, spare: C });
    expectSound(arena);
  });

  it('7b: no put failed when there was no spare to begin with', () => {
    const { arena, cache, free } = setup(policy, C);
    refuseSheaves(arena);
    expect(NOT_LISTS(free(1))).toEqual({ SHEAF_FLUSH: C, FREE_FASTPATH: 1 });
    expect(sheafSizes(arena, cache)).toEqual({ main: 1, spare: null });
    expectSound(arena);
  });

  it('8: main is flushed 32 objects at a time, each batch freed without the lock', () => {
    const { arena, cache, pcs, free } = setup(policy, 60, 192);
    expect([PCS_BATCH_MAX, cache.sheafCapacity]).toEqual([32, 60]);
    refuseSheaves(arena);
    const { slabs } = inside(arena);
    const batches: Array<{ n: number; lock: number }> = [];
    const original = slabs.freeObjects;
    slabs.freeObjects = (s, list, at, n) => {
      batches.push({ n, lock: arena.i32[pcs + Pcs.lock]! });
      original.call(slabs, s, list, at, n);
    };
    expect(NOT_LISTS(free(1))).toEqual({ SHEAF_FLUSH: 60, FREE_FASTPATH: 1 });
    expect(batches).toEqual([
      { n: 32, lock: 0 },
      { n: 28, lock: 0 },
    ]);
    expect(sheafSizes(arena, cache).main).toBe(1);
    expectSound(arena);
  });

  it('9: whoever wants our lock meanwhile gets it: the empty sheaf goes to the barn, the object to its slab', () => {
    const { arena, cache, pcs, free } = setup(policy, 2 * C);
    const caches = inside(arena);
    const original = caches.allocEmptySheaf;
    caches.allocEmptySheaf = (s, capacity) => {
      arena.i32[pcs + Pcs.request] = 0x99;
      return original.call(caches, s, capacity);
    };
    expect(NOT_LISTS(free(1))).toEqual({ SHEAF_ALLOC: 1, FREE_SLOWPATH: 1 });
    arena.i32[pcs + Pcs.request] = 0;
    expect(sheafSizes(arena, cache)).toEqual({ main: C, spare: C });
    expect(barnSizes(arena, cache)).toEqual({ full: [], empty: 1 });
    expectSound(arena);
  });

  it('10: a flush that nobody lets begin: the object goes to its slab', () => {
    const { arena, cache, pcs, free } = setup(policy, C);
    const caches = inside(arena);
    caches.allocEmptySheaf = () => {
      arena.i32[pcs + Pcs.request] = 0x99;
      return 0 as SheafPtr;
    };
    expect(NOT_LISTS(free(1))).toEqual({ FREE_SLOWPATH: 1 });
    arena.i32[pcs + Pcs.request] = 0;
    expect(sheafSizes(arena, cache)).toEqual({ main: C, spare: null });
    expectSound(arena);
  });
});

/** While a sheaf is being allocated the lock is free: the same CPU uses its sheaves in between, as an interrupt may. */
describe('an empty sheaf that comes home', () => {
  const scene = (cached: number, between: (scene: Scene) => void) => {
    const all = setup('op', cached);
    const caches = inside(all.arena);
    const original = caches.allocEmptySheaf;
    caches.allocEmptySheaf = (s, capacity) => {
      caches.allocEmptySheaf = original;
      const sheaf = original.call(caches, s, capacity);
      between(all);
      return sheaf;
    };
    const moves = NOT_LISTS(all.free(1));
    expectSound(all.arena);
    return { ...all, moves };
  };

  it('becomes main, and main the spare, when there is none', () => {
    const { arena, cache } = scene(C, () => {});
    expect(sheafSizes(arena, cache)).toEqual({ main: 1, spare: C });
  });

  it('goes to the barn when main has room again', () => {
    const { arena, cache } = scene(2 * C, ({ cache }) => cache.alloc());
    expect(sheafSizes(arena, cache)).toEqual({ main: C, spare: C });
    expect(barnSizes(arena, cache)).toEqual({ full: [], empty: 1 });
  });

  it('goes to the barn when the spare has room, which becomes main', () => {
    const { arena, cache } = scene(2 * C, ({ cache, held }) => {
      // Main is emptied and swapped, the other sheaf emptied by one and filled: full main, spare with room.
      const taken = allocMany(cache, C + 1);
      cache.free(taken.pop()!);
      held.push(...taken);
    });
    expect(sheafSizes(arena, cache)).toEqual({ main: 1, spare: C });
    expect(barnSizes(arena, cache)).toEqual({ full: [], empty: 1 });
  });

  it('becomes main when all is full, and the full main goes to the barn', () => {
    const { arena, cache, moves } = scene(2 * C, () => {});
    expect(moves).toEqual({ SHEAF_ALLOC: 1, BARN_PUT: 1, FREE_FASTPATH: 1 });
    expect(barnSizes(arena, cache)).toEqual({ full: [C], empty: 0 });
    expect(sheafSizes(arena, cache)).toEqual({ main: 1, spare: C });
  });
});
