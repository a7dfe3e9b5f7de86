/** What can be read of a cache of this layer, kmalloc on top of it, and the line that it shares with the sheaves. */

import { describe, expect, it } from 'vitest';
import { CpuSlab, LAYER_STAT_ITEMS, Pcs } from '#src/cpu/index.js';
import { KMALLOC_MAX_CACHE_SIZE, STAT_ITEMS } from '#src/index.js';
import type { Layer } from '#src/struct/index.js';
import { boot, expectSound, footprint, freeMany } from '../cache/support/arena.js';
import { fillSlabs, O, P, POLICIES, setup } from './support.js';

describe('attributes', () => {
  const infoOf = (arena: ReturnType<typeof boot>, name: string) =>
    arena.cacheInfo().find((info) => info.name === name)!;

  it.each([
    [8, 120, 1],
    [64, 120, 4],
    [192, 120, 12],
    [256, 52, 7],
    [1024, 24, 3],
    [4096, 6, 2],
    [8192, 6, 3],
    [20_000, 6, 12],
  ])('size %i: %i objects, %i slabs on a cpu partial list', (size, cpuPartial, slabs) => {
    const { arena, cache } = setup({}, { size });
    expect(cache.desc.cpuPartialSlabs).toBe(slabs);
    expect(infoOf(arena, 'c')).toMatchObject({ cpu_partial: cpuPartial, sheaf_capacity: 0 });
  });

  it('slabs of the CPUs are counted, and are none after a shrink', () => {
    const { arena, cache, other, theirs } = setup();
    const slabs = fillSlabs(cache, 3);
    cache.free(slabs[0]![0]!);
    cache.free(slabs[1]![0]!);
    theirs.alloc();
    arena.endTurn();
    other.endTurn();
    expect(infoOf(arena, 'c')).toMatchObject({
      cpu_slabs: 2 + P,
      slabs_cpu_partial: `${P}(${(P * O) / 2})`,
      slabs: 4,
      partial: 0,
      objects: 4 * O,
    });
    cache.shrink();
    expect(infoOf(arena, 'c')).toMatchObject({ cpu_slabs: 0, slabs_cpu_partial: '0(0)', partial: 3 });
    expect(infoOf(arena, 'kmalloc-64')).toMatchObject({
      cpu_partial: 0,
      cpu_slabs: 0,
      slabs_cpu_partial: '0(0)',
    });
  });

  it('each layer names its own counters, and none of the 26', () => {
    const { arena, cache } = setup();
    expect(Object.keys(cache.layerStats())).toEqual(LAYER_STAT_ITEMS['cpu-slab']);
    expect(LAYER_STAT_ITEMS['cpu-slab']).toHaveLength(14);
    const all: string[] = Object.values(LAYER_STAT_ITEMS).flat();
    expect(all.filter((item) => (STAT_ITEMS as readonly string[]).includes(item))).toEqual([]);
    for (const layer of ['sheaves', 'none'] as Layer[]) {
      expect(arena.createCache(layer, { size: 64, layer }).layerStats()).toEqual({});
    }
  });

  it('the line of a CPU has lock and request where every layer looks for them', () => {
    for (const word of ['lock', 'lastOwner', 'request', 'base', 'SIZEOF'] as const) {
      expect(CpuSlab[word], word).toBe(Pcs[word]);
    }
  });
});

const CASES = (['cpu-slab', 'none'] as Layer[]).flatMap((layer) =>
  POLICIES.flatMap((lockPolicy) => [1, 2].map((nodes) => ({ layer, lockPolicy, nodes }))),
);

describe.each(CASES)('kmalloc in an arena of layer $layer, policy $lockPolicy, $nodes nodes', (options) => {
  it('boots, serves every size, and gives all of it back', () => {
    const arena = boot({ ...options, bytes: 16 << 20 });
    expectSound(arena);
    expect(arena.openCache('kmalloc-64').layer).toBe(options.layer);
    const before = footprint(arena);
    const held: number[] = [];
    for (let size = 1; size <= 2 * KMALLOC_MAX_CACHE_SIZE; size += size < 200 ? 7 : 333) {
      for (let i = 0; i < 5; i++) held.push(arena.kmalloc(size));
    }
    expect(held).not.toContain(0);
    expect(new Set(held).size).toBe(held.length);
    arena.endTurn();
    expectSound(arena);
    const sheaves = arena.createCache('s', { size: 64, layer: 'sheaves' });
    freeMany(
      sheaves,
      Array.from({ length: 200 }, () => sheaves.alloc()),
    );
    expect(sheaves.destroy()).toMatchObject({ leaked: 0 });
    for (const p of held) arena.kfree(p);
    arena.endTurn();
    expectSound(arena);
    expect(footprint(arena)).toEqual(before);
  });
});
