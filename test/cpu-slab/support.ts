/** What the tests of layer 'cpu-slab' look at: the slabs that CPUs have, and all counters at once. */
import type { KmemCache } from '#src/cache/index.js';
import { CpuSlab, pcsOf } from '#src/cpu/index.js';
import type { Arena, ArenaOptions, CacheOptions, LockPolicy } from '#src/index.js';
import { compoundHead, Page, type PagePtr, pageAddress, virtToPage } from '#src/page/index.js';
import { isFrozen } from '#src/slab/index.js';
import { boot, moved, secondCpu, slabAt } from '../cache/support/arena.js';

export const POLICIES: LockPolicy[] = ['turn', 'op'];
/** Objects of a slab, and slabs of a cpu partial list, of a cache with `size: 4096` on two CPUs. */
export const O = 8;
export const P = 2;

export function setup(options: Partial<ArenaOptions> = {}, cacheOptions: Partial<CacheOptions> = {}) {
  const arena = boot({ cpus: 2, bytes: 16 << 20, ...options });
  const cache = arena.createCache('c', { size: 4096, layer: 'cpu-slab', ...cacheOptions });
  const other = secondCpu(arena);
  return { arena, cache, other, theirs: other.openCache('c') };
}

export interface CpuView {
  /** Address of the cpu slab. */
  slab: number | null;
  /** The CPU's freelist. */
  free: number[];
  /** Addresses of the slabs on the cpu partial list. */
  partial: number[];
}

export function cpuView(arena: Arena, cache: KmemCache, cpu = 0): CpuView {
  const { i32, geometry } = arena;
  const c = pcsOf(geometry, cpu, cache.desc.slot);
  const free: number[] = [];
  for (let p = i32[c + CpuSlab.freelist]!; p !== 0; p = i32[(p + cache.desc.offset) >> 2]!) free.push(p);
  const partial: number[] = [];
  for (let page = i32[c + CpuSlab.partial]!; page !== 0; page = i32[page + Page.next]!) {
    partial.push(pageAddress(geometry, page as PagePtr));
  }
  return { slab: i32[c + CpuSlab.slabStart]! || null, free, partial };
}

/** The slab of an object. */
export function slabOf(arena: Arena, p: number) {
  const page = compoundHead(arena.i32, virtToPage(arena.geometry, p));
  return { ...slabAt(arena, page), frozen: isFrozen(arena.i32[page + Page.slabWord]!) };
}

/** The counters that `action` moves: the 26, and those of the layer. */
export function movedAll(cache: KmemCache, action: () => void): Record<string, number> {
  const before = cache.layerStats();
  const deltas: Record<string, number> = { ...moved(cache, action) };
  for (const [item, after] of Object.entries(cache.layerStats())) {
    if (after !== before[item]) deltas[item] = after - before[item]!;
  }
  return deltas;
}

/** Full slabs, each as the list of its objects; the last is the cpu slab. */
export function fillSlabs(cache: KmemCache, n: number): number[][] {
  return Array.from({ length: n }, () =>
    Array.from({ length: cache.objsPerSlab }, () => {
      const p = cache.alloc();
      if (p === 0) throw new Error('the arena of this test is too small');
      return p;
    }),
  );
}
