import fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import type { CheckLevel, LockPolicy } from '#src/index.js';
import { __GFP_ZERO, GFP_KERNEL } from '#src/index.js';
import { slabAlloc } from '../slab/support.js';
import {
  allocMany,
  barnSizes,
  boot,
  expectSound,
  freeMany,
  moved,
  nodeCounts,
  sheafSizes,
} from './support/arena.js';

const MODES = (['turn', 'op'] as LockPolicy[]).flatMap((lockPolicy) =>
  (['none', 'free', 'full'] as CheckLevel[]).map((check) => ({ lockPolicy, check })),
);
const C = 4;

describe.each(MODES)('in bulk, policy $lockPolicy, check $check', (mode) => {
  const setup = (size = 4096) => {
    const arena = boot({ ...mode, bytes: 24 << 20 });
    return { arena, cache: arena.createCache('c', { size }) };
  };
  /** Objects cached: main and spare full, and so many sheaves in the barn. */
  const cached = (barn: number) => {
    const { arena, cache } = setup();
    freeMany(cache, slabAlloc(arena, cache, (2 + barn) * C));
    arena.endTurn();
    return { arena, cache };
  };

  it('takes from main, spare and the barn, and only then from the slabs', () => {
    const { arena, cache } = cached(2);
    const out = new Int32Array(32);
    expect(moved(cache, () => expect(cache.allocBulk(out, 3)).toBe(true))).toEqual({ ALLOC_FASTPATH: 3 });
    expect(moved(cache, () => expect(cache.allocBulk(out.subarray(3), 5)).toBe(true))).toEqual({
      ALLOC_FASTPATH: 5,
    });
    expect(moved(cache, () => expect(cache.allocBulk(out.subarray(8), 6)).toBe(true))).toEqual({
      ALLOC_FASTPATH: 6,
      BARN_GET: 2,
    });
    const rest = moved(cache, () => expect(cache.allocBulk(out.subarray(14), 9)).toBe(true));
    expect(rest).toMatchObject({ ALLOC_FASTPATH: 2, BARN_GET_FAIL: 1, ALLOC_SLOWPATH: 7 });
    expect(rest).not.toHaveProperty('SHEAF_REFILL');
    arena.endTurn();
    expect(sheafSizes(arena, cache)).toEqual({ main: 0, spare: 0 });
    expect(new Set(out.subarray(0, 23)).size).toBe(23);
    expectSound(arena);
    cache.freeBulk(out, 23);
    arena.endTurn();
    expectSound(arena);
  });

  it('hands a sheaf out in the order in which single allocations would not: as it lies', () => {
    const { cache } = cached(0);
    const single = allocMany(cache, 2);
    freeMany(cache, [...single].reverse());
    const out = new Int32Array(2);
    cache.allocBulk(out, 2);
    expect([...out]).toEqual([...single].reverse());
  });

  it('gets all or nothing', () => {
    const { arena, cache } = setup();
    const [kept] = allocMany(cache, 1);
    arena.endTurn();
    const before = nodeCounts(arena, cache);
    arena.failPageAlloc(1);
    const out = new Int32Array(100);
    expect(cache.allocBulk(out, 100)).toBe(false);
    expect(cache.allocBulk(out, 9)).toBe(false);
    arena.failPageAlloc(0);
    arena.endTurn();
    expect(nodeCounts(arena, cache)).toMatchObject({ slabs: before.slabs, objects: before.objects });
    expectSound(arena);
    expect(cache.allocBulk(out, 7)).toBe(true);
    expect(new Set([...out.subarray(0, 7), kept]).size).toBe(8);
    arena.endTurn();
    expectSound(arena);
  });

  it('gives 0 objects: false', () => {
    const { cache } = setup();
    expect(cache.allocBulk(new Int32Array(1), 0)).toBe(false);
    expect(cache.allocBulk(new Int32Array(0), 0)).toBe(false);
    cache.freeBulk(new Int32Array(0), 0);
  });

  it('zeroes each object when asked, whether it comes from a sheaf or a slab', () => {
    const { arena, cache } = cached(0);
    const dirty = allocMany(cache, 12);
    for (const p of dirty) arena.u8.fill(0xff, p, p + 4096);
    freeMany(cache, dirty);
    const out = new Int32Array(16);
    for (const n of [3, 13]) {
      expect(cache.allocBulk(out, n, GFP_KERNEL | __GFP_ZERO)).toBe(true);
      for (const p of out.subarray(0, n))
        expect(arena.u8.subarray(p, p + 4096).some((byte) => byte !== 0)).toBe(false);
    }
  });

  it('frees into main, spare and the barn while there is room', () => {
    const { arena, cache } = cached(1);
    const out = new Int32Array(2 * C);
    cache.allocBulk(out, 2 * C);
    expect(moved(cache, () => cache.freeBulk(out, 2 * C))).toEqual({ FREE_FASTPATH: 2 * C });
    arena.endTurn();
    expect(sheafSizes(arena, cache)).toEqual({ main: C, spare: C });
    allocMany(cache, 3 * C);
    expect(barnSizes(arena, cache)).toEqual({ full: [], empty: 1 });
    const list = Int32Array.from(slabAlloc(arena, cache, 3 * C));
    expect(moved(cache, () => cache.freeBulk(list, 3 * C))).toEqual({ FREE_FASTPATH: 3 * C, BARN_PUT: 1 });
    arena.endTurn();
    expect(barnSizes(arena, cache)).toEqual({ full: [C], empty: 0 });
    expectSound(arena);
  });

  it('frees the rest to the slabs when the barn has no empty sheaf: none is allocated', () => {
    const { arena, cache } = cached(0);
    const list = Int32Array.from(slabAlloc(arena, cache, 5));
    const { FREE_ADD_PARTIAL: _, ...moves } = moved(cache, () => cache.freeBulk(list, 5));
    expect(moves).toEqual({ BARN_PUT_FAIL: 1, FREE_SLOWPATH: 5 });
    arena.endTurn();
    expectSound(arena);
  });

  it('keeps what it is told, whatever the sizes', () => {
    const { arena, cache } = setup(64);
    const steps = fc.array(
      fc.record({
        kind: fc.constantFrom('alloc', 'free', 'allocBulk', 'freeBulk'),
        n: fc.integer({ min: 1, max: 200 }),
      }),
      { maxLength: 20 },
    );
    fc.assert(
      fc.property(steps, (list) => {
        const held: number[] = [];
        for (const { kind, n } of list) {
          if (kind === 'alloc') held.push(...allocMany(cache, n));
          else if (kind === 'free') freeMany(cache, held.splice(0, n));
          else if (kind === 'allocBulk') {
            const out = new Int32Array(n);
            expect(cache.allocBulk(out, n)).toBe(true);
            held.push(...out);
          } else {
            const objects = Int32Array.from(held.splice(-n));
            cache.freeBulk(objects, objects.length);
          }
          expect(new Set(held).size).toBe(held.length);
        }
        arena.endTurn();
        expectSound(arena);
        cache.freeBulk(Int32Array.from(held), held.length);
      }),
      { numRuns: 25 },
    );
    cache.shrink();
    expect(nodeCounts(arena, cache).slabs).toBe(0);
  });
});

describe('the counters of a bulk free', () => {
  it('know no failed put where none was tried: no spare, and no empty sheaf to become one', () => {
    const arena = boot({ bytes: 24 << 20 });
    const cache = arena.createCache('c', { size: 4096 });
    const list = Int32Array.from(slabAlloc(arena, cache, C + 3));
    expect(sheafSizes(arena, cache)).toEqual({ main: 0, spare: null });
    const { FREE_ADD_PARTIAL: _, ...moves } = moved(cache, () => cache.freeBulk(list, C + 3));
    expect(moves).toEqual({ FREE_FASTPATH: C, FREE_SLOWPATH: 3 });
    arena.endTurn();
    expectSound(arena);
  });
});
