/**
 * The static per-CPU areas: for each CPU and each cache one block of `slub_percpu_sheaves` and counters. A block
 * belongs to its CPU; nothing of another CPU shares a cache line with it.
 */
import {
  type Doubles,
  type Geometry,
  type Layer,
  LINE_WORDS,
  type Ptr,
  struct,
  type Words,
} from '../struct/index.js';
import { LAYER_STAT_ITEMS, STAT_ITEMS, type StatItem, type Stats } from './stat.js';

/**
 * The kernel's `struct slub_percpu_sheaves`, one line per CPU and cache.
 *
 * `lock` is the trylock: 0, or the owner word of the CPU that holds it. `main` is never 0 while the lock is free;
 * `spare` is 0, empty or full, and may be in between after swaps. `request` is set by a CPU that waits for the
 * lock. `base` is the size of main when its operations were last counted (see sheaf/sheaf.ts).
 */
export const Pcs = struct(
  'slub_percpu_sheaves',
  { lock: 1, lastOwner: 1, main: 1, spare: 1, rcuFree: 1, request: 1, base: 1 },
  { alignWords: LINE_WORDS },
);
const PCS_WORDS = Pcs.SIZEOF;
export type PcsPtr = Ptr<'slub_percpu_sheaves'>;

/**
 * The same line in a cache of layer 'cpu-slab', as kernels before 7.0 had it: `struct kmem_cache_cpu`. `lock`,
 * `lastOwner` and `request` are those of {@link Pcs}, `base` is 0; the rest is the CPU's own while it holds the lock.
 *
 * `freelist` is the address of the first free object that the CPU took over from its slab, 0 for none. The slab begins
 * at address `slabStart` and has `slabBytes` bytes, both 0 without a slab, so that one comparison tells whether an
 * object is one of it. `partial` is the page of the first of `nrPartial` frozen slabs, linked through their pages.
 * `allocs` and `frees` count the fast paths since the last fold; the sign of `allocs` is a full count.
 */
export const CpuSlab = struct(
  'kmem_cache_cpu',
  {
    lock: 1,
    lastOwner: 1,
    freelist: 1,
    slabStart: 1,
    slabBytes: 1,
    request: 1,
    base: 1,
    allocs: 1,
    frees: 1,
    partial: 1,
    nrPartial: 1,
  },
  { alignWords: LINE_WORDS },
);

const LAYER_STATS_MAX = Math.max(...Object.values(LAYER_STAT_ITEMS).map(({ length }) => length));
const STAT_WORDS = Math.ceil(((STAT_ITEMS.length + LAYER_STATS_MAX) * 2) / LINE_WORDS) * LINE_WORDS;

/** Words of one (CPU, cache) block. */
export const PERCPU_BLOCK_WORDS = Pcs.SIZEOF + STAT_WORDS;

/** Where the block of `cpu` for the cache in registry slot `slot` is. */
export function pcsOf(geometry: Geometry, cpu: number, slot: number): PcsPtr {
  return (geometry.percpu + (cpu * geometry.maxCaches + slot) * PERCPU_BLOCK_WORDS) as PcsPtr;
}

/** Index, in doubles, of the counters that go with `pcs`. */
export function statsOf(pcs: PcsPtr): number {
  return (pcs + PCS_WORDS) >> 1;
}

/** Adds up one cache's counters over all CPUs; exact when they are quiet. */
export function sumStats(f64: Doubles, geometry: Geometry, slot: number): Stats {
  const sums = {} as Stats;
  STAT_ITEMS.forEach((item: StatItem, index) => {
    let sum = 0;
    for (let cpu = 0; cpu < geometry.cpus; cpu++) sum += f64[statsOf(pcsOf(geometry, cpu, slot)) + index]!;
    sums[item] = sum;
  });
  return sums;
}

/** The same for the counters that the cache's layer has beyond the 26. */
export function sumLayerStats(
  f64: Doubles,
  geometry: Geometry,
  slot: number,
  layer: Layer,
): Record<string, number> {
  const sums: Record<string, number> = {};
  LAYER_STAT_ITEMS[layer].forEach((item, index) => {
    const at = STAT_ITEMS.length + index;
    let sum = 0;
    for (let cpu = 0; cpu < geometry.cpus; cpu++) sum += f64[statsOf(pcsOf(geometry, cpu, slot)) + at]!;
    sums[item] = sum;
  });
  return sums;
}

/** Empties the blocks of a registry slot, for the next cache that gets it. */
export function clearPercpuBlocks(m: Words, geometry: Geometry, slot: number): void {
  for (let cpu = 0; cpu < geometry.cpus; cpu++) {
    const pcs = pcsOf(geometry, cpu, slot);
    m.fill(0, pcs, pcs + PERCPU_BLOCK_WORDS);
  }
}
