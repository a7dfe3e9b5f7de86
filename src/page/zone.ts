/** One zone per node: its span of page frames and its free areas, under one zone->lock. */
import { type Geometry, LINE_WORDS, type Ptr, struct } from '../struct/index.js';
import { Lock, type LockPtr } from '../sync/index.js';
import { NR_PAGE_ORDERS } from './page.js';

export const Zone = struct(
  'zone',
  {
    lock: Lock.SIZEOF,
    node: 1,
    startPfn: 1,
    endPfn: 1,
    /** Free pages; read racily to skip a zone that cannot serve. */
    nrFree: 1,
    /** The least that `nrFree` has been: the high-water mark of use. */
    nrFreeMin: 1,
    allocs: 1,
    frees: 1,
    /** Blocks that were given to a CPU of another node. */
    foreign: 1,
    /** Watermarks in pages; see watermark.ts. */
    wmarkLast: 1,
    wmarkMin: 1,
    wmarkLow: 1,
    wmarkHigh: 1,
    freeArea: NR_PAGE_ORDERS,
    nrFreeArea: NR_PAGE_ORDERS,
  },
  { alignWords: LINE_WORDS },
);
export type ZonePtr = Ptr<'zone'>;

export function zoneOf(geometry: Geometry, node: number): ZonePtr {
  return (geometry.zones + node * Zone.SIZEOF) as ZonePtr;
}

export function zoneLock(zone: ZonePtr): LockPtr {
  return (zone + Zone.lock) as unknown as LockPtr;
}

/** Figures of one node's pages. */
export interface NodeMeminfo {
  node: number;
  totalPages: number;
  freePages: number;
  highWaterPages: number;
  allocs: number;
  frees: number;
  foreign: number;
  /** Pages that are kept: below `low` the reclaim worker wakes, `min` only some may go below; see docs/memory-pressure.md. */
  watermarks: { min: number; low: number; high: number };
  /** Free blocks by order, as /proc/buddyinfo prints them. */
  freeBlocks: number[];
}
