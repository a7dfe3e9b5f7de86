/**
 * No memory at any point: every request for pages in a long scenario is refused once, or from then on, or every n-th,
 * for n = 1, 2, ... until nothing is refused any more. Whatever the callers get, nothing may be lost.
 */

import { describe, expect, it } from 'vitest';
import type { KmemCache } from '#src/cache/index.js';
import { type Arena, type CheckLevel, type LockPolicy, OutOfMemoryError } from '#src/index.js';
import { boot, expectSound, footprint, LONG, pagesOf } from './support/arena.js';

type Mode = 'once' | 'from then on' | 'every n-th';

/** Refuses requests as the mode says; returns how many were refused so far, and how to end it. */
function refuse(arena: Arena, mode: Mode, n: number): { end: () => number } {
  if (mode === 'every n-th') {
    arena.failPageAlloc(n);
    return { end: () => arena.failPageAlloc(0).refused };
  }
  const pages = pagesOf(arena);
  const original = pages.alloc;
  let requests = 0;
  let refused = 0;
  pages.alloc = (order, gfp, node) => {
    requests++;
    const isRefused = mode === 'once' ? requests === n : requests >= n;
    if (isRefused) refused++;
    return isRefused ? (0 as never) : original.call(pages, order, gfp, node);
  };
  return {
    end: () => {
      pages.alloc = original;
      return refused;
    },
  };
}

function tryCreate(
  arena: Arena,
  name: string,
  options: Parameters<Arena['createCache']>[1],
): KmemCache | undefined {
  try {
    return arena.createCache(name, options);
  } catch (error) {
    expect(error).toBeInstanceOf(OutOfMemoryError);
    expect((error as Error).message).toMatch(
      /^no memory for cache .*: could not allocate its (struct|nodes|sheaves)$/,
    );
    expect(arena.cacheNames()).not.toContain(name);
    return undefined;
  }
}

/** Everything that may need memory; keeps only what it got, and gives that back in the end. */
function scenario(arena: Arena): void {
  for (const [i, options] of [{ size: 700 }, { size: 64, sheafCapacity: 3000 }, { size: 20_000 }].entries()) {
    const cache = tryCreate(arena, `c${i}`, options);
    if (cache === undefined) continue;
    const held: number[] = [];
    for (let k = 0; k < 2 * cache.sheafCapacity + 5 && k < 100; k++) held.push(cache.alloc());
    const out = new Int32Array(70);
    if (cache.allocBulk(out, 70)) held.push(...out);
    const got = held.filter((p) => p !== 0);
    expect(new Set(got).size).toBe(got.length);
    for (const p of got.splice(0, got.length / 2)) cache.free(p);
    cache.shrink();
    held.length = 0;
    held.push(cache.allocNode(arena.cpu.node), ...got);
    const list = Int32Array.from(held.filter((p) => p !== 0));
    cache.freeBulk(list, list.length);
    expect(cache.destroy()).toMatchObject({ leaked: 0 });
  }
  const blocks = [8, 96, 200, 1000, 5000, 8192, 9000, 100_000].flatMap((size) =>
    Array.from({ length: 2 }, () => ({ p: arena.kmalloc(size), size })),
  );
  for (const block of blocks.filter(({ p }) => p !== 0)) {
    const ends = [0, block.size - 8].map((offset) => offset >> 2);
    for (const offset of ends) arena.i32[(block.p >> 2) + offset] = block.size;
    const grown = arena.krealloc(block.p, block.size * 2);
    const at = grown === 0 ? block.p : grown;
    expect(ends.map((offset) => arena.i32[(at >> 2) + offset])).toEqual([block.size, block.size]);
    arena.kfree(at);
  }
  for (const order of [0, 3, 6]) {
    const p = arena.allocPages(order);
    if (p !== 0) arena.freePages(p, order);
  }
}

const KINDS: Array<{ lockPolicy: LockPolicy; check: CheckLevel }> = [
  { lockPolicy: 'turn', check: 'free' },
  { lockPolicy: 'op', check: 'full' },
];
const CASES = (['once', 'from then on', 'every n-th'] as Mode[]).flatMap((mode) =>
  KINDS.map((kind) => ({ mode, ...kind })),
);

describe('no memory for pages', () => {
  it.each(CASES)(
    '$mode loses nothing wherever it happens, policy $lockPolicy',
    ({ mode, lockPolicy, check }) => {
      let n = 0;
      for (let refused = 1; refused > 0; ) {
        // One by one where that tells something else each time: later, refusals meet the same sites again.
        n += LONG || (mode === 'once' && lockPolicy === 'turn') || n < 20 ? 1 : 12;
        const arena = boot({ bytes: 4 << 20, cpus: 1, lockPolicy, check, maxCaches: 24 });
        const before = footprint(arena);
        const refusal = refuse(arena, mode, n);
        scenario(arena);
        refused = refusal.end();
        expect(arena.validate(), `n = ${n}`).toEqual([]);
        expect(footprint(arena), `n = ${n}`).toEqual(before);
      }
      expect(n, 'requests of the scenario').toBeGreaterThan(40);
    },
  );
});

describe('an arena that is full', () => {
  it('returns 0, and works again when memory is freed', () => {
    const arena = boot({ bytes: 4 << 20 });
    arena.createCache('other', { size: 8 }); // with it, the slab of structs has room for one more
    const cache = arena.createCache('c', { size: 1000 });
    const held: number[] = [];
    for (let p = cache.alloc(); p !== 0; p = cache.alloc()) held.push(p);
    expect(held.length).toBeGreaterThan(1000);
    expect(arena.meminfo().freePages).toBeLessThan(8);
    expect(arena.kmalloc(8192)).toBe(0);
    expect(arena.kzalloc(1 << 20)).toBe(0);
    expect(() => arena.createCache('more', { size: 9000 }).alloc()).not.toThrow();
    expect(cache.allocBulk(new Int32Array(100), 100)).toBe(false);
    expectSound(arena);
    for (const p of held.splice(0, 200)) cache.free(p);
    cache.shrink();
    expect(cache.alloc()).not.toBe(0);
    expectSound(arena);
  });

  it('is no exception but for what cannot be half done', () => {
    const arena = boot({ bytes: 4 << 20 });
    while (arena.allocPages(0) !== 0);
    // What the first caches have left in their slabs serves a few caches more.
    let made = 0;
    expect(() => {
      for (; made < 100; made++) arena.createCache(`c${made}`, { size: 64 });
    }).toThrow(OutOfMemoryError);
    expect(arena.cacheNames()).not.toContain(`c${made}`);
    expectSound(arena);
  });
});
