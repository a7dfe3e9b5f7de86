/**
 * The static per-CPU areas: for each cache and thread slot one block of `slub_percpu_sheaves` and counters. In block t
 * the counters are those of thread slot t, the sheaves those of CPU t; nothing of another shares a cache line with
 * either. Where threads share CPUs there are more threads than CPUs, and the sheaves of the last blocks are not used.
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
import {
  LAYER_STAT_ITEMS,
  layerStats,
  NR_COUNTERS,
  STAT_ITEMS,
  Stat,
  type Stats,
  TRYLOCK_ITEMS,
  TrylockStat,
  type TrylockStats,
} from './stat.js';

/**
 * The kernel's `struct slub_percpu_sheaves`, one line per CPU and cache.
 *
 * `lock` is the trylock: 0, or the owner word of the thread that holds it. `main` is never 0 while the lock is free;
 * `spare` is 0, empty or full, and may be in between after swaps. `request` is set by a thread that waits for the
 * lock. `base` is the size of main when its operations were last counted (see sheaf/sheaf.ts). `prefilled`, in the block
 * of a thread, is the list of the sheaves that it has borrowed; it alone reads and writes it (see sheaf/prefilled.ts).
 */
export const Pcs = struct(
  'slub_percpu_sheaves',
  { lock: 1, lastOwner: 1, main: 1, spare: 1, rcuFree: 1, request: 1, base: 1, prefilled: 1 },
  { alignWords: LINE_WORDS },
);
const PCS_WORDS = Pcs.SIZEOF;
export type PcsPtr = Ptr<'slub_percpu_sheaves'>;

const STAT_WORDS = Math.ceil((NR_COUNTERS * 2) / LINE_WORDS) * LINE_WORDS;

/**
 * The same line in a cache of layer 'cpu-slab', as kernels before 7.0 had it: `struct kmem_cache_cpu`. `lock`,
 * `lastOwner`, `request` and `prefilled` are those of {@link Pcs}, `base` is 0; the rest is the CPU's own while it holds the lock.
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
    prefilled: 1,
    allocs: 1,
    frees: 1,
    partial: 1,
    nrPartial: 1,
  },
  { alignWords: LINE_WORDS },
);

/** Words of one block. */
export const PERCPU_BLOCK_WORDS = Pcs.SIZEOF + STAT_WORDS;

/** Where the block of `cpu` for the cache in registry slot `slot` is. */
export function pcsOf(geometry: Geometry, cpu: number, slot: number): PcsPtr {
  return (geometry.percpu + (cpu * geometry.maxCaches + slot) * PERCPU_BLOCK_WORDS) as PcsPtr;
}

/** The registry slot of the cache whose sheaves, or whose lock, are at `pcs`. */
export function slotOfPcs(geometry: Geometry, pcs: PcsPtr): number {
  return Math.floor((pcs - geometry.percpu) / PERCPU_BLOCK_WORDS) % geometry.maxCaches;
}

/** The CPU whose sheaves are at `pcs`. */
export function cpuOfPcs(geometry: Geometry, pcs: PcsPtr): number {
  return Math.floor((pcs - geometry.percpu) / PERCPU_BLOCK_WORDS / geometry.maxCaches);
}

/** Index, in doubles, of the counters that go with `pcs`: those of the thread slot with its CPU's number. */
export function statsOf(pcs: PcsPtr): number {
  return (pcs + PCS_WORDS) >> 1;
}

/** Index, in doubles, of the counters of thread slot `thread` for the cache in registry slot `slot`. */
export function countersOf(geometry: Geometry, thread: number, slot: number): number {
  return statsOf(pcsOf(geometry, thread, slot));
}

function sumOver<Item extends string>(
  f64: Doubles,
  geometry: Geometry,
  slot: number,
  items: readonly Item[],
  index: Readonly<Record<Item, number>>,
): Record<Item, number> {
  const sums = {} as Record<Item, number>;
  for (const item of items) {
    let sum = 0;
    for (let thread = 0; thread < geometry.threads; thread++) {
      sum += f64[countersOf(geometry, thread, slot) + index[item]]!;
    }
    sums[item] = sum;
  }
  return sums;
}

/** Adds up one cache's counters over all threads; exact when they are quiet. */
export function sumStats(f64: Doubles, geometry: Geometry, slot: number): Stats {
  return sumOver(f64, geometry, slot, STAT_ITEMS, Stat);
}

/** The same for the counters of failed trylocks. */
export function sumTrylockStats(f64: Doubles, geometry: Geometry, slot: number): TrylockStats {
  return sumOver(f64, geometry, slot, TRYLOCK_ITEMS, TrylockStat);
}

/** The same for what the cache's layer counts beyond the 26. */
export function sumLayerStats(
  f64: Doubles,
  geometry: Geometry,
  slot: number,
  layer: Layer,
): Record<string, number> {
  return sumOver<string>(f64, geometry, slot, LAYER_STAT_ITEMS[layer], layerStats(layer));
}

/** Empties the blocks of a registry slot, for the next cache that gets it. */
export function clearPercpuBlocks(m: Words, geometry: Geometry, slot: number): void {
  for (let block = 0; block < geometry.threads; block++) {
    const pcs = pcsOf(geometry, block, slot);
    m.fill(0, pcs, pcs + PERCPU_BLOCK_WORDS);
  }
}
