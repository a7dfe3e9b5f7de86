/**
 * Watermarks: how many pages a zone keeps for whom.
 *
 * As the kernel scales them: of all memory, 4 * sqrt(KiB) KiB are `min`, at most 256 MiB, divided among the zones by
 * size; `low` lies the larger of min/4 and 0.1 % of the zone above that, `high` twice as far. The kernel's least,
 * 128 KiB, would be half of our smallest arenas: instead no zone keeps more than 1/32 of its pages, which is below the
 * formula up to 16 MiB.
 *
 * | level | pages left | who may go down to it                                                        |
 * |-------|------------|------------------------------------------------------------------------------|
 * | LOW   | low        | everybody, on every node, before anybody wakes the reclaim worker             |
 * | MIN   | min        | everybody                                                                     |
 * | LAST  | min / 8    | who may reclaim and has reclaimed all: nobody is killed here to make room.    |
 * |       |            | 0 in zones below 16 MiB, where people count the pages that they will need     |
 * | NONE  | 0          | __GFP_HIGH, and a thread that is reclaiming                                   |
 */
import { type Geometry, PAGE_SIZE, type Words } from '../struct/index.js';
import { Zone, type ZonePtr, zoneOf } from './zone.js';

export const Level = { LOW: 0, MIN: 1, LAST: 2, NONE: 3 } as const;
export type LevelId = (typeof Level)[keyof typeof Level];

const { wmarkMin: WMARK_MIN, wmarkLow: WMARK_LOW, wmarkLast: WMARK_LAST } = Zone;
const LAST_SHIFT = 3;
const SMALL_ZONE_PAGES = 4096;
const MIN_KIB_MAX = 256 << 10;
const ZONE_SHARE_SHIFT = 5;
const SCALE_FACTOR = 10;

/** Pages that must be left after an allocation of that level. */
export function floorOf(m: Words, zone: ZonePtr, level: LevelId): number {
  if (level === Level.LOW) return m[zone + WMARK_LOW]!;
  if (level === Level.NONE) return 0;
  return m[zone + (level === Level.MIN ? WMARK_MIN : WMARK_LAST)]!;
}

/** Sets the marks of every zone. The boot does it last: what every arena needs it may take from any page. */
export function setWatermarks(m: Words, geometry: Geometry): void {
  const total = geometry.endPfn - geometry.firstPfn;
  const minKiB = Math.min(Math.floor(Math.sqrt((total * PAGE_SIZE) / 64)), MIN_KIB_MAX);
  const pagesMin = Math.floor((minKiB * 1024) / PAGE_SIZE);
  for (let node = 0; node < geometry.nodes; node++) {
    const zone = zoneOf(geometry, node);
    const pages = m[zone + Zone.endPfn]! - m[zone + Zone.startPfn]!;
    const min = Math.min(Math.floor((pagesMin * pages) / total), pages >> ZONE_SHARE_SHIFT);
    const distance = Math.max(min >> 2, Math.floor((pages * SCALE_FACTOR) / 10_000));
    m[zone + WMARK_LAST] = pages < SMALL_ZONE_PAGES ? 0 : min >> LAST_SHIFT;
    m[zone + WMARK_MIN] = min;
    m[zone + WMARK_LOW] = min + distance;
    m[zone + Zone.wmarkHigh] = min + 2 * distance;
  }
}
