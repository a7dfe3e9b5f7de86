/** The regions of an arena: how large each is, and so where it begins. The picture is in docs/memory-layout.md. */
import { bootCacheWords, guardWords, registryWords, staticCacheWords } from './cache/index.js';
import { PERCPU_BLOCK_WORDS, ThreadRecord } from './cpu/index.js';
import { Page, Pressure, Zone } from './page/index.js';
import { percpuWords, type planPercpu } from './percpu/index.js';
import { rcuWords } from './rcu/index.js';
import { slabDebugWords } from './slab/index.js';
import {
  alignUp,
  type CheckLevel,
  type Layer,
  LINE_WORDS,
  PAGE_SIZE,
  Superblock,
  WORD_BYTES,
} from './struct/index.js';
import { LOCK_SITES_WORDS, LOCK_STAT_WORDS, LOCKDEP_WORDS, type LockStatTier } from './sync/index.js';

/** A node must at least hold the slabs of the first caches. */
const NODE_PAGES_MIN = 64;
/** Structs, nodes and barns of one more family of kmalloc caches. */
const FAMILY_PAGES_MIN = 4;
/** A CPU's sheaves of the kmalloc caches come to 2240 bytes, its arrays to 4480. */
const CPU_PAGES_MIN = 0.6;
const CPU_ARRAY_PAGES_MIN = 1.1;

/** What the sizes of the regions depend on. */
export interface Shape {
  cpus: number;
  threads: number;
  nodes: number;
  maxCaches: number;
  check: CheckLevel;
  lockStat: LockStatTier;
  lockdep: boolean;
  layer: Layer;
  nrStatics: number;
  families: number;
  requestedSize: number;
  percpu: ReturnType<typeof planPercpu>;
  slabDebug: string;
  guardObjects: number;
}

/** Where each region begins, in the order in which they lie. */
export function layOut(bytes: number, shape: Shape) {
  const { cpus, threads, nodes, maxCaches, check, lockStat, lockdep, nrStatics } = shape;
  const { percpu: config } = shape;
  let end = alignUp(Superblock.SIZEOF, LINE_WORDS);
  const region = (words: number): number => {
    const at = end;
    end = alignUp(end + words, LINE_WORDS);
    return at;
  };
  const threadRecords = region(threads * ThreadRecord.SIZEOF);
  const lockStats = region(lockStat === 'off' ? 0 : threads * LOCK_STAT_WORDS);
  const lockSites = lockStat === 'full' ? region(threads * LOCK_SITES_WORDS) : 0;
  const lockdepArea = lockdep ? region(LOCKDEP_WORDS) : 0;
  const zones = region(nodes * Zone.SIZEOF);
  const pressure = region(Pressure.SIZEOF);
  const slabDebug = region(slabDebugWords(shape.slabDebug));
  const guards = region(guardWords(shape.guardObjects));
  const registry = region(registryWords(maxCaches));
  const bootCaches = region(bootCacheWords(nodes));
  const staticCaches = region(staticCacheWords(nodes, nrStatics));
  const percpu = region(threads * maxCaches * PERCPU_BLOCK_WORDS);
  const rcu = region(rcuWords(threads));
  const pcpu = region(percpuWords(threads, cpus, config));
  const memmap = region((bytes / PAGE_SIZE) * Page.SIZEOF);
  const shadow = check === 'none' ? 0 : region(alignUp(bytes / 8, WORD_BYTES) / WORD_BYTES) * WORD_BYTES;
  const firstPfn = Math.ceil((end * WORD_BYTES) / PAGE_SIZE);
  const endPfn = bytes / PAGE_SIZE;
  return {
    threadRecords,
    lockStats,
    lockSites,
    lockdep: lockdepArea,
    percpu,
    rcu,
    pcpu,
    zones,
    pressure,
    slabDebug,
    guards,
    registry,
    bootCaches,
    staticCaches,
    memmap,
    shadow,
    firstPfn,
    endPfn,
  };
}

/** `bytes` if that will do, or else the least that will: what lies before the heap grows with the arena, too. */
export function leastBytes(bytes: number, shape: Shape): number {
  const layerPages = shape.layer === 'percpu-array' ? CPU_ARRAY_PAGES_MIN : CPU_PAGES_MIN;
  // Behind a sheaf of 512 bytes its requested size makes another 512.
  const cpuPages = shape.requestedSize !== 0 ? 2 * layerPages : layerPages;
  const nodePages = NODE_PAGES_MIN + (shape.families - 1) * FAMILY_PAGES_MIN;
  const guardPages = shape.guardObjects === 0 ? 0 : 4 * shape.guardObjects + 4;
  const heapPages = guardPages + shape.nodes * nodePages + Math.ceil(shape.cpus * cpuPages * shape.families);
  for (let least = bytes; ; ) {
    const wanted = (layOut(least, shape).firstPfn + heapPages) * PAGE_SIZE;
    if (wanted <= least) return least;
    least = wanted;
  }
}
