/**
 * The corruption matrix: what is done wrong, without debugging and with it, with the exact count of errors and a second
 * validation that is clean after the repair. Damage of bytes is planted in slots of several sizes and alignments, at
 * random in the long form.
 */
import { describe, expect, it } from 'vitest';
import type { KmemCache } from '#src/cache/index.js';
import { Page, type PagePtr, pageAddress } from '#src/page/index.js';
import { freelistOf, KmemCacheNode, nodeOf, packSlabWord, padStart } from '#src/slab/index.js';
import { boot, expectSound, inside } from '../cache/support/arena.js';
import { LAYOUTS, type Scene, scene, WITHOUT_DEBUG } from './support.js';

type Bytes = (s: KmemCache['desc']) => number[];

/** Offsets from the object, whether it is an allocated one, the area that is reported, and errors: report and repair. */
const DAMAGE: Array<[string, 'allocated' | 'free', string, number, Bytes]> = [
  ['the byte behind an object', 'allocated', 'Right Redzone', 2, (s) => [s.objectSize]],
  ['the last byte of its red zone', 'allocated', 'Right Redzone', 2, (s) => [s.inuse - 1]],
  ['both ends of its red zone', 'allocated', 'Right Redzone', 2, (s) => [s.objectSize, s.inuse - 1]],
  ['the byte before an object', 'allocated', 'Left Redzone', 2, () => [-1]],
  ['the first byte of its slot', 'allocated', 'Left Redzone', 2, (s) => [-s.redLeftPad]],
  ['both red zones', 'allocated', 'Left Redzone', 4, (s) => [-1, s.objectSize]],
  ['padding behind an object', 'allocated', 'Object padding', 2, (s) => [padStart(s)]],
  ['the last byte of its slot', 'allocated', 'Object padding', 2, (s) => [s.size - s.redLeftPad - 1]],
  ['red zone and padding', 'allocated', 'Right Redzone', 4, (s) => [s.objectSize, padStart(s)]],
  ['the first byte of a freed object', 'free', 'Poison', 2, () => [0]],
  ['its last byte', 'free', 'End Poison', 2, (s) => [s.objectSize - 1]],
  ['its first and last byte', 'free', 'Poison', 4, (s) => [0, s.objectSize - 1]],
  ['the byte before the last', 'free', 'Poison', 2, (s) => [s.objectSize - 2]],
  ['the byte in the middle', 'free', 'Poison', 2, (s) => [(s.objectSize - 1) >> 1]],
  ['the byte behind a freed object', 'free', 'Right Redzone', 2, (s) => [s.objectSize]],
  ['the byte before a freed object', 'free', 'Left Redzone', 2, () => [-1]],
  ['padding behind a freed object', 'free', 'Object padding', 2, (s) => [padStart(s)]],
  ['everything around a freed object', 'free', 'Left Redzone', 6, (s) => [-1, s.objectSize, padStart(s)]],
];

describe('bytes that are overwritten', () => {
  it.each(DAMAGE)(
    '%s: found by validate, restored, and clean the second time',
    (_what, state, area, errors, bytes) => {
      const arena = boot({ slabDebug: 'FZPU,victim', bytes: 4 << 20 });
      for (const layout of LAYOUTS) {
        const { cache, p, free, reports } = scene('', layout, 'free', arena);
        const at = state === 'free' ? free : p;
        for (const offset of new Set(bytes(cache.desc))) arena.u8[at + offset] = ~arena.u8[at + offset]!;
        const where = `${layout.size} aligned ${layout.align}`;
        expect(cache.debug.validate().errors, where).toBe(errors);
        expect(reports[0], where).toMatchObject({ kind: 'bug', what: `${area} overwritten` });
        expect(reports[0]!.object!.address).toBe(at);
        expect(cache.debug.validate().errors, where).toBe(0);
        cache.free(p);
        expect(cache.destroy().leaked).toBe(0);
        expect(reports.length, where).toBe(errors);
      }
    },
  );

  it.each(DAMAGE.filter(([, state]) => state === 'allocated'))(
    '%s: found by free, which keeps the object; the next free is good',
    (_what, _state, _area, errors, bytes) => {
      const { arena, cache, p, reports } = scene('FZPU,victim', LAYOUTS[2]!);
      for (const offset of new Set(bytes(cache.desc))) arena.u8[p + offset] = ~arena.u8[p + offset]!;
      cache.free(p);
      expect(reports.length).toBe(errors + 1); // and that it was not freed
      expectSound(arena);
      cache.free(p);
      expect(reports.length).toBe(errors + 1);
      expect(cache.debug.validate().errors).toBe(0);
      expectSound(arena);
    },
  );

  it.each(DAMAGE.filter(([, state]) => state === 'free'))(
    '%s: found by alloc, which takes another slab',
    (_what, _state, _area, errors, bytes) => {
      const { arena, cache, free, reports } = scene('FZPU,victim', LAYOUTS[2]!);
      for (const offset of new Set(bytes(cache.desc))) arena.u8[free + offset] = ~arena.u8[free + offset]!;
      expect(cache.alloc() >> 12).not.toBe(free >> 12);
      expect(reports.length).toBe(errors + 1); // and that the slab is out of use
      expect(cache.debug.validate().errors).toBe(0);
      expectSound(arena);
    },
  );

  describe.each(WITHOUT_DEBUG)('%s', (_column, options) => {
    it.each(DAMAGE)(
      '%s: no error, nothing to repair, and the objects go on',
      (_what, state, _area, _errors, bytes) => {
        const made = scene('', LAYOUTS[2]!, 'free', boot({ bytes: 4 << 20, ...options }));
        const { arena, cache, p, free, reports } = made;
        const at = state === 'free' ? free : p;
        const { objectSize, size } = cache.desc;
        // What lies behind the slot is the neighbour's, which nobody has: it is on no freelist, but in a sheaf.
        for (const offset of bytes(cache.desc)) arena.u8[at + Math.min(offset, size - 1)] ^= 0xff;
        expectSound(arena);
        const q = cache.alloc();
        expect(q).toBe(free);
        if (options.initOnAlloc) {
          expect(arena.u8.subarray(q, q + objectSize).every((byte) => byte === 0)).toBe(true);
        }
        cache.free(q);
        cache.free(p);
        expectSound(arena);
        expect(cache.destroy().leaked).toBe(0);
        expect(reports).toEqual([]);
      },
    );
  });

  it('are nobody`s business without debugging: memory is the user`s', () => {
    const { arena, cache, p } = scene('', LAYOUTS[3]!);
    arena.u8[p + 64 + 3] = 1; // the neighbour's
    expectSound(arena);
    cache.free(p);
    expectSound(arena);
  });

  it('in the tail of a slab', () => {
    const { arena, cache, p, reports } = scene('FP,victim', LAYOUTS[4]!);
    const page = inside(arena).slabs.slabOf(p);
    const end = pageAddress(arena.geometry, page) + (4096 << cache.order);
    arena.u8[end - 1] = 7;
    expect(cache.debug.validate().errors).toBe(2);
    expect(reports[0]!.what).toBe('Padding overwritten');
    expect(cache.debug.validate().errors).toBe(0);
  });
});

describe('a slab`s own words', () => {
  interface Words extends Scene {
    m: Int32Array;
    page: number;
    link: (p: number) => number;
  }
  const CASES: Array<[string, string, number, (w: Words) => void]> = [
    [
      'a link into an object',
      'Freechain corrupt',
      3,
      ({ m, link, free }) => {
        m[link(free)]! += 4;
      },
    ],
    [
      'a link out of the slab',
      'Freechain corrupt',
      3,
      ({ m, link, free }) => {
        m[link(free)]! += 1 << 16;
      },
    ],
    [
      'a negative link',
      'Freechain corrupt',
      3,
      ({ m, link, free }) => {
        m[link(free)] = -8;
      },
    ],
    [
      'a list that ends early',
      'Wrong object count',
      2,
      ({ m, link, free }) => {
        m[link(free)] = 0;
      },
    ],
    [
      'an object that leads to itself',
      'Freelist cycle detected',
      2,
      ({ m, link, free }) => {
        m[link(free)] = free;
      },
    ],
    [
      'a cycle of two',
      'Freelist cycle detected',
      2,
      ({ m, link, free }) => {
        m[link(m[link(free)]!)] = free;
      },
    ],
    [
      'an allocated object on the list',
      'Wrong object count',
      2,
      ({ m, link, free, p }) => {
        m[link(p)] = m[link(free)]!;
        m[link(free)] = p;
      },
    ],
    [
      'a head that is no object',
      'Freepointer corrupt',
      2,
      ({ m, page }) => {
        m[page + Page.slabWord] = packSlabWord(5000, 1);
      },
    ],
    [
      'inuse too large',
      'Wrong object count',
      2,
      ({ m, page }) => {
        m[page + Page.slabWord]! += packSlabWord(0, 1);
      },
    ],
    [
      'inuse too small',
      'Wrong object count',
      2,
      ({ m, page }) => {
        m[page + Page.slabWord]! -= packSlabWord(0, 1);
      },
    ],
  ];

  /** Findings of arena.validate() without debug flags. Behind a cut of the list each object that is lost is one. */
  const FINDINGS: Record<string, number> = {
    'a link into an object': 61,
    'a link out of the slab': 61,
    'a negative link': 61,
    'a list that ends early': 60,
    'an object that leads to itself': 61,
    'a cycle of two': 60,
    'an allocated object on the list': 2,
    'a head that is no object': 62,
    'inuse too large': 1,
    'inuse too small': 1,
  };
  /** The address of the slab's first free object. */
  const slabFirst = ({ arena, cache }: Scene, page: PagePtr): number =>
    pageAddress(arena.geometry, page) + (freelistOf(arena.i32[page + Page.slabWord]!) - 1) * cache.size;

  it.each(CASES)('%s', (_what, first, errors, corrupt) => {
    const made = scene('FP,victim', LAYOUTS[3]!);
    const { arena, cache, free, reports } = made;
    const page = inside(arena).slabs.slabOf(free);
    corrupt({ ...made, m: arena.i32, page, link: (p) => (p + cache.desc.offset) >> 2 });
    expect(cache.debug.validate().errors).toBe(errors);
    expect(reports[0]!.what.startsWith(first), reports[0]!.what).toBe(true);
    expect(cache.debug.validate().errors).toBe(0);
  });

  describe.each(WITHOUT_DEBUG)('%s', (_column, options) => {
    it.each(CASES)(
      '%s: named by validate, and clean with the words back',
      (what, _first, _errors, corrupt) => {
        const made = scene('', LAYOUTS[3]!, 'free', boot({ bytes: 4 << 20, ...options }));
        const { arena, cache, reports } = made;
        const more = Array.from({ length: 5 }, () => cache.alloc());
        const free = more[2]!;
        for (const q of [more[1]!, free]) cache.free(q);
        cache.shrink(); // out of the sheaf, onto the freelist of the slab
        const page = inside(arena).slabs.slabOf(free);
        const head = slabFirst(made, page);
        expectSound(arena);
        const before = arena.u8.slice();
        corrupt({ ...made, free: head, m: arena.i32, page, link: (q) => (q + cache.desc.offset) >> 2 });
        const found = arena.validate().filter(({ where }) => where.startsWith('victim'));
        expect(found.length, what).toBe(FINDINGS[what]);
        expect(found.every(({ invariant }) => /^I\d+$/.test(invariant))).toBe(true);
        arena.u8.set(before);
        expectSound(arena);
        expect(reports).toEqual([]); // who reports is the debug column
      },
    );
  });

  it('counts that cannot be: reported each time, since nothing says what is right', () => {
    for (const [field, value, what] of [
      [Page.objects, 10_000, /^objects 10000 > max/],
      [Page.slabWord, packSlabWord(1, 9000), /^inuse 9000 > max/],
    ] as const) {
      const { arena, cache, p, reports } = scene('F,victim', LAYOUTS[3]!);
      arena.i32[inside(arena).slabs.slabOf(p) + field] = value;
      expect(cache.debug.validate().errors).toBe(1);
      expect(reports[0]!.what).toMatch(what);
      cache.free(p);
      expect(reports.map(({ kind }) => kind)).toEqual(['bug', 'bug', 'fix']);
    }
  });

  it('the node`s counts', () => {
    const { arena, cache, reports } = scene('FU,victim', LAYOUTS[3]!);
    arena.i32[nodeOf(arena.i32, cache.desc, 0) + KmemCacheNode.nrPartial]! += 1;
    expect(cache.debug.validate().errors).toBe(1);
    expect(reports[0]!.what).toBe('1 partial slabs counted but counter=2');
  });
});
