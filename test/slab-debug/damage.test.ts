/** What finds damage besides a validation, by a debug cache: a free, an allocation; and what cannot be repaired. */
import { describe, expect, it } from 'vitest';
import { Page } from '#src/page/index.js';
import { KmemCacheNode, nodeOf, packSlabWord, writeFreePointer } from '#src/slab/index.js';
import { expectSound } from '../cache/support/arena.js';
import { DAMAGE, spoil } from './matrix/bytes.js';
import { COLUMNS, freeAll, isMarked, LAYOUTS, type Scene, setScene } from './matrix/scene.js';

const debugScene = (options = COLUMNS.debug): Scene => setScene('debug', LAYOUTS[3]!, options);

describe('bytes that are overwritten', () => {
  it.each(DAMAGE.filter(([, state]) => state === 'allocated'))(
    '%s: found by free, which keeps the object; the next free is good',
    (_what, _state, _area, errors, bytes) => {
      const scene = debugScene();
      const { arena, cache, p, reports } = scene;
      spoil(scene, p, bytes(cache.desc));
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
      const scene = debugScene();
      const { arena, cache, free, reports } = scene;
      spoil(scene, free, bytes(cache.desc));
      expect(cache.alloc() >> 12).not.toBe(free >> 12);
      expect(reports.length).toBe(errors + 1); // and that the slab is out of use
      expect(cache.debug.validate().errors).toBe(0);
      expectSound(arena);
    },
  );

  it('are nobody`s business without debugging: memory is the user`s', () => {
    const { arena, cache, p } = setScene('plain', LAYOUTS[3]!, COLUMNS.plain);
    arena.u8[p + 64 + 3] = 1; // the neighbour's
    expectSound(arena);
    cache.free(p);
    expectSound(arena);
  });
});

describe('a freelist that a free finds damaged', () => {
  it.each([
    ['a cycle', 'Freelist cycle detected', (free: number) => free],
    ['a link to nowhere', 'Freechain corrupt', () => 12],
  ] as const)('%s: repaired, and the free is done', (_what, first, to) => {
    const scene = debugScene();
    const { arena, cache, p, free, objects, reports } = scene;
    const more = objects.find((q) => q !== p && q !== free)!;
    cache.free(more);
    writeFreePointer(arena.i32, cache.desc, more, to(more));
    cache.free(p);
    expect(reports[0]!.what).toBe(first);
    expect(isMarked(scene, p)).toBe(false);
    expect(cache.debug.validate().errors).toBe(0);
    // Lost are the others; the slab is where one with a free object belongs.
    const lost = first === 'Freechain corrupt' ? 1 : 2;
    expect(arena.validate()).toHaveLength(lost);
    expect(cache.alloc()).toBe(p);
    cache.free(p);
    freeAll(scene);
    expect(arena.validate()).toHaveLength(lost);
    expect(cache.debug.validate().errors).toBe(0);
  });
});

describe('what nothing tells how to repair', () => {
  it('counts that cannot be: reported each time', () => {
    for (const [field, value, what] of [
      [Page.objects, 10_000, /^objects 10000 > max/],
      [Page.slabWord, packSlabWord(1, 9000), /^inuse 9000 > max/],
    ] as const) {
      const { arena, cache, p, page, reports } = debugScene({ slabDebug: 'F,victim' });
      arena.i32[page + field] = value;
      expect(cache.debug.validate().errors).toBe(1);
      expect(cache.debug.validate().errors).toBe(1);
      expect(reports[0]!.what).toMatch(what);
      cache.free(p);
      expect(reports.map(({ kind }) => kind)).toEqual(['bug', 'bug', 'bug', 'fix']);
    }
  });

  it('the node`s counts', () => {
    const { arena, cache, reports } = debugScene({ slabDebug: 'FU,victim' });
    arena.i32[nodeOf(arena.i32, cache.desc, 0) + KmemCacheNode.nrPartial]! += 1;
    expect(cache.debug.validate().errors).toBe(1);
    expect(reports[0]!.what).toBe('1 partial slabs counted but counter=2');
    expect(cache.debug.validate().errors).toBe(1);
  });
});
