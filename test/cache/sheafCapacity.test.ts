import { describe, expect, it } from 'vitest';
import { Arena } from '#src/index.js';

const MIB = 2 ** 20;

describe('the sheafCapacity of an arena', () => {
  it.each([1, 4, 240])(
    '%d gives every cache with sheaves that many objects in each, whatever its rule',
    (n) => {
      const arena = Arena.create({ bytes: 16 * MIB, cpus: 2, sheafCapacity: n });
      arena.online();
      const cache = arena.createCache('objects', { size: 64 });
      const asked = arena.createCache('asked', { size: 64, sheafCapacity: 100 });
      expect([cache.sheafCapacity, asked.sheafCapacity]).toEqual([n, n]);
      const own = arena.cacheInfo().filter(({ name }) => name.startsWith('kmalloc-'));
      expect(own.length).toBeGreaterThan(10);
      expect(new Set(own.map(({ sheaf_capacity }) => sheaf_capacity))).toEqual(new Set([n]));
      const live = Array.from({ length: 1000 }, () => cache.alloc());
      for (const p of live) cache.free(p);
      const block = arena.kmalloc(100);
      arena.kfree(block);
      arena.endTurn();
      expect(arena.validate()).toEqual([]);
      expect(cache.destroy().leaked).toBe(0);
    },
  );

  it('is left to the rule by default', () => {
    const arena = Arena.create({ bytes: 8 * MIB, cpus: 2 });
    arena.online();
    expect(arena.createCache('objects', { size: 64 }).sheafCapacity).toBe(60);
  });

  it.each([-1, 1.5, 4097])('%d is refused', (sheafCapacity) => {
    expect(() => Arena.create({ bytes: 8 * MIB, sheafCapacity })).toThrow(
      /sheafCapacity is .*; it must be an integer from 0 to 4096/,
    );
  });
});
