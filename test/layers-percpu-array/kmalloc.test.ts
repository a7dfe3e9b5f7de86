/** An arena whose own caches have arrays. */
import { describe, expect, it } from 'vitest';
import { Pcs, pcsOf } from '#src/cpu/index.js';
import { type Arena, CpuError } from '#src/index.js';
import { random } from '#workers/litmus/control.js';
import { boot, expectSound, footprint, inside, secondCpu } from '../cache/support/arena.js';
import { MODES, usedOf } from './support.js';

const LAYER = { layer: 'percpu-array' as const };

/** A word of each block says whose it is; it must still be there when the block is freed. */
function mixedLoad(arenas: Arena[], rounds: number, below: (n: number) => number): void {
  const blocks: Array<{ p: number; size: number; cookie: number }> = [];
  for (let i = 0; i < rounds; i++) {
    const arena = arenas[below(arenas.length)]!;
    if (below(2) === 0 || blocks.length === 0) {
      const size = below(8) === 0 ? 8 + below(20_000) : 8 + below(1100);
      const p = arena.kmalloc(size);
      if (p === 0) continue;
      arena.u8.fill(i & 0xff, p, p + size);
      blocks.push({ p, size, cookie: i & 0xff });
    } else {
      const [block] = blocks.splice(below(blocks.length), 1);
      const { p, size, cookie } = block!;
      const found = [arena.u8[p], arena.u8[p + (size >> 1)], arena.u8[p + size - 1]];
      if (found.some((byte) => byte !== cookie)) expect.fail(`${found} in a block of ${cookie}`);
      arena.kfree(p);
    }
  }
  for (const { p } of blocks) arenas[0]!.kfree(p);
}

describe.each(MODES.flatMap((mode) => [1, 2].map((nodes) => ({ ...mode, nodes }))))(
  'an arena with arrays, policy $lockPolicy, check $check, $nodes nodes',
  (mode) => {
    it('boots, and every kmalloc cache has an array per CPU', () => {
      const arena = boot({ ...LAYER, ...mode });
      const own = ['kmem_cache', 'kmem_cache_node'];
      for (const info of arena.cacheInfo()) {
        const plain = own.includes(info.name);
        expect(info).toMatchObject({ layer: plain ? 'none' : 'percpu-array', sheaf_capacity: 0 });
        expect(info.array_size > 0, info.name).toBe(!plain);
      }
      expectSound(arena);
      expect(arena.kmalloc(100)).not.toBe(0);
      expect(usedOf(arena, arena.openCache('kmalloc-128'))).toBeGreaterThan(0);
    });

    it('serves a mixed load on two CPUs, and has everything back afterwards', () => {
      const arena = boot({ ...LAYER, ...mode, bytes: 16 << 20 });
      const other = secondCpu(arena);
      const before = footprint(arena);
      mixedLoad([arena, other], 4000, random(7));
      other.endTurn();
      expectSound(arena);
      expect(footprint(arena)).toEqual(before);
      const sum = arena
        .cacheInfo()
        .reduce((total, { layer_stats }) => total + (layer_stats.ALLOC_PCA ?? 0), 0);
      expect(sum).toBeGreaterThan(1000);
    });

    it('survives that memory runs out', () => {
      const arena = boot({ ...LAYER, ...mode, bytes: 4 << 20 });
      const before = footprint(arena);
      arena.failPageAlloc(2);
      mixedLoad([arena], 2000, random(11));
      const caches = [100, 3000].map((arraySize, i) => {
        try {
          return arena.createCache(`c${i}`, { size: 64, arraySize });
        } catch {
          return undefined;
        }
      });
      arena.failPageAlloc(0);
      for (const cache of caches) cache?.destroy();
      expectSound(arena);
      expect(footprint(arena)).toEqual(before);
    });

    it('flushes its arrays when a CPU goes offline', () => {
      const arena = boot({ ...LAYER, ...mode });
      const other = secondCpu(arena);
      for (let i = 0; i < 50; i++) other.kfree(other.kmalloc(8 + 16 * i));
      other.offline();
      for (const cache of inside(arena).all()) {
        if (cache.mainCapacity > 0) expect(usedOf(arena, cache, 1), cache.name).toBe(0);
      }
      expectSound(arena);
    });
  },
);

describe('a CPU that keeps its array', () => {
  it('is skipped by shrink and named by destroy', () => {
    const arena = boot(LAYER);
    const cache = arena.createCache('c', { size: 64 });
    const lock = pcsOf(arena.geometry, 1, cache.desc.slot) + Pcs.lock;
    secondCpu(arena).openCache('c').alloc();
    expect(arena.i32[lock]).not.toBe(0);
    expect(cache.shrink().skippedCpus).toEqual([1]);
    expect(() => cache.destroy()).toThrow(CpuError);
    expect(() => cache.destroy()).toThrow(/CPU 1 did not give up its percpu-array of c/);
    expect(
      arena
        .validate()
        .map(({ what }) => what)
        .join(),
    ).toMatch(/the array of CPU 1 is locked by 0x/);
  });
});
