/**
 * No memory at any point of prefill, refill and return: each request for pages is refused once, or from then on, for
 * n = 1, 2, ... until nothing is refused any more. Nothing may be lost, and a refill that fails changes nothing.
 */

import { describe, expect, it } from 'vitest';
import type { KmemCache, PrefilledSheaf } from '#src/cache/index.js';
import { type Arena, GFP_NOWAIT } from '#src/index.js';
import { boot, expectSound, footprint, inside, LONG, pagesOf } from '../cache/support/arena.js';
import { POLICIES, prefill, take } from './support.js';

type Mode = 'once' | 'from then on' | 'every n-th';

/** Refuses requests for pages as the mode says; returns how to end it, which says how many were refused. */
function refuse(arena: Arena, mode: Mode, n: number): () => number {
  if (mode === 'every n-th') {
    arena.failPageAlloc(n);
    return () => arena.failPageAlloc(0).refused;
  }
  const pages = pagesOf(arena);
  const { alloc } = pages;
  let requests = 0;
  let refused = 0;
  pages.alloc = (...args) => {
    requests++;
    if (mode === 'once' ? requests !== n : requests < n) return alloc.apply(pages, args);
    refused++;
    return 0 as never;
  };
  return () => {
    pages.alloc = alloc;
    return refused;
  };
}

const wordsOf = (arena: Arena, sheaf: PrefilledSheaf): number[] =>
  Array.from(arena.i32.subarray(sheaf.at, sheaf.at + 4 + sheaf.size));

/** Refills, and expects that a failure changed nothing. */
function refillOrKeep(arena: Arena, cache: KmemCache, sheaf: PrefilledSheaf, n: number): PrefilledSheaf {
  const before = wordsOf(arena, sheaf);
  const filled = cache.refill(sheaf, n);
  if (filled !== null) {
    expect(filled.size).toBeGreaterThanOrEqual(n);
    return filled;
  }
  expect(wordsOf(arena, sheaf), 'the sheaf that could not be filled').toEqual(before);
  return sheaf;
}

/** Borrows, pops, refills and returns sheaves of all sizes; keeps nothing. Sheaves above 2 KiB are blocks of pages. */
function scenario(arena: Arena, cache: KmemCache): void {
  const held: number[] = [];
  for (const n of [1, cache.sheafCapacity, 5, 30, 70, 2100]) {
    let sheaf = cache.prefill(n, GFP_NOWAIT);
    if (sheaf === null) continue;
    expect(sheaf.size).toBeGreaterThanOrEqual(n);
    held.push(...take(sheaf, n));
    for (const wanted of [1, n, n + 1, 2 * n + cache.sheafCapacity]) {
      sheaf = refillOrKeep(arena, cache, sheaf, wanted);
      if (sheaf.size > 0) held.push(...take(sheaf, Math.min(2, sheaf.size)));
    }
    const second = cache.prefill(2);
    cache.return(sheaf);
    if (second !== null) cache.return(second);
  }
  expect(new Set(held).size).toBe(held.length);
  for (const p of held) cache.free(p);
}

const CASES = (['once', 'from then on', 'every n-th'] as Mode[]).flatMap((mode) =>
  POLICIES.flatMap((policy) =>
    (LONG ? [0, 200, 4096] : policy === 'turn' ? [4096] : [200]).map((size) => ({ mode, policy, size })),
  ),
);

describe('no memory for pages', () => {
  it.each(CASES)(
    '$mode loses nothing, policy $policy, objects of $size bytes (0: without sheaves)',
    ({ mode, policy, size }) => {
      let n = 0;
      for (let refused = 1; refused > 0; n += n < 12 ? 1 : 1 + (n >> 1)) {
        const arena = boot({ bytes: 64 << 20, cpus: 1, lockPolicy: policy, maxCaches: 24 });
        const cache = arena.createCache('c', { size: size || 300, ...(size === 0 ? { layer: 'none' } : {}) });
        const before = footprint(arena);
        const end = refuse(arena, mode, n + 1);
        scenario(arena, cache);
        refused = end();
        expect(arena.validate(), `n = ${n + 1}`).toEqual([]);
        expect(footprint(arena), `n = ${n + 1}`).toEqual(before);
      }
      expect(n, 'requests of the scenario').toBeGreaterThan(10);
    },
  );
});

describe.each(POLICIES)('no memory for a sheaf, policy %s', (policy) => {
  it('prefill is null, refill leaves the old sheaf', () => {
    const arena = boot({ lockPolicy: policy });
    const cache = arena.createCache('c', { size: 4096 });
    const sheaf = prefill(cache, 3);
    const caches = inside(arena);
    const original = caches.allocEmptySheaf;
    const wanted: unknown[][] = [];
    caches.allocEmptySheaf = (...args) => {
      wanted.push(args.slice(1));
      return 0 as never;
    };
    expect(cache.prefill(1, GFP_NOWAIT) === null).toBe(true);
    expect(cache.prefill(9) === null).toBe(true);
    expect(refillOrKeep(arena, cache, sheaf, 10) === sheaf).toBe(true);
    // Normal capacity with the caller's flags, then the sizes asked for.
    expect(wanted).toEqual([
      [cache.sheafCapacity, GFP_NOWAIT],
      [9, 2],
      [10, 2],
    ]);
    caches.allocEmptySheaf = original;
    expectSound(arena);
    cache.return(sheaf);
    expectSound(arena);
  });
});
