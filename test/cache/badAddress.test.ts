/**
 * Addresses and lists that are not what free expects: a SlabBugError that says what is wrong, and an arena in which no
 * word has changed.
 */

import { beforeEach, describe, expect, it } from 'vitest';
import { type Arena, SlabBugError } from '#src/index.js';
import {
  allocMany,
  boot,
  expectRefused,
  expectSound,
  expectUnchanged,
  inside,
  MiB,
  secondCpu,
} from './support/arena.js';

/** Every refusal compares the whole arena with what it was. */
const SMALL = { bytes: 2 * MiB, cpus: 2, maxCaches: 24 };

/** Addresses that are none of the cache's allocated objects, and what the report says. */
function wrongAddresses(arena: Arena): Array<{ what: string; p: unknown; message: RegExp }> {
  const cache = arena.openCache('victim');
  const [object, freed] = allocMany(cache, 2) as [number, number];
  // Another CPU has it in its sheaf: this one does not hand it out again.
  const other = secondCpu(arena);
  other.openCache('victim').free(freed);
  other.endTurn();
  const foreign = arena.openCache('other').alloc();
  const gone = arena.createCache('gone', { size: 192 });
  const [orphan] = allocMany(gone, 1);
  gone.destroy();
  const large = arena.kmalloc(50_000);
  const pages = arena.allocPages(0);
  const sheaf = (arena.geometry.firstPfn - 1) * 4096;
  const noHeap = /Invalid object pointer .*: not an address of the heap/;
  return [
    { what: 'a double free', p: freed, message: /Object already free: 0x/ },
    {
      what: 'the middle of an object',
      p: object + 8,
      message: /Invalid object pointer 0x[0-9a-f]+: 8 bytes into an object of 192/,
    },
    { what: 'an odd address', p: object + 1, message: /1 bytes into an object of 192/ },
    {
      what: "another cache's object",
      p: foreign,
      message: /No slab cache for object: 0x[0-9a-f]+ belongs to other/,
    },
    { what: "a destroyed cache's object", p: orphan, message: /belongs to gone/ },
    { what: "the arena's own struct", p: cache.desc.ptr * 4, message: /belongs to kmem_cache/ },
    { what: 'a large kmalloc', p: large, message: /lies in a large kmalloc, use kfree/ },
    { what: 'a page', p: pages, message: /Not a valid slab page/ },
    { what: 'past the last object', p: (object & ~4095) + 21 * 192, message: /past the slab's last object/ },
    { what: 'NULL', p: 0, message: noHeap },
    { what: 'the superblock', p: 64, message: noHeap },
    { what: 'metadata', p: sheaf, message: noHeap },
    { what: 'a negative address', p: -object, message: noHeap },
    { what: 'an address past the end', p: arena.geometry.bytes, message: noHeap },
    { what: 'NaN', p: Number.NaN, message: noHeap },
    { what: 'infinity', p: Number.POSITIVE_INFINITY, message: noHeap },
    { what: 'undefined', p: undefined, message: noHeap },
    { what: 'null', p: null, message: noHeap },
    { what: 'an object', p: {}, message: noHeap },
  ];
}

/** Values that the bit operations of a fast path fold onto the address of a live object. */
const FOLDED: Array<{ what: string; fold: (object: number) => unknown }> = [
  { what: '2^32 above', fold: (p) => p + 2 ** 32 },
  { what: '2^32 below', fold: (p) => p - 2 ** 32 },
  { what: 'a fraction above', fold: (p) => p + 0.5 },
  { what: 'a text', fold: String },
  { what: 'an array of one', fold: (p) => [p] },
  { what: 'an object with the value', fold: (p) => ({ valueOf: () => p }) },
];

const CHECKED = (['turn', 'op'] as const).flatMap((lockPolicy) =>
  (['free', 'full'] as const).map((check) => ({ lockPolicy, check })),
);

describe.each(CHECKED)('free, policy $lockPolicy, check $check', (mode) => {
  const arena = boot({ ...mode, ...SMALL });
  const cache = arena.createCache('victim', { size: 192 });
  arena.createCache('other', { size: 192 });
  const wrong = wrongAddresses(arena);
  let object = 0;
  beforeEach(() => {
    object = cache.alloc();
    cache.free(cache.alloc());
  });

  /** With the sheaf lock in hand, as in the middle of a turn, the fast path decides; without it the slow one. */
  const refuse = (action: () => unknown, message: RegExp) => {
    for (const warm of [false, true]) {
      // Afterwards main has objects, and one more and one less changes nothing.
      cache.free(cache.alloc());
      arena.endTurn();
      expectRefused(
        arena,
        () => {
          if (warm) cache.free(cache.alloc());
          return action();
        },
        SlabBugError,
        message,
      );
      expect(arena.ksize(object), 'the live object is still allocated').toBe(192);
    }
  };

  it.each(wrong)('refuses $what', ({ p, message }) => refuse(() => cache.free(p as number), message));

  it.each(FOLDED)('refuses $what of a live object', ({ fold }) => {
    refuse(() => cache.free(fold(object) as number), /not an address of the heap/);
  });

  it.each(FOLDED)('kfree and its kin refuse $what of a live object', ({ fold }) => {
    refuse(() => arena.ksize(fold(object) as number), /not an address of the heap/);
    refuse(() => arena.krealloc(fold(object) as number, 500), /not an address of the heap/);
    refuse(() => arena.kfree(fold(object) as number), /not an address of the heap/);
  });

  it('a BigInt is a TypeError', () => {
    for (const use of [
      () => cache.free(BigInt(object) as never),
      () => arena.kfree(BigInt(object) as never),
    ]) {
      for (const warm of [false, true]) {
        arena.endTurn();
        if (warm) cache.free(cache.alloc());
        expect(use).toThrow(/BigInt|not an address of the heap/);
        expectSound(arena);
      }
    }
  });

  it.each(wrong)('freeBulk refuses a list with $what in the middle, and frees none', ({ p, message }) => {
    if (typeof p !== 'number' || p !== (p | 0)) return;
    for (const [before, after] of [
      [3, 2],
      [40, 90],
    ] as const) {
      const held = allocMany(cache, before + after);
      const list = Int32Array.from([...held.slice(0, before), p, ...held.slice(before)]);
      refuse(() => cache.freeBulk(list, list.length), message);
      for (const q of held) cache.free(q);
      expectSound(arena);
    }
  });

  it('freeBulk refuses a list that names an object twice, and frees none', () => {
    for (const n of [1, 5, 100]) {
      const held = allocMany(cache, n);
      const list = Int32Array.from([...held, held[n >> 1]!]);
      refuse(() => cache.freeBulk(list, list.length), /Object already free/);
      for (const q of held) cache.free(q);
    }
    expectSound(arena);
  });

  it('an error tells what, whose and where', () => {
    try {
      cache.free(object + 8);
      expect.unreachable();
    } catch (error) {
      expect(error).toMatchObject({
        kind: 'misaligned',
        cache: 'victim',
        address: object + 8,
        name: 'SlabBugError',
      });
    }
  });
});

describe.each(['turn', 'op'] as const)('lists, policy %s', (lockPolicy) => {
  const arena = boot({ lockPolicy, ...SMALL });
  const cache = arena.createCache('victim', { size: 192 });
  const held = Int32Array.from(allocMany(cache, 4));

  it.each<[string, unknown, unknown, typeof RangeError | typeof TypeError, RegExp]>([
    ['an array', [1, 2, 3, 4], 4, TypeError, /(out|list) is an Array; it must be an Int32Array of addresses/],
    ['a Uint32Array', new Uint32Array(4), 4, TypeError, /(out|list) is a Uint32Array/],
    ['a Float64Array', new Float64Array(4), 4, TypeError, /(out|list) is a Float64Array/],
    ['nothing', undefined, 4, TypeError, /(out|list) is undefined/],
    ['null', null, 4, TypeError, /(out|list) is null/],
    [
      'a list too short',
      new Int32Array(3),
      4,
      RangeError,
      /(out|list) has 3 elements; it must have at least n = 4/,
    ],
    ['a list too short by far', new Int32Array(3), 4000, RangeError, /(out|list) has 3 elements/],
    ['n = -1', held, -1, RangeError, /n is -1; it must be an integer from 0/],
    ['n = 1.5', held, 1.5, RangeError, /n is 1.5/],
    ['n = NaN', held, Number.NaN, RangeError, /n is NaN/],
    ['n = 2^32', held, 2 ** 32, RangeError, /n is 4294967296/],
    ['n = "2"', held, '2', TypeError, /n is "2"; it must be a number/],
    ['n = 2n', held, 2n, TypeError, /n is 2n; it must be a number|BigInt/],
    ['no n', held, undefined, TypeError, /n is undefined; it must be a number/],
  ])('%s', (_, list, n, type, message) => {
    for (const warm of [false, true]) {
      for (const use of ['allocBulk', 'freeBulk'] as const) {
        const call = () => {
          if (warm) cache.free(cache.alloc());
          return cache[use](list as Int32Array, n as number);
        };
        cache.free(cache.alloc());
        arena.endTurn();
        expectRefused(arena, call, type, message);
      }
    }
  });

  it('of kfreeBulk', () => {
    expectRefused(
      arena,
      () => arena.kfreeBulk(held, 5),
      RangeError,
      /n is 5; it must be an integer from 0 to 4/,
    );
    expectRefused(arena, () => arena.kfreeBulk(undefined as never, 1), TypeError, /list is undefined/);
    expectRefused(arena, () => arena.kfreeBulk([4096] as never, 1), TypeError, /list is an Array/);
  });
});

describe('an arena that was attacked with all of it', () => {
  it('still works', () => {
    const arena = boot();
    const cache = arena.createCache('victim', { size: 192 });
    for (let i = 0; i < 2000; i++) {
      const p = cache.alloc();
      const bad = [p + 1, p + 8, -p, p + 2 ** 32, 0][i % 5]!;
      if (i % 5 !== 3) expect(() => cache.free(bad)).toThrow(SlabBugError);
      cache.free(p);
    }
    expect(inside(arena).cpu.locks.held).toBe(0);
    expectUnchanged(arena, () => {});
    expect(cache.destroy()).toMatchObject({ leaked: 0 });
    expectSound(arena);
  });
});
