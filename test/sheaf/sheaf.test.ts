/** What a CPU's two sheaves do, seen from outside: last in first out, swapped, never touched without the lock. */

import fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import type { KmemCache } from '#src/cache/index.js';
import { Pcs, pcsOf } from '#src/cpu/index.js';
import type { Arena, LockPolicy } from '#src/index.js';
import { Barn, COUNT_SHIFT, ONE_ALLOC, Sheaf, SIZE_MASK } from '#src/sheaf/index.js';
import {
  allocMany,
  barnSizes,
  boot,
  expectSound,
  freeMany,
  moved,
  secondCpu,
  sheafSizes,
  sheavesOf,
} from '../cache/support/arena.js';

const POLICIES: LockPolicy[] = ['turn', 'op'];
const C = 60;

const setup = (lockPolicy: LockPolicy): { arena: Arena; cache: KmemCache; pcs: number } => {
  const arena = boot({ lockPolicy });
  const cache = arena.createCache('c', { size: 192 });
  expect(cache.sheafCapacity).toBe(C);
  return { arena, cache, pcs: pcsOf(arena.geometry, 0, cache.desc.slot) };
};

describe.each(POLICIES)('the sheaves of a CPU, policy %s', (policy) => {
  it('are an empty main and no spare at first', () => {
    const { arena, cache } = setup(policy);
    expect(sheafSizes(arena, cache, 0)).toEqual({ main: 0, spare: null });
    expect(sheafSizes(arena, cache, 1)).toEqual({ main: 0, spare: null });
  });

  it('give back the object that was freed last', () => {
    const { arena, cache } = setup(policy);
    const held = allocMany(cache, 5);
    freeMany(cache, held);
    expect(allocMany(cache, 5)).toEqual(held.reverse());
    expectSound(arena);
  });

  it('swap when main is empty and the spare is not, and when main is full and the spare is not', () => {
    const { arena, cache } = setup(policy);
    const held = allocMany(cache, 2 * C);
    arena.endTurn();
    expect(sheafSizes(arena, cache)).toEqual({ main: 0, spare: 0 });
    const { main, spare } = sheavesOf(arena, cache);
    expect(moved(cache, () => freeMany(cache, held.splice(0, C)))).toEqual({ FREE_FASTPATH: C });
    expect(sheafSizes(arena, cache)).toEqual({ main: C, spare: 0 });
    expect(moved(cache, () => cache.free(held.pop()!))).toEqual({ FREE_FASTPATH: 1 });
    expect(sheafSizes(arena, cache)).toEqual({ main: 1, spare: C });
    expect(sheavesOf(arena, cache)).toMatchObject({ main: { at: spare!.at }, spare: { at: main.at } });
    expect(moved(cache, () => held.push(...allocMany(cache, 2)))).toEqual({ ALLOC_FASTPATH: 2 });
    expect(sheafSizes(arena, cache)).toEqual({ main: C - 1, spare: 0 });
    expect(sheavesOf(arena, cache)).toMatchObject({ main: { at: main.at } });
    expectSound(arena);
  });

  it('are not touched while another CPU has their lock, or waits for it', () => {
    const { arena, cache, pcs } = setup(policy);
    const held = allocMany(cache, 2);
    arena.endTurn();
    const before = sheavesOf(arena, cache);
    for (const word of [Pcs.lock, Pcs.request]) {
      arena.i32[pcs + word] = 0x77;
      expect(moved(cache, () => held.push(cache.alloc()))).toMatchObject({ ALLOC_SLOWPATH: 1 });
      expect(moved(cache, () => cache.free(held.pop()!))).toMatchObject({ FREE_SLOWPATH: 1 });
      expect(sheavesOf(arena, cache)).toEqual(before);
      arena.i32[pcs + word] = 0;
    }
    expect(moved(cache, () => cache.free(held.pop()!))).toEqual({ FREE_FASTPATH: 1 });
    expectSound(arena);
  });

  it('belong to one CPU: another one has its own', () => {
    const { arena, cache } = setup(policy);
    const other = secondCpu(arena);
    const theirs = other.openCache('c');
    const [p, q] = [cache.alloc(), theirs.alloc()];
    expect(p).not.toBe(q);
    theirs.free(p);
    cache.free(q);
    arena.endTurn();
    other.endTurn();
    expect([sheafSizes(arena, cache, 0).main, sheafSizes(arena, cache, 1).main]).toEqual([C, C]);
    expect(cache.alloc()).toBe(q);
    expect(theirs.alloc()).toBe(p);
    other.endTurn();
    expectSound(arena);
  });

  it('agree with two stacks and a barn in a model, after any sequence', () => {
    const { arena, cache } = setup(policy);
    const steps = fc.array(
      fc.record({
        alloc: fc.boolean(),
        n: fc.oneof(fc.integer({ min: 1, max: 8 }), fc.integer({ min: 50, max: 130 })),
      }),
      { maxLength: 25 },
    );
    fc.assert(
      fc.property(steps, (list) => {
        const held: number[] = [];
        for (const { alloc, n } of list) {
          if (alloc) held.push(...allocMany(cache, n));
          else freeMany(cache, held.splice(-n));
          expect(new Set(held).size).toBe(held.length);
        }
        arena.endTurn();
        const { main, spare } = sheafSizes(arena, cache);
        const { full, empty } = barnSizes(arena, cache);
        expect(main).toBeLessThanOrEqual(C);
        expect(full.every((size) => size === C)).toBe(true);
        expect(full.length).toBeLessThanOrEqual(10);
        expect(spare === null || spare === 0 || spare === C).toBe(true);
        expect(empty).toBeLessThanOrEqual(12);
        freeMany(cache, held);
        expectSound(arena);
      }),
      { numRuns: 30 },
    );
  });
});

describe('under the turn policy', () => {
  it('the size word counts allocations until the fold, and overflows into a fold of its own', () => {
    const { arena, cache, pcs } = setup('turn');
    const p = cache.alloc();
    cache.free(p);
    const at = arena.i32[pcs + Pcs.main]! + Sheaf.size;
    const count = () => arena.i32[at]! >>> COUNT_SHIFT;
    const size = () => arena.i32[at]! & SIZE_MASK;
    expect(ONE_ALLOC).toBe(0xffff);
    const start = count();
    for (let i = 0; i < 10; i++) cache.free(cache.alloc());
    expect(count() - start).toBe(10);
    expect(size()).toBe(C);
    let highest = 0;
    for (let i = 0; i < 40_000; i++) {
      cache.free(cache.alloc());
      highest = Math.max(highest, count());
    }
    expect(highest).toBe(0x7fff);
    expect(count()).toBeLessThan(0x7fff);
    expect(cache.stats()).toMatchObject({ ALLOC_FASTPATH: 40_011, FREE_FASTPATH: 40_011, ALLOC_SLOWPATH: 0 });
    expect(count()).toBe(0);
    expectSound(arena);
  });

  it('bulk allocations count in the same word, and more than it holds', () => {
    const { arena, cache } = setup('turn');
    const out = new Int32Array(50);
    cache.free(cache.alloc());
    for (let i = 0; i < 3000; i++) {
      expect(cache.allocBulk(out, 50)).toBe(true);
      cache.freeBulk(out, 50);
    }
    expect(cache.stats()).toMatchObject({ ALLOC_FASTPATH: 150_001, FREE_FASTPATH: 150_001 });
    expectSound(arena);
  });

  it('a cache without sheaves works on slabs alone and never writes the bootstrap sheaf', () => {
    const arena = boot();
    const cache = arena.openCache('kmem_cache_node');
    expect(cache.sheafCapacity).toBe(0);
    const boots = () => Array.from(arena.i32.subarray(16, 32));
    expect(boots()).toEqual(new Array(16).fill(0));
    const moves = moved(cache, () => freeMany(cache, allocMany(cache, 100)));
    expect(moves).toMatchObject({ ALLOC_SLOWPATH: 100, FREE_SLOWPATH: 100 });
    expect(moves).not.toHaveProperty('ALLOC_FASTPATH');
    expect(moves).not.toHaveProperty('FREE_FASTPATH');
    expect(boots()).toEqual(new Array(16).fill(0));
    expect(arena.i32[0]).toBe(0);
    expect(Barn.SIZEOF).toBe(16);
    expectSound(arena);
  });
});
