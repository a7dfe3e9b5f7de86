/** What a user of a cache relies on, in every caching layer and under both lock policies. */

import { expect, it } from 'vitest';
import { __GFP_THISNODE, __GFP_ZERO, GFP_KERNEL, SlabBugError } from '#src/index.js';
import {
  allocMany,
  expectSound,
  expectUnchanged,
  freeMany,
  moved,
  pagesOf,
  secondCpu,
} from '../cache/support/arena.js';
import { bootVariant, exhaust, forEachVariant } from './support.js';

const SIZES = [8, 24, 64, 200, 256, 1000, 1024, 4096, 5000];

forEachVariant((variant) => {
  it.each(SIZES)('hands out distinct, aligned objects of %i bytes that keep what is written', (size) => {
    const arena = bootVariant(variant);
    const cache = arena.createCache('c', { size, align: size === 64 ? 64 : 8 });
    expect(cache.layer).toBe(variant.layer);
    const held = allocMany(cache, 300);
    expect(new Set(held).size).toBe(held.length);
    held.sort((a, b) => a - b);
    expect(held.filter((p) => p % cache.desc.align !== 0)).toEqual([]);
    expect(
      held.filter((p, i) => i > 0 && p - held[i - 1]! < size),
      'objects overlap',
    ).toEqual([]);
    for (const [i, p] of held.entries()) arena.u8.fill(i & 255, p, p + size);
    const kept = held.filter((p, i) => arena.u8[p] === (i & 255) && arena.u8[p + size - 1] === (i & 255));
    expect(kept).toEqual(held);
    freeMany(cache, held);
    expectSound(arena);
    expect(cache.destroy().leaked).toBe(0);
    expectSound(arena);
  });

  it('zeroes on request, and only then is that certain', () => {
    const arena = bootVariant(variant);
    const cache = arena.createCache('c', { size: 72 });
    for (let round = 0; round < 3; round++) {
      const held = allocMany(cache, 200);
      for (const p of held) arena.u8.fill(0xff, p, p + 72);
      freeMany(cache, held);
      const p = cache.alloc(GFP_KERNEL | __GFP_ZERO);
      expect(arena.u8.subarray(p, p + 72).every((byte) => byte === 0)).toBe(true);
      cache.free(p);
    }
    const out = new Int32Array(100);
    expect(cache.allocBulk(out, 100, GFP_KERNEL | __GFP_ZERO)).toBe(true);
    for (const p of out) expect(arena.u8.subarray(p, p + 72).every((byte) => byte === 0)).toBe(true);
    cache.freeBulk(out, 100);
    expectSound(arena);
  });

  it('uses memory again: pairs and batches do not grow it', () => {
    const arena = bootVariant(variant);
    const cache = arena.createCache('c', { size: 64 });
    freeMany(cache, allocMany(cache, 2000));
    // The most that a layer may keep beside what is in use, twelve sheaves of 60, and some slabs on partial lists.
    const used = Math.ceil((2000 + 720) / cache.objsPerSlab) + arena.meminfo().usedPages;
    for (let round = 0; round < 50; round++) freeMany(cache, allocMany(cache, 1 + ((round * 37) % 2000)));
    expect(arena.meminfo().usedPages).toBeLessThanOrEqual(used);
    expectSound(arena);
  });

  it('counts each operation once', () => {
    const arena = bootVariant(variant);
    const cache = arena.createCache('c', { size: 64 });
    const stats = moved(cache, () => freeMany(cache, allocMany(cache, 1500)));
    const extra = (cache as unknown as { layerStats?(): Record<string, number> }).layerStats?.() ?? {};
    const allocs = (stats.ALLOC_FASTPATH ?? 0) + (stats.ALLOC_SLOWPATH ?? 0) + (extra.ALLOC_PCA ?? 0);
    const frees = (stats.FREE_FASTPATH ?? 0) + (stats.FREE_SLOWPATH ?? 0) + (extra.FREE_PCA ?? 0);
    expect([allocs, frees]).toEqual([1500, 1500]);
  });

  it('takes frees from another CPU, with nothing lost', () => {
    const arena = bootVariant(variant);
    const other = secondCpu(arena);
    const cache = arena.createCache('c', { size: 128 });
    const theirs = other.openCache('c');
    for (let round = 0; round < 5; round++) {
      const held = allocMany(cache, 700);
      arena.endTurn();
      freeMany(theirs, held);
      other.endTurn();
      const back = allocMany(theirs, 300);
      other.endTurn();
      freeMany(cache, back);
      arena.endTurn();
    }
    expectSound(arena);
    other.offline();
    expect(cache.destroy().leaked).toBe(0);
  });

  it('gives all memory back on shrink, whichever CPU has cached it', () => {
    const arena = bootVariant(variant);
    const other = secondCpu(arena);
    const cache = arena.createCache('c', { size: 512 });
    const theirs = other.openCache('c');
    cache.minPartial = 0;
    freeMany(cache, allocMany(cache, 400));
    freeMany(theirs, allocMany(theirs, 400));
    arena.endTurn();
    other.endTurn();
    expect(cache.shrink()).toEqual({ slabs: 0, skippedCpus: [] });
    expectSound(arena);
  });

  it('ends with a leak report that names what was not freed', () => {
    const arena = bootVariant(variant);
    const cache = arena.createCache('c', { size: 64 });
    const held = allocMany(cache, 100);
    const leaked = [held[7]!, held[42]!, held[99]!].sort((a, b) => a - b);
    for (const p of held) if (!leaked.includes(p)) cache.free(p);
    const report = cache.destroy();
    expect(report.leaked).toBe(3);
    expect([...report.objects].sort((a, b) => a - b)).toEqual(leaked);
    expect(() => cache.alloc()).toThrow(SlabBugError);
    expect(() => cache.free(leaked[0]!)).toThrow(SlabBugError);
  });

  it('flushes a CPU that leaves, and one that died', () => {
    const arena = bootVariant(variant);
    const cache = arena.createCache('c', { size: 64 });
    for (const end of ['offline', 'dead'] as const) {
      const other = secondCpu(arena);
      const theirs = other.openCache('c');
      freeMany(theirs, allocMany(theirs, 500));
      if (end === 'offline') other.offline();
      else expect(arena.cpuDead(1)).toMatchObject({ heldLocks: [], notes: [] });
      expectSound(arena);
    }
    expect(cache.destroy().leaked).toBe(0);
  });

  it('stays on the node that is asked for', () => {
    const arena = bootVariant(variant, { nodes: 2, cpus: 4 });
    const cache = arena.createCache('c', { size: 64 });
    const nodeOf = (p: number): number =>
      pagesOf(arena).nodeOf((arena.geometry.memmap + (p >>> 12) * 8) as never);
    for (const node of [1, 0, 1]) {
      const held = Array.from({ length: 200 }, () => cache.allocNode(node, GFP_KERNEL | __GFP_THISNODE));
      expect(new Set(held.map(nodeOf))).toEqual(new Set([node]));
      freeMany(cache, held);
    }
    // A cpu slab serves whoever asks for no node, wherever it lies, as it did in the kernel.
    if (variant.layer === 'cpu-slab') return expectSound(arena);
    const local = allocMany(cache, 500);
    expect(new Set(local.map(nodeOf)), 'what was freed elsewhere does not come back here').toEqual(
      new Set([0]),
    );
    freeMany(cache, local);
    expectSound(arena);
  });

  it('returns 0 when memory is out, and goes on when some is freed', () => {
    const arena = bootVariant(variant, { bytes: 2 << 20, maxCaches: 24 });
    const cache = arena.createCache('c', { size: 1024 });
    const held = exhaust(cache);
    expect(held.length).toBeGreaterThan(100);
    expect(cache.alloc()).toBe(0);
    expectSound(arena);
    freeMany(cache, held.splice(0, 50));
    const again = allocMany(cache, 50);
    freeMany(cache, [...held, ...again]);
    expectSound(arena);
    expect(cache.destroy().leaked).toBe(0);
  });

  it.each(['free', 'full'] as const)('refuses misuse and changes nothing, check: %s', (check) => {
    const arena = bootVariant(variant, { check });
    const cache = arena.createCache('c', { size: 64 });
    const foreign = arena.createCache('d', { size: 64 });
    const [p, q] = allocMany(cache, 2) as [number, number];
    const alien = foreign.alloc();
    cache.free(q);
    const bad = [q, p + 8, p + 1, alien, 0, -8, 4, 1 << 30, Number.NaN, p + 0.5, 2 ** 32 + p, 'x' as never];
    for (const address of bad) {
      expectUnchanged(arena, () => expect(() => cache.free(address), String(address)).toThrow(SlabBugError));
      const list = Int32Array.of(p, Number(address) | 0);
      expectUnchanged(arena, () => expect(() => cache.freeBulk(list, 2)).toThrow(SlabBugError));
    }
    expectUnchanged(arena, () => expect(() => cache.freeBulk(Int32Array.of(p, p), 2)).toThrow(SlabBugError));
    cache.free(p);
    foreign.free(alien);
    expectSound(arena);
  });
});
