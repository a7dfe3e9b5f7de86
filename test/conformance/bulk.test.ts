/** Many objects at once, and every allocation of a page refused in turn, in every layer and policy. */

import { expect, it } from 'vitest';
import { allocMany, expectSound, footprint, freeMany } from '../cache/support/arena.js';
import { bootVariant, forEachVariant } from './support.js';

const BATCHES = [1, 2, 16, 31, 32, 33, 59, 60, 61, 120, 121, 500, 2000];

forEachVariant((variant) => {
  it('allocates and frees any number, in any order', () => {
    const arena = bootVariant(variant);
    const cache = arena.createCache('c', { size: 64 });
    const out = new Int32Array(2000);
    const before = footprint(arena);
    for (const n of BATCHES) {
      expect(cache.allocBulk(out, n)).toBe(true);
      const taken = out.subarray(0, n);
      expect(new Set(taken).size).toBe(n);
      expectSound(arena);
      if (n % 2 === 0) taken.reverse();
      cache.freeBulk(out, n);
      expectSound(arena);
    }
    expect(footprint(arena)).toEqual(before);
  });

  it('mixes with single operations', () => {
    const arena = bootVariant(variant);
    const cache = arena.createCache('c', { size: 256 });
    const out = new Int32Array(300);
    for (let round = 0; round < 20; round++) {
      const single = allocMany(cache, (round * 13) % 90);
      expect(cache.allocBulk(out, 1 + ((round * 29) % 300))).toBe(true);
      const n = 1 + ((round * 29) % 300);
      expect(new Set([...single, ...out.subarray(0, n)]).size).toBe(single.length + n);
      for (let i = 0; i < n; i += 2) cache.free(out[i]!);
      const odd = Int32Array.from(out.subarray(0, n).filter((_, i) => i % 2 === 1));
      if (odd.length > 0) cache.freeBulk(odd, odd.length);
      freeMany(cache, single);
    }
    expectSound(arena);
    expect(cache.destroy().leaked).toBe(0);
  });

  it('is all or nothing when memory runs out', () => {
    const arena = bootVariant(variant, { bytes: 2 << 20, maxCaches: 24 });
    const cache = arena.createCache('c', { size: 1024 });
    const out = new Int32Array(4000);
    expect(cache.allocBulk(out, 4000)).toBe(false);
    expectSound(arena);
    const n = 200;
    expect(cache.allocBulk(out, n)).toBe(true);
    expect(cache.allocBulk(new Int32Array(4000), 4000)).toBe(false);
    expectSound(arena);
    cache.freeBulk(out, n);
    expect(cache.destroy().leaked).toBe(0);
    expectSound(arena);
  });

  it.each([1, 2, 3, 5])('loses nothing when every page request but %i fails', (every) => {
    const arena = bootVariant(variant, { nodes: 1 });
    const cache = arena.createCache('c', { size: 700 });
    const before = footprint(arena);
    const held: number[] = [];
    const out = new Int32Array(64);
    arena.failPageAlloc(every);
    for (let round = 0; round < 60; round++) {
      const p = cache.alloc();
      if (p !== 0) held.push(p);
      if (cache.allocBulk(out, 40)) held.push(...out.subarray(0, 40));
      if (round % 3 === 2) for (const q of held.splice(0, 30)) cache.free(q);
      if (round % 20 === 19) cache.shrink();
      const large = arena.kmalloc(20_000);
      if (large !== 0) arena.kfree(large);
      const small = arena.kmalloc(300);
      if (small !== 0) arena.kfree(small);
    }
    expect(arena.failPageAlloc(0).refused).toBeGreaterThan(0);
    expect(new Set(held).size).toBe(held.length);
    expectSound(arena);
    freeMany(cache, held);
    expect(footprint(arena)).toEqual(before);
    expectSound(arena);
  });

  it('serves the kmalloc family', () => {
    const arena = bootVariant(variant, { bytes: 32 << 20 });
    const before = footprint(arena);
    const held: number[] = [];
    for (let i = 0; i < 2000; i++) {
      const size = 1 + ((i * 7919) % 9000);
      const p = arena.kmalloc(size);
      if (arena.ksize(p) < size) expect.fail(`ksize of ${size} bytes is ${arena.ksize(p)}`);
      held.push(p);
      if (i % 3 === 2) arena.kfree(held.splice((i * 31) % held.length, 1)[0]!);
      if (i % 97 === 0) held.push(arena.krealloc(held.pop()!, size * 2));
    }
    expect(new Set(held).size).toBe(held.length);
    arena.endTurn();
    expectSound(arena);
    for (const p of held) arena.kfree(p);
    expect(footprint(arena)).toEqual(before);
    expectSound(arena);
  });
});
