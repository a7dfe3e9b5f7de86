/** Calls that are wrong, without debugging and with it: what they are refused as, and the exact count of errors. */
import { describe, expect, it } from 'vitest';
import { type Arena, SlabBugError, type SlabBugKind } from '#src/index.js';
import { allocMany, boot, expectSound, secondCpu } from '../cache/support/arena.js';
import { COLUMNS, LAYOUTS, type Scene, scene } from './support.js';

interface Misuse extends Scene {
  other: Arena;
}

/** What is called, and what it is refused as. */
const MISUSE: Array<[string, SlabBugKind, (m: Misuse) => void]> = [
  [
    'double free at once',
    'double-free',
    ({ cache, p }) => {
      cache.free(p);
      cache.free(p);
    },
  ],
  ['double free of one freed long ago', 'double-free', ({ cache, free }) => cache.free(free)],
  [
    'double free after others were freed',
    'double-free',
    ({ cache, p }) => {
      const more = allocMany(cache, 5);
      cache.free(p);
      for (const q of more) cache.free(q);
      cache.free(p);
    },
  ],
  [
    'double free by another CPU',
    'double-free',
    ({ cache, p, other }) => {
      cache.free(p);
      other.openCache('victim').free(p);
    },
  ],
  [
    'the same object twice in a bulk free',
    'double-free',
    ({ cache, p }) => cache.freeBulk(Int32Array.of(p, p), 2),
  ],
  [
    'a freed object in a bulk free',
    'double-free',
    ({ cache, p, free }) => cache.freeBulk(Int32Array.of(p, free), 2),
  ],
  [
    'free after freeRcu',
    'double-free',
    ({ cache, p }) => {
      cache.freeRcu(p);
      cache.free(p);
    },
  ],
  ['freeRcu after free', 'double-free', ({ cache, free }) => cache.freeRcu(free)],
  [
    'freeRcu twice',
    'double-free',
    ({ cache, p }) => {
      cache.freeRcu(p);
      cache.freeRcu(p);
    },
  ],
  ['double free by kfree', 'double-free', ({ arena, free }) => arena.kfree(free)],
  ['double free in a restricted context', 'double-free', ({ cache, free }) => cache.freeNolock(free)],
  ['an object that was never allocated', 'double-free', ({ cache, p }) => cache.free(p + 4 * cache.size)],
  ['a word into an object', 'misaligned', ({ cache, p }) => cache.free(p + 8)],
  ['a byte into an object', 'misaligned', ({ cache, p }) => cache.free(p + 1)],
  ['the last byte of an object', 'misaligned', ({ cache, p }) => cache.free(p + cache.objectSize - 1)],
  ['the byte before an object', 'misaligned', ({ cache }) => cache.free(cache.alloc() - 1)],
  ['an object of another cache', 'wrong-cache', ({ arena, cache }) => cache.free(arena.kmalloc(64))],
  ['a page', 'not-a-slab', ({ arena, cache }) => cache.free(arena.allocPages(0))],
  ['a large kmalloc', 'not-a-slab', ({ arena, cache }) => cache.free(arena.kmalloc(20_000))],
  ['NULL', 'invalid-pointer', ({ cache }) => cache.free(0)],
  ['an address below the heap', 'invalid-pointer', ({ cache }) => cache.free(4096)],
  ['an address behind the arena', 'invalid-pointer', ({ arena, cache }) => cache.free(arena.geometry.bytes)],
  ['2^31', 'invalid-pointer', ({ cache }) => cache.free(2 ** 31)],
  ['2^32 and an address', 'invalid-pointer', ({ cache, p }) => cache.free(2 ** 32 + p)],
  ['a negative address', 'invalid-pointer', ({ cache, p }) => cache.free(-p)],
  ['a fraction', 'invalid-pointer', ({ cache, p }) => cache.free(p + 0.5)],
  ['NaN', 'invalid-pointer', ({ cache }) => cache.free(Number.NaN)],
  ['a string', 'invalid-pointer', ({ cache, p }) => cache.free(String(p) as never)],
];

describe.each([
  ['plain', '', 'free'],
  ['plain, checked exactly', '', 'full'],
  ['FZPU', 'FZPU,victim', 'free'],
  ['F', 'F,victim', 'full'],
  ['hardened', '', 'full', COLUMNS.hardened],
] as const)('calls that are wrong, %s', (_name, slabDebug, check, options = {}) => {
  const victim = () =>
    scene(slabDebug, LAYOUTS[3]!, check, boot({ bytes: 4 << 20, slabDebug, check, ...options }));

  it.each(MISUSE)('%s: refused as %s', (_what, kind, call) => {
    const made = victim();
    const { arena, cache, errors } = made;
    let error: unknown;
    try {
      const other = secondCpu(arena);
      other.onSlabReport(() => {});
      call({ ...made, other });
    } catch (thrown) {
      error = thrown;
    }
    expect(error).toBeInstanceOf(SlabBugError);
    expect((error as SlabBugError).kind).toBe(kind);
    // With debugging: what is wrong, and that the object was not freed.
    expect(errors()).toBe(slabDebug === '' ? 0 : 2);
    if (slabDebug !== '') expect(cache.debug.validate().errors).toBe(0);
    arena.kfreeRcuBarrier();
    expectSound(arena);
  });

  it('use after destroy', () => {
    const { cache, p } = victim();
    cache.free(p);
    cache.destroy();
    expect(() => cache.alloc()).toThrow(/the cache was destroyed/);
    expect(() => cache.free(p)).toThrow(/the cache was destroyed/);
  });

  it('a cache destroyed with an object left: two errors', () => {
    const { cache, p, reports } = victim();
    expect(cache.destroy()).toMatchObject({ leaked: 1, objects: [p] });
    expect(reports.length).toBe(2);
  });
});

describe('the same without allocated-state, found by the checks of F', () => {
  const FOUND = MISUSE.filter(([what]) =>
    /^double free (at once|of one|after)|into an object|NULL|below|behind/.test(what),
  );
  it.each(FOUND)('%s', (_what, kind, call) => {
    const made = scene('F,victim', LAYOUTS[3]!, 'none');
    const expected =
      kind === 'misaligned' ? 'invalid-pointer' : kind === 'invalid-pointer' ? 'not-a-slab' : kind;
    let error: unknown;
    try {
      call({ ...made, other: made.arena });
    } catch (thrown) {
      error = thrown;
    }
    expect((error as SlabBugError).kind).toBe(expected);
    expect(made.errors()).toBe(2);
    expect(made.cache.debug.validate().errors).toBe(0);
  });
});
