/**
 * Constructed objects among what looks at, or overwrites, free objects: poison, red zones, initOnAlloc and initOnFree,
 * __GFP_ZERO, validation. Seed 001 was not compatible with such checkers; here each of its three conflicts is a test.
 */
import { describe, expect, it } from 'vitest';
import {
  __GFP_ZERO,
  type Arena,
  defineCache,
  GFP_KERNEL,
  type KmemCache,
  PERCPU_COUNTER_BYTES,
  SlabBugError,
  type SlabReport,
} from '#src/index.js';
import { mmStructCache, PCPU_CID, RSS_STAT } from '#src/lab/workloads/mmStruct.js';
import { allocMany, boot, expectSound, freeMany, LONG, MiB, secondCpu } from '../cache/support/arena.js';
import { bootPercpu, info } from '../percpu/support.js';
import { freshName, slabsOf } from './support.js';

const SIZE = 48;
const STATE = 0x41;

type Functions = 'ctor' | 'dtor' | 'ctor and dtor';
const FUNCTIONS: Functions[] = ['ctor', 'dtor', 'ctor and dtor'];

/** Bytes of the object that are not as its state is. */
function strange({ u8 }: Arena, p: number): number {
  let n = 0;
  for (let at = p; at < p + SIZE; at++) if (u8[at] !== STATE) n++;
  return n;
}

interface Stateful {
  cache: KmemCache;
  /** Bytes that destructors found changed. */
  found: { strange: number; destructed: number };
}

/** A cache whose objects are STATE from end to end, by constructor, or from their first user on. */
function stateful(arena: Arena, functions: Functions): Stateful {
  const found = { strange: 0, destructed: 0 };
  const ctor = (p: number, here: Arena): void => void here.u8.fill(STATE, p, p + SIZE);
  const dtor = (p: number, here: Arena): void => {
    found.strange += strange(here, p);
    found.destructed++;
  };
  const defined = defineCache(freshName(), {
    size: SIZE,
    ...(functions.includes('ctor') ? { ctor } : {}),
    ...(functions.includes('dtor') ? { dtor } : {}),
  });
  const cache = arena.createCache(defined);
  if (!functions.includes('ctor')) {
    // All slabs that it will need, and no object of them was never used.
    const all = allocMany(cache, 4 * cache.objsPerSlab);
    const missing = (): number => slabsOf(arena, cache) * cache.objsPerSlab - all.length;
    for (let more = missing(); more > 0; more = missing()) all.push(...allocMany(cache, more));
    for (const p of all) ctor(p, arena);
    cache.minPartial = 100;
    freeMany(cache, all);
  }
  return { cache, found };
}

/** Objects by every way to allocate, all given back by another. */
function everyWay(arena: Arena, cache: KmemCache): number {
  const out = new Int32Array(10);
  const sheaf = cache.prefill(4)!;
  expect(cache.allocBulk(out, 10)).toBe(true);
  const single = [cache.alloc(), cache.allocNode(0), cache.allocOrThrow(), sheaf.alloc()];
  const bad = [...single, ...out].reduce((n, p) => n + strange(arena, p), 0);
  cache.return(sheaf);
  cache.freeBulk(out, 10);
  arena.kfree(single.pop()!);
  cache.freeRcu(single.pop()!);
  freeMany(cache, single);
  arena.kfreeRcuBarrier();
  return bad;
}

describe.each(FUNCTIONS)('objects with a %s', (functions) => {
  it.each(['FZPU', 'P', 'ZP', 'F'])('are not poisoned while they are free: slabDebug %s', (slabDebug) => {
    const arena = boot({ slabDebug, bytes: 4 * MiB });
    const reports: SlabReport[] = [];
    arena.onSlabReport((report) => reports.push(report));
    const { cache, found } = stateful(arena, functions);
    const objects = allocMany(cache, 30);
    freeMany(cache, objects);
    expect(objects.reduce((n, p) => n + strange(arena, p), 0)).toBe(0);
    expect(everyWay(arena, cache)).toBe(0);
    expect(cache.debug.validate().errors).toBe(0);
    cache.destroy();
    expect(found.strange).toBe(0);
    expect(found.destructed > 0).toBe(functions.includes('dtor'));
    expect(reports).toEqual([]);
    expectSound(arena);
  });

  it('are checked around them all the same: red zones and padding', () => {
    const arena = boot({ slabDebug: 'FZP', bytes: 4 * MiB });
    const reports: SlabReport[] = [];
    arena.onSlabReport((report) => reports.push(report));
    const { cache } = stateful(arena, functions);
    const p = cache.alloc();
    cache.free(p);
    for (const at of [p - 1, p + SIZE]) {
      arena.u8[at]! ^= 0xff;
      expect(cache.debug.validate().errors, `byte ${at - p}`).toBe(2); // found, and restored
      expect(cache.debug.validate().errors).toBe(0);
    }
    expect(strange(arena, p)).toBe(0);
    expect(reports.length).toBe(4);
  });

  it.each([{ initOnAlloc: true }, { initOnFree: true }, { initOnAlloc: true, initOnFree: true }])(
    'are not zeroed: %o',
    (init) => {
      for (const lockPolicy of ['turn', 'op'] as const) {
        const arena = boot({ ...init, lockPolicy });
        const { cache, found } = stateful(arena, functions);
        for (let round = 0; round < 3; round++) expect(everyWay(arena, cache)).toBe(0);
        // Others are.
        const plain = arena.createCache('plain', { size: SIZE });
        const p = plain.alloc();
        arena.u8.fill(STATE, p, p + SIZE);
        plain.free(p);
        const again = plain.alloc();
        expect([again, strange(arena, again)]).toEqual([p, SIZE]);
        cache.destroy();
        expect(found.strange).toBe(0);
        expectSound(arena);
      }
    },
  );

  it('are refused to __GFP_ZERO, and stay as they are', () => {
    const arena = boot();
    const { cache, found } = stateful(arena, functions);
    const zeroing = GFP_KERNEL | __GFP_ZERO;
    const out = new Int32Array(5);
    const sheaf = cache.prefill(3)!;
    const which = functions.includes('ctor') ? /has a constructor/ : /has a destructor/;
    for (const call of [
      () => cache.alloc(zeroing),
      () => cache.allocNode(0, zeroing),
      () => cache.allocBulk(out, 5, zeroing),
      () => sheaf.alloc(zeroing),
    ]) {
      expect(call).toThrow(which);
    }
    cache.return(sheaf);
    expect(everyWay(arena, cache)).toBe(0);
    expect(cache.destroy().leaked).toBe(0);
    expect(found.strange).toBe(0);
    expectSound(arena);
  });

  it('have their link outside, and a cache of their own', () => {
    const arena = boot({ merge: 'kernel' });
    const { cache } = stateful(arena, functions);
    const like = arena.createCache('like', { size: cache.size });
    expect(cache.desc.offset).toBeGreaterThanOrEqual(SIZE);
    expect(like.desc.ptr).not.toBe(cache.desc.ptr);
    const p = like.alloc();
    expect(() => cache.free(p)).toThrow(SlabBugError);
  });
});

/** What checkers said about mm_struct in seed 001. */
describe.each(LONG ? ['', 'FZPU', 'FZPUT'] : ['', 'FZPU'])(
  'percpu memory of free mm_structs, slabDebug "%s"',
  (slabDebug) => {
    function scene(): { arena: Arena; cache: KmemCache; bugs: () => number } {
      const arena = bootPercpu(slabDebug === '' ? {} : { slabDebug: `${slabDebug},${mmStructCache.name}` });
      const reports: SlabReport[] = [];
      arena.onSlabReport((report) => reports.push(report));
      const bugs = (): number => reports.filter(({ kind }) => kind !== 'trace').length;
      return { arena, cache: arena.createCache(mmStructCache), bugs };
    }

    it('KASAN: their counters are on the list, are linked to and folded into, and that is no use after free', () => {
      const { arena, cache, bugs } = scene();
      const fold = secondCpu(arena, 1);
      const objects = allocMany(cache, cache.objsPerSlab);
      for (const p of objects) fold.percpu.counters.add(p + RSS_STAT, 3);
      freeMany(cache, objects); // not as check_mm would have it: each has 3 in a part
      allocMany(cache, 1);
      // Another slab's counters are linked before those of free objects, then unlinked again.
      const fbc = arena.kmalloc(PERCPU_COUNTER_BYTES);
      arena.percpu.counters.init(fbc);
      fold.offline(); // writes into free objects
      for (const p of objects) expect(arena.percpu.counters.read(p + RSS_STAT)).toBe(3);
      arena.percpu.counters.destroy(fbc);
      if (slabDebug !== '') expect(cache.debug.validate().errors).toBe(0);
      expect(bugs()).toBe(0);
      expectSound(arena);
    });

    it('KMEMLEAK: their areas are in use, not lost: nothing counts them, and all go with the slabs', () => {
      const { arena, cache, bugs } = scene();
      const before = info(arena).nrAlloc;
      const objects = allocMany(cache, 2 * cache.objsPerSlab);
      freeMany(cache, objects);
      for (const p of objects) expect(arena.perCpuPtr(arena.i32[(p + PCPU_CID) >> 2]!, 0)).toBeGreaterThan(0);
      expectSound(arena);
      cache.shrink();
      arena.endTurn();
      const { leaked } = cache.destroy();
      expect([leaked, info(arena).nrAlloc, bugs()]).toEqual([0, before, 0]);
      expectSound(arena);
    });

    it('DEBUG_OBJECTS: a counter may be active in a free object, and not in memory that is none', () => {
      const { arena, cache } = scene();
      const p = cache.alloc();
      cache.free(p);
      expect(arena.validate()).toEqual([]);
      const q = arena.kmalloc(PERCPU_COUNTER_BYTES);
      arena.percpu.counters.init(q);
      arena.kfree(q); // nobody constructed it: this one was to be destroyed
      arena.i32.fill(0, q >> 2, (q + PERCPU_COUNTER_BYTES) >> 2);
      expect(arena.validate().map(({ invariant }) => invariant)).toEqual(['COUNTERS']);
    });
  },
);
