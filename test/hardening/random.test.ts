/** Freelists in random order (S068): one sequence for a cache, from another start in each slab. */
import fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import { forEachSlab, type KmemCache } from '#src/cache/index.js';
import { type Arena, defineCache } from '#src/index.js';
import { Page, pageAddress } from '#src/page/index.js';
import { randomSequence } from '#src/slab/index.js';
import { allocMany, expectSound, freeMany, inside, secondCpu, slabAt } from '../cache/support/arena.js';
import { RANDOM, setup } from './support.js';

/** Object indices in the order in which they are handed out, slab by slab. */
function orders(arena: Arena, cache: KmemCache, slabs: number): number[][] {
  const { objects, size } = cache.desc;
  const { slabs: allocator } = inside(arena);
  const held = allocMany(cache, slabs * objects);
  const bySlab = new Map<number, number[]>();
  for (const p of held) {
    const page = allocator.slabOf(p);
    const index = Math.floor((p - pageAddress(arena.geometry, page)) / size);
    bySlab.set(page, [...(bySlab.get(page) ?? []), index]);
  }
  freeMany(cache, held);
  return [...bySlab.values()];
}

const rotated = (order: number[]): number[] => {
  const at = order.indexOf(0);
  return [...order.slice(at), ...order.slice(0, at)];
};

const ascending = (n: number): number[] => Array.from({ length: n }, (_, i) => i);

describe('the sequence of a cache', () => {
  it('has each object once, and is another one for another cache or seed', () => {
    fc.assert(
      fc.property(
        fc.integer({ min: 1, max: 2048 }),
        fc.nat(0xffffffff),
        fc.nat(1000),
        fc.nat(1000),
        (objects, kmallocSeed, slot, serial) => {
          const sequence = [...randomSequence({ kmallocSeed }, { slot, serial, objects })];
          expect(sequence.toSorted((a, b) => a - b)).toEqual(ascending(objects));
          expect([...randomSequence({ kmallocSeed }, { slot, serial, objects })]).toEqual(sequence);
          if (objects < 20) return;
          expect(sequence).not.toEqual(ascending(objects));
          expect([
            ...randomSequence({ kmallocSeed: kmallocSeed ^ 1 }, { slot, serial, objects }),
          ]).not.toEqual(sequence);
          expect([...randomSequence({ kmallocSeed }, { slot: slot + 1, serial, objects })]).not.toEqual(
            sequence,
          );
        },
      ),
      { numRuns: 100 },
    );
  });

  it('puts each object at each place about as often', () => {
    const objects = 8;
    const runs = 8000;
    const counts = Array.from({ length: objects }, () => Array<number>(objects).fill(0));
    for (let kmallocSeed = 0; kmallocSeed < runs; kmallocSeed++) {
      const sequence = randomSequence({ kmallocSeed }, { slot: 3, serial: 5, objects });
      for (const [place, index] of sequence.entries()) counts[place]![index]!++;
    }
    // 1000 expected in each of 64 places, with a standard deviation of 30.
    for (const count of counts.flat()) expect(Math.abs(count - runs / objects)).toBeLessThan(180);
  });
});

describe.each([
  ['a freelist built when its slab is made', false],
  ['a freelist built of what is left', true],
])('%s', (_, lazyFreelist) => {
  const options = { ...RANDOM, refinements: { lazyFreelist } };

  it('follows the sequence from another start in each slab', () => {
    const { arena, cache } = setup(options);
    const found = orders(arena, cache, 12);
    const sequence = rotated([...randomSequence(arena.geometry, cache.desc)]);
    expect(found).toHaveLength(12);
    for (const order of found) expect(rotated(order)).toEqual(sequence);
    expect(new Set(found.map(([first]) => first)).size, 'starts of 12 slabs').toBeGreaterThan(6);
    expectSound(arena);
  });

  it('is the same again with the same seed, and another one with another', () => {
    const run = (seed: number): number[][] => {
      const { arena, cache } = setup({ ...options, kmalloc: { seed } });
      return orders(arena, cache, 4);
    };
    expect(run(7)).toEqual(run(7));
    expect(run(7)).not.toEqual(run(8));
  });

  it.each([
    { layer: 'cpu-slab' },
    { layer: 'none', slabDebug: 'FZPU' },
    { layer: 'none', tiny: true },
  ] as const)('is shuffled with %o, too', (more) => {
    const { arena, cache } = setup({ ...options, ...more });
    const sequence = rotated([...randomSequence(arena.geometry, cache.desc)]);
    for (const order of orders(arena, cache, 3)) expect(rotated(order)).toEqual(sequence);
    expectSound(arena);
  });
});

describe('a shuffled slab', () => {
  it('is the same on all threads: they share the sequence', () => {
    const { arena, cache } = setup(RANDOM);
    const theirs = secondCpu(arena).openCache('c');
    const sequence = rotated([...randomSequence(arena.geometry, cache.desc)]);
    for (const order of orders(arena, theirs, 2)) expect(rotated(order)).toEqual(sequence);
    expectSound(arena);
  });

  it('of fewer objects than usual steps over what it has not', () => {
    const { arena, cache } = setup(RANDOM, { size: 1100 });
    const { slabs } = inside(arena);
    const { desc } = cache;
    expect(desc.minObjects).toBeGreaterThan(1);
    expect(desc.minObjects).toBeLessThan(desc.objects);
    const base = 1 << 20;
    const deal = slabs as unknown as {
      dealObjects(s: object, base: number, n: number, out: Int32Array, at: number, handed: number): number;
    };
    const out = new Int32Array(desc.minObjects);
    expect(deal.dealObjects(desc, base, desc.minObjects, out, 0, desc.minObjects)).toBe(0);
    const indices = [...out].map((p) => (p - base) / desc.size);
    expect(indices.toSorted((a, b) => a - b)).toEqual(ascending(desc.minObjects));
    const fits = (index: number): boolean => index < desc.minObjects;
    expect(rotated(indices)).toEqual(rotated([...randomSequence(arena.geometry, desc)].filter(fits)));
  });

  it('of one object has no order', () => {
    const { arena, cache } = setup(RANDOM, { size: 20_000 });
    expect(cache.desc.objects).toBe(1);
    freeMany(cache, allocMany(cache, 5));
    expectSound(arena);
  });

  it('is constructed in the order of addresses all the same', () => {
    const seen: number[] = [];
    const { arena } = setup(RANDOM);
    const made = defineCache('constructed-in-order', { size: 64, ctor: (p) => void seen.push(p) });
    const cache = arena.createCache(made);
    const [order] = orders(arena, cache, 1);
    expect(seen).toHaveLength(cache.desc.objects);
    expect(seen).toEqual(seen.toSorted((a, b) => a - b));
    expect(order).not.toEqual(ascending(cache.desc.objects));
    expectSound(arena);
  });

  it('does not exist before the first caches are booted', () => {
    const { arena } = setup(RANDOM);
    const [first] = arena.cacheNames().map((name) => arena.openCache(name));
    const pages: number[] = [];
    forEachSlab(arena.i32, arena.geometry, (page) => {
      if (arena.i32[page + Page.cache] === first!.desc.ptr) pages.push(page);
    });
    const { address, freelist } = slabAt(arena, pages[0] as never);
    const { offset, size } = first!.desc;
    const next = address + (freelist - 1) * size;
    expect(arena.i32[(next + offset) >> 2]).toBe(next + size);
  });
});
