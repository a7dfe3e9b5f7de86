/** Guarded objects in an arena whose copies and cursors are checked. */
import { describe, expect, it } from 'vitest';
import { SlabBugError, structOf } from '#src/index.js';
import { boot, expectSound, inside } from '../cache/support/arena.js';

const PAGE = 4096;
const Pair = structOf('pair', { a: 'u32', b: 'u32' });

function setup() {
  const arena = boot({ guard: { every: 1, objects: 8 }, hardenedUsercopy: true });
  const cache = arena.createCache('c', { size: 64, useroffset: 8, usersize: 16 });
  const other = arena.createCache('other', { size: 64 });
  // At both ends of their pages.
  const objects = Array.from({ length: 7 }, () => cache.alloc());
  for (const p of objects) expect(inside(arena).guards.owns(p)).toBe(true);
  return { arena, cache, other, objects };
}

const kindOf = (work: () => unknown): string => {
  try {
    work();
  } catch (error) {
    if (error instanceof SlabBugError) return error.kind;
    throw error;
  }
  return 'done';
};

describe('guarded objects under hardenedUsercopy', () => {
  it('are written and read through a cursor, of their own cache alone', () => {
    const { arena, cache, other, objects } = setup();
    const pair = Pair.cursor(arena, cache);
    for (const [i, p] of objects.entries()) {
      pair.at(p).b = i;
      expect(arena.i32[(p + 4) >> 2]).toBe(i);
      expect(pair.at(p).b).toBe(i);
      expect(kindOf(() => pair.at(p + 8))).toBe('misaligned');
      expect(kindOf(() => Pair.cursor(arena, other).at(p))).toBe('wrong-cache');
      expect(kindOf(() => pair.at((p & -PAGE) + PAGE))).toBe('not-a-slab');
      expect(kindOf(() => pair.at((p & -PAGE) - PAGE))).toBe('not-a-slab');
    }
    const [p] = objects as [number];
    pair.at(p);
    cache.free(p);
    expect(kindOf(() => pair.a)).toBe('use-after-free');
    expect(kindOf(() => pair.at(p))).toBe('use-after-free');
    expectSound(arena);
  });

  it('are copied within the range of their cache', () => {
    const { arena, objects } = setup();
    for (const p of objects) {
      arena.copyFromUser(p + 8, new Uint8Array(16).fill(7));
      const back = new Uint8Array(16);
      arena.copyToUser(back, p + 8);
      expect(back).toEqual(new Uint8Array(16).fill(7));
      for (const [at, bytes] of [
        [p, 8],
        [p + 8, 17],
        [p - 8, 8],
        [p + 64, 8],
      ] as const) {
        const kind = kindOf(() => arena.copyFromUser(at, new Uint8Array(bytes)));
        expect(['usercopy', 'not-a-slab']).toContain(kind);
      }
    }
    expect(arena.scanGuards()).toBe(0);
    expectSound(arena);
  });
});
