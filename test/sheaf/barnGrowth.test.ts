/** A barn's limit of full sheaves moves: up where bursts show that it is too low, down where nobody needs it. */

import { describe, expect, it } from 'vitest';
import type { Arena, ArenaOptions, KmemCache } from '#src/index.js';
import { barnMissed } from '#src/sheaf/barnLimit.js';
import { Barn, barnLimit, barnOf } from '#src/sheaf/index.js';
import { allocMany, barnSizes, boot, expectSound, freeMany, inside, moved } from '../cache/support/arena.js';

const SIZE = 256;
const C = 28;
/** Objects that main, spare and a barn with the kernel's limit hold. */
const KERNELS = 12 * C;

function setup(options: Partial<ArenaOptions> = {}) {
  const arena = boot({ bytes: 64 << 20, ...options });
  const cache = arena.createCache('c', { size: SIZE });
  expect(cache.sheafCapacity).toBe(C);
  return { arena, cache };
}

const limitOf = (arena: Arena, cache: KmemCache) => barnLimit(arena.cpu, barnOf(arena.cpu, cache.desc, 0));
const mostOf = (arena: Arena, cache: KmemCache) =>
  arena.geometry.barnFull + arena.i32[barnOf(arena.cpu, cache.desc, 0) + Barn.most]!;
const burst = (cache: KmemCache, n: number) => freeMany(cache, allocMany(cache, n));

describe.each(['turn', 'op'] as const)('the limit of a barn, policy %s', (lockPolicy) => {
  it('rises until bursts of one size fit, and then no slab is touched any more', () => {
    const { arena, cache } = setup({ lockPolicy });
    for (let round = 0; round < 20; round++) burst(cache, KERNELS + 6 * C);
    expect(limitOf(arena, cache)).toBe(16);
    expect(moved(cache, () => burst(cache, KERNELS + 6 * C))).not.toMatchObject({
      SHEAF_FLUSH: expect.any(Number),
      SHEAF_REFILL: expect.any(Number),
    });
    expectSound(arena);
    expect(cache.destroy().leaked).toBe(0);
  });

  it('is the kernel’s for the first three spills that are regretted', () => {
    const { arena, cache } = setup({ lockPolicy });
    // The first burst spills, the others each miss what the one before spilled.
    for (let round = 0; round < 4; round++) burst(cache, KERNELS + C);
    expect(limitOf(arena, cache)).toBe(10);
    burst(cache, KERNELS + C);
    expect(limitOf(arena, cache)).toBe(11);
  });

  it('does not rise where what spills is not wanted back', () => {
    const { arena, cache } = setup({ lockPolicy });
    const held = allocMany(cache, 200 * C);
    freeMany(cache, held);
    burst(cache, KERNELS);
    burst(cache, KERNELS);
    expect(limitOf(arena, cache)).toBe(10);
    expectSound(arena);
  });

  it('never passes barnFullMax, nor a 128th of the node', () => {
    const { arena, cache } = setup({ lockPolicy, barnFullMax: 13 });
    for (let round = 0; round < 40; round++) burst(cache, KERNELS + 8 * C);
    expect(limitOf(arena, cache)).toBe(13);
    expectSound(arena);
    const small = setup({ lockPolicy, bytes: 16 << 20, nodes: 1 });
    for (let round = 0; round < 80; round++) burst(small.cache, KERNELS + 30 * C);
    expect(limitOf(small.arena, small.cache)).toBe(Math.floor((16 << 20) / 128 / (C * SIZE)));
    expect(limitOf(small.arena, small.cache)).toBe(mostOf(small.arena, small.cache));
    expectSound(small.arena);
  });

  it('is fixed when the arena says how many', () => {
    const { arena, cache } = setup({ lockPolicy, barnFull: 10 });
    for (let round = 0; round < 20; round++) burst(cache, KERNELS + 6 * C);
    expect(limitOf(arena, cache)).toBe(10);
    expect(mostOf(arena, cache)).toBe(10);
  });

  it('falls again when what it allows is not used for long, and the sheaves go with it', () => {
    const { arena, cache } = setup({ lockPolicy });
    for (let round = 0; round < 40; round++) burst(cache, KERNELS + 10 * C);
    expect(limitOf(arena, cache)).toBe(20);
    expect(barnSizes(arena, cache).full).toHaveLength(20);
    for (let round = 0; round < 2000; round++) burst(cache, 4 * C);
    expect(limitOf(arena, cache)).toBe(10);
    expect(barnSizes(arena, cache).full.length).toBeLessThanOrEqual(10);
    expectSound(arena);
  });

  it('is forgotten by shrink', () => {
    const { arena, cache } = setup({ lockPolicy });
    for (let round = 0; round < 20; round++) burst(cache, KERNELS + 6 * C);
    cache.shrink();
    expect(limitOf(arena, cache)).toBe(10);
    expect(barnSizes(arena, cache)).toEqual({ full: [], empty: 0 });
    expectSound(arena);
  });
});

it('an arena refuses a barnFullMax below barnFull', () => {
  expect(() => boot({ barnFull: 5, barnFullMax: 4 })).toThrow(/barnFullMax is 4.*5/);
});

it('a miss of two CPUs at once, or one too many, is not regretted for ever', () => {
  const arena = boot();
  const cache = arena.createCache('c', { size: 64 });
  const barn = barnOf(inside(arena).cpu, cache.desc, 0);
  for (const spilled of [0, -1]) {
    arena.i32[barn + Barn.spilled] = spilled;
    for (let i = 0; i < 100; i++) barnMissed(arena.i32, barn);
    expect(arena.i32[barn + Barn.spilled]).toBe(spilled);
    expect(arena.i32[barn + Barn.growth]).toBe(0);
  }
});
