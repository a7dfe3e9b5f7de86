/** What an arena tells about itself, as plain data. */
import type { Caches } from './cache/index.js';
import type { NodeMeminfo } from './page/index.js';
import type { Doubles, Geometry, Words } from './struct/index.js';
import { LOCK_STAT_TIERS, type LockStatRow, readLockPoints, readLockStat } from './sync/index.js';

/** The arena's heap, in pages of 4096 bytes. Kernel: /proc/meminfo. */
export interface Meminfo {
  totalPages: number;
  freePages: number;
  /** Those that are not free. */
  usedPages: number;
  /** The most that were used at a time; the sum of the nodes' own. */
  highWaterPages: number;
  nodes: NodeMeminfo[];
}

/** What reclaim has done for allocations of this thread. */
export interface ReclaimInfo {
  /** Reclaims that allocations of this thread had to run. */
  directReclaims: number;
  /** Pages that these gave back. */
  pages: number;
  /** Allocations of this thread that returned 0 and left a report, or would have. */
  failures: number;
  /** CPUs that did not give up their sheaves, locks that were stuck, shrinkers that threw; a sentence each. */
  obstacles: string[];
}

/** The nodes' figures and their sums. */
export function sumMeminfo(nodes: NodeMeminfo[]): Meminfo {
  const sum = (pick: (node: NodeMeminfo) => number): number =>
    nodes.reduce((total, node) => total + pick(node), 0);
  const totalPages = sum((node) => node.totalPages);
  const freePages = sum((node) => node.freePages);
  return {
    totalPages,
    freePages,
    usedPages: totalPages - freePages,
    highWaterPages: sum((node) => node.highWaterPages),
    nodes,
  };
}

/** Lock statistics by class, summed over threads; empty when the arena was made without. */
export function lockStatOf(m: Words, f64: Doubles, geometry: Geometry): LockStatRow[] {
  const { lockStat, lockStats, lockSites, threads } = geometry;
  if (LOCK_STAT_TIERS[lockStat] === 'off') return [];
  const rows = readLockStat(f64, lockStats, threads);
  if (lockSites === 0) return rows;
  return rows.map((row, cls) => ({ ...row, ...readLockPoints(m, f64, lockSites, threads, cls) }));
}

/** What the thread of these caches had to do for memory. */
export function reclaimInfoOf({ pages, reclaim }: Caches): ReclaimInfo {
  return {
    directReclaims: pages.reclaims.direct,
    pages: pages.reclaims.pages,
    failures: pages.oom.failures,
    obstacles: reclaim.obstacles(),
  };
}
