/** Encoded links (S067): what is stored, what a stray write becomes, and the double free of a freelist's head. */
import { describe, expect, it } from 'vitest';
import type { KmemCache } from '#src/cache/index.js';
import { type Arena, SlabBugError } from '#src/index.js';
import { readFreePointer } from '#src/slab/index.js';
import {
  allocMany,
  boot,
  expectSound,
  freeMany,
  inside,
  partialList,
  secondCpu,
  slabAt,
} from '../cache/support/arena.js';
import { forgeLink, HARDENED, linkWord, sent, setup } from './support.js';

/** A slab whose objects are all free but the first few; returns the free ones in the order of the freelist. */
function freeObjects(cache: KmemCache, kept = 1): number[] {
  const held = allocMany(cache, cache.desc.objects);
  freeMany(cache, held.slice(kept).toReversed());
  return held.slice(kept);
}

const O = 64;
const lost = (arena: Arena): number => arena.validate().filter(({ what }) => what.includes('lost')).length;

describe('a link', () => {
  it('is stored as it is in a plain arena', () => {
    const { arena, cache } = setup({});
    const [p, next] = freeObjects(cache) as [number, number];
    expect(cache.desc.random).toBe(0);
    expect(arena.i32[linkWord(cache, p)]).toBe(next);
  });

  it('is stored as no address in a hardened one, and differs by word and cache', () => {
    const { arena, cache } = setup(HARDENED);
    const other = arena.createCache('other', { size: 64 });
    expect(cache.desc.random).not.toBe(0);
    expect(other.desc.random).not.toBe(cache.desc.random);
    const free = freeObjects(cache);
    const words = free.map((p) => arena.i32[linkWord(cache, p)]!);
    expect(words.filter((word, i) => word === (free[i + 1] ?? 0))).toEqual([]);
    expect(new Set(words.map((word, i) => word ^ (free[i + 1] ?? 0))).size, 'masks').toBe(words.length);
    expect(free.map((p) => readFreePointer(arena.i32, cache.desc, p))).toEqual([...free.slice(1), 0]);
    expectSound(arena);
  });

  it('has the same secret for the same seed', () => {
    const secret = (seed: number): number => setup({ ...HARDENED, kmalloc: { seed } }).cache.desc.random;
    expect(secret(1)).toBe(secret(1));
    expect(secret(1)).not.toBe(secret(2));
  });
});

/** What somebody may have written over the link of a freed object. */
const STRAY: ReadonlyArray<[string, (arena: Arena, cache: KmemCache, free: number[]) => void]> = [
  ['a zero', (arena, cache, [p]) => arena.i32.fill(0, linkWord(cache, p!), linkWord(cache, p!) + 1)],
  ['an address of the slab', (arena, cache, [p, next]) => arena.i32.set([next!], linkWord(cache, p!))],
  ['a link outside of the slab', (arena, cache, [p]) => forgeLink(arena, cache, p!, p! + 8192)],
  ['a link into page 0', (arena, cache, [p]) => forgeLink(arena, cache, p!, 64)],
  ['a negative link', (arena, cache, [p]) => forgeLink(arena, cache, p!, -64)],
  [
    'a link into the middle of an object',
    (arena, cache, [p, next]) => forgeLink(arena, cache, p!, next! + 8),
  ],
  ['a link to itself', (arena, cache, [p]) => forgeLink(arena, cache, p!, p!)],
];

describe.each(STRAY)('%s over a link', (_, spoil) => {
  it('is reported by a pop, and what is behind it is lost', async () => {
    const { arena, cache, reports } = setup(HARDENED);
    const free = freeObjects(cache);
    spoil(arena, cache, free);
    expect(cache.alloc()).toBe(free[0]);
    await sent();
    expect(reports.map(({ kind }) => kind)).toEqual(['bug', 'fix']);
    expect(reports[0]!.what).toContain(`Freechain corrupt: 0x${free[0]!.toString(16)} leads to`);
    expect(reports[0]).toMatchObject({ cache: 'c', object: { address: free[0] } });
    expect(cache.debug.errors).toBe(2);
    expect(lost(arena)).toBe(O - 2);
    expect(arena.validate()).toHaveLength(O - 2);
    const more = allocMany(cache, O);
    expect(
      more.filter((p) => free.includes(p)),
      'nothing behind the cut is handed out',
    ).toEqual([]);
    freeMany(cache, [free[0]!, ...more]);
    expect(lost(arena)).toBe(O - 2);
  });

  it('is reported by a refill, which gets what comes before', async () => {
    const { arena, cache, reports } = setup({ ...HARDENED, layer: 'sheaves' });
    const held = allocMany(cache, 10 * O);
    freeMany(cache, held);
    cache.shrink();
    const keep = allocMany(cache, 1);
    cache.shrink();
    const { slabs } = inside(arena);
    const page = slabs.slabOf(keep[0]!);
    const free: number[] = [];
    const { freelist, address } = slabAt(arena, page);
    for (let p = address + (freelist - 1) * 64; p !== 0; p = readFreePointer(arena.i32, cache.desc, p))
      free.push(p);
    expect(free).toHaveLength(O - 1);
    spoil(arena, cache, free.slice(5));
    const out = new Int32Array(O);
    const got = slabs.refillObjects(cache.desc, out, 0, 8, 40, 0);
    expect([...out.subarray(0, 6)]).toEqual(free.slice(0, 6));
    expect([...out.subarray(6, got)].filter((p) => free.includes(p))).toEqual([]);
    await sent();
    expect(reports.map(({ kind }) => kind)).toEqual(['bug', 'fix']);
    expect(slabAt(arena, page)).toMatchObject({ freelist: 0, inuse: O });
    slabs.freeObjects(cache.desc, out, 0, got);
    expect(lost(arena)).toBe(O - 1 - 6);
  });

  it.each(['turn', 'op'] as const)(
    'is reported by a CPU that has the list to itself, %s',
    async (lockPolicy) => {
      const { arena, cache, reports } = setup({ ...HARDENED, layer: 'cpu-slab', lockPolicy });
      const free = freeObjects(cache);
      spoil(arena, cache, free);
      expect(cache.alloc()).toBe(free[0]);
      const next = cache.alloc();
      expect(free).not.toContain(next);
      await sent();
      expect(reports.map(({ kind }) => kind)).toEqual(['bug', 'fix']);
      freeMany(cache, [free[0]!, next]);
      arena.endTurn();
      expect(lost(arena)).toBe(O - 2);
    },
  );
});

describe('a double free of the head of a freelist', () => {
  // Without the shadow nothing else tells.
  const unchecked = { ...HARDENED, check: 'none' } as const;

  it.each([
    ['none', 'turn'],
    ['none', 'op'],
    ['cpu-slab', 'turn'],
    ['cpu-slab', 'op'],
  ] as const)('is refused, and changes nothing: %s, %s', (layer, lockPolicy) => {
    const { arena, cache } = setup({ ...unchecked, layer, lockPolicy });
    const held = allocMany(cache, 3);
    const [p] = held as [number];
    cache.free(p);
    const again = (): void => cache.free(p);
    expect(again).toThrow(SlabBugError);
    expect(again).toThrow(expect.objectContaining({ kind: 'double-free', cache: 'c', address: p }));
    expect(allocMany(cache, 2).filter((other) => other === p)).toHaveLength(1);
    expectSound(arena);
  });

  it('that another slab has is refused, too', () => {
    const { arena, cache } = setup({ ...unchecked, layer: 'cpu-slab' });
    const held = allocMany(cache, 3 * O);
    const [p, q] = held as [number, number];
    cache.free(p);
    cache.free(q);
    expect(() => cache.free(q)).toThrow(SlabBugError);
    freeMany(cache, held.slice(2));
    arena.endTurn();
    expectSound(arena);
  });

  it('is left out of a batch, whose others are freed', async () => {
    const { arena, cache, reports } = setup(unchecked);
    const held = allocMany(cache, 2 * O);
    const { slabs } = inside(arena);
    const [p, q, r] = held as [number, number, number];
    cache.free(p);
    // Twice in the list in a row, and once already free.
    slabs.freeObjects(cache.desc, Int32Array.of(r, q, q, p), 0, 4);
    await sent();
    expect(reports.filter(({ kind }) => kind === 'bug')).toHaveLength(1);
    expect(reports[0]!.what).toMatch(/already free/);
    expectSound(arena);
    const page = slabs.slabOf(p);
    expect(slabAt(arena, page).inuse).toBe(O - 3);
    expect(new Set(allocMany(cache, 3))).toEqual(new Set([p, q, r]));
  });

  it('is refused in restricted contexts', () => {
    const { arena, cache } = setup(unchecked);
    const p = arena.kmalloc(64);
    const other = arena.kmalloc(64);
    arena.kfree(p);
    expect(() => arena.kfreeNolock(p)).toThrow(SlabBugError);
    arena.kfree(other);
    cache.shrink();
    expectSound(arena);
  });

  it("is the shadow's to tell where there is one", () => {
    const { arena, cache } = setup(HARDENED);
    const p = cache.alloc();
    cache.free(p);
    expect(() => cache.free(p)).toThrow(/already free/);
    expectSound(arena);
  });
});

describe('other readers of links', () => {
  it('find a debug cache sound, and its damage as ever', () => {
    const { arena, cache, reports } = setup({ ...HARDENED, slabDebug: 'FZPU' });
    const free = freeObjects(cache);
    expect(cache.debug.validate().errors).toBe(0);
    forgeLink(arena, cache, free[0]!, free[0]! + 4);
    expect(cache.debug.validate().errors).toBeGreaterThan(0);
    expect(reports.map(({ what }) => what)).toContain('Freechain corrupt');
  });

  it('survive frees that are put off to the end of an operation', () => {
    const { arena } = setup({ ...HARDENED, slabDebug: 'FZPU' });
    const held = Array.from({ length: 40 }, () => arena.kmallocNolock(64));
    for (const p of held) arena.kfreeNolock(p);
    arena.endTurn();
    freeMany(arena.openCache('kmalloc-64'), allocMany(arena.openCache('kmalloc-64'), 50));
    expectSound(arena);
  });

  it("a dead CPU's freelist is taken over", () => {
    const arena = boot({ ...HARDENED, layer: 'cpu-slab' });
    const cache = arena.createCache('c', { size: 64 });
    const theirs = secondCpu(arena);
    freeMany(theirs.openCache('c'), allocMany(theirs.openCache('c'), 100));
    arena.cpuDead(1);
    expectSound(arena);
    cache.shrink();
    expect(partialList(arena, cache)).toEqual([]);
  });
});

it.each(['freelistHardened', 'freelistRandom'])('%s must be a boolean', (option) => {
  expect(() => boot({ [option]: 1 })).toThrow(`${option} is 1; it must be a boolean`);
});
