/** The first caches: they are objects of one another, and their sheaves are objects of the kmalloc caches. */

import { describe, expect, it } from 'vitest';
import { KMALLOC_SIZES } from '#src/cache/index.js';
import { Pcs, pcsOf } from '#src/cpu/index.js';
import { Arena, CpuError } from '#src/index.js';
import { Page, virtToPage } from '#src/page/index.js';
import { BOOT_SHEAF, barnOf, Sheaf } from '#src/sheaf/index.js';
import { nodeOf } from '#src/slab/index.js';
import { boot, expectSound, MiB, sheafSizes } from './support/arena.js';

describe.each([
  { cpus: 1, nodes: 1 },
  { cpus: 4, nodes: 1 },
  { cpus: 4, nodes: 4 },
  { cpus: 16, nodes: 16 },
])('a new arena of $cpus CPUs and $nodes nodes', ({ cpus, nodes }) => {
  const arena = boot({ bytes: 16 * MiB, cpus, nodes });
  const open = () => arena.cacheNames().map((name) => arena.openCache(name));

  it('is sound and has the caches that every arena has', () => {
    expectSound(arena);
    const kmallocs = KMALLOC_SIZES.map((size) =>
      size < 1024 ? `kmalloc-${size}` : `kmalloc-${size / 1024}k`,
    );
    expect(arena.cacheNames()).toEqual(['kmem_cache_node', 'kmem_cache', ...kmallocs]);
  });

  it('keeps every cache struct in an object of kmem_cache, that cache included', () => {
    const structs = arena.openCache('kmem_cache').desc.ptr;
    for (const { desc } of open()) {
      const page = virtToPage(arena.geometry, desc.ptr * 4);
      expect(arena.i32[page + Page.cache], desc.name).toBe(structs);
    }
  });

  it('keeps every node struct in an object of kmem_cache_node, on its own node', () => {
    const owner = arena.openCache('kmem_cache_node').desc.ptr;
    for (const { desc } of open()) {
      for (let node = 0; node < nodes; node++) {
        const n = nodeOf(arena.i32, desc, node);
        expect(arena.i32[virtToPage(arena.geometry, n * 4) + Page.cache], desc.name).toBe(owner);
      }
    }
  });

  it('has sheaves for the kmalloc caches, which lie in kmalloc caches, and none for the two first', () => {
    for (const cache of open()) {
      const isFirst = ['kmem_cache', 'kmem_cache_node'].includes(cache.name);
      expect(cache.sheafCapacity > 0, cache.name).toBe(!isFirst);
      if (isFirst) continue;
      for (let cpu = 0; cpu < cpus; cpu++) {
        const main = arena.i32[pcsOf(arena.geometry, cpu, cache.desc.slot) + Pcs.main]!;
        expect(main).not.toBe(BOOT_SHEAF);
        expect(arena.i32[main + Sheaf.cache]).toBe(cache.desc.ptr);
        expect(arena.ksize(main * 4)).toBe(16 + 4 * cache.sheafCapacity);
      }
      for (let node = 0; node < nodes; node++) {
        expect(arena.ksize(barnOf(arena.cpu, cache.desc, node) * 4)).toBe(64);
      }
    }
  });

  it('has nobody online but its creator, who took a slot like any other', () => {
    expect(arena.onlineCpus).toEqual([0]);
    arena.offline();
    expect(arena.onlineCpus).toEqual([]);
    expect(() => arena.validate()).toThrow(CpuError);
    arena.online({ cpu: 0 });
    expectSound(arena);
  });

  it('left nothing in the sheaves of the CPU that booted it', () => {
    const fresh = boot({ bytes: 16 * MiB, cpus, nodes });
    for (const name of fresh.cacheNames()) {
      const cache = fresh.openCache(name);
      if (cache.sheafCapacity > 0)
        expect(sheafSizes(fresh, cache, 0), name).toEqual({ main: 0, spare: null });
    }
  });
});

describe('sheaves for kmalloc caches', () => {
  it('nest one level and no more when both families are dry', () => {
    const arena = boot({ bytes: 16 * MiB });
    // kmalloc-128 sheaves lie in kmalloc-256 and the reverse: empty both, then ask for one of each.
    for (const size of [256, 128]) {
      const cache = arena.openCache(`kmalloc-${size}`);
      const held: number[] = [];
      for (let i = 0; i < 500; i++) held.push(arena.kmalloc(size));
      expectSound(arena);
      for (const p of held) arena.kfree(p);
      expectSound(arena);
      expect(cache.stat('ALLOC_SLOWPATH')).toBeGreaterThanOrEqual(0);
    }
    expect(arena.cpu.sheafAllocDepth).toBe(0);
  });
});

describe('an arena that is too small', () => {
  it('says how large it must be, and that size works', () => {
    for (const options of [
      { cpus: 1, maxCaches: 16 },
      { cpus: 8 },
      { cpus: 8, nodes: 8 },
      { cpus: 4, check: 'none' as const },
      { cpus: 4, lockStat: 'full' as const },
      { cpus: 64, nodes: 16 },
      { cpus: 256, maxCaches: 254 },
    ]) {
      let needed = 0;
      try {
        Arena.create({ bytes: 8192, ...options });
      } catch (error) {
        expect(error).toBeInstanceOf(RangeError);
        needed = Number(/at least (\d+)/.exec((error as Error).message)?.[1]);
      }
      expect(needed).toBeGreaterThan(8192);
      const arena = Arena.create({ bytes: needed, ...options });
      arena.online();
      expectSound(arena);
    }
  });
});
