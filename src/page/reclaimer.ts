/**
 * What the page allocator needs of whoever can give pages back, and how threads tell a reclaim worker that there are
 * too few. The caches above hand their half in when a thread goes online, so nothing here imports them.
 */
import { type Geometry, LINE_WORDS, struct, type Words } from '../struct/index.js';
import { cmpxchg, exchange, futexWait, futexWake, loadAcquire, storeRelease } from '../sync/index.js';
import { Zone, zoneOf } from './zone.js';

/** How far a reclaim goes. Each does what the one before it does. */
export const Effort = {
  /** Shrinkers, the sheaves in barns, empty slabs. */
  BARNS: 0,
  /** The sheaves of CPUs that are not using them. */
  IDLE: 1,
  /** Those of running CPUs too, which are asked and waited for within a limit. */
  ALL: 2,
} as const;
export type EffortId = (typeof Effort)[keyof typeof Effort];

export interface Reclaimer {
  /** Gives back pages that nobody uses; no lock below slab_mutex is held. Returns how many. */
  reclaim(effort: EffortId): number;
  /** What stood in the way lately, a sentence each. */
  obstacles(): string[];
}

/** Words by which reclaim workers sleep and are woken; one line of its own, since every pressed allocation reads it. */
export const Pressure = struct(
  'pressure',
  /** 1 while a worker sleeps or is about to. `stops` grows when all are to end. `work`: there is something else to do. */
  // `reserveUsed` is 1 from when the first block with PG_PFMEMALLOC was handed out.
  { asleep: 1, stops: 1, wakeUps: 1, work: 1, reserveUsed: 1 },
  { alignWords: LINE_WORDS },
);

const { asleep: ASLEEP, stops: STOPS, wakeUps: WAKE_UPS, work: WORK } = Pressure;

/** Wakes the reclaim workers if there are any asleep, and says whether there were. Kernel: `wakeup_kswapd`. */
export function wakeReclaim(m: Words, geometry: Geometry): boolean {
  const at = geometry.pressure + ASLEEP;
  // data race, intended: a worker that is not seen yet looks at the zones itself before it sleeps.
  if (m[at] === 0 || cmpxchg(m, at, 1, 0) !== 1) return false;
  m[geometry.pressure + WAKE_UPS] = m[geometry.pressure + WAKE_UPS]! + 1;
  futexWake(m, at, Number.POSITIVE_INFINITY);
  return true;
}

/** Has a reclaim worker do the background work of the layers above. False when none is asleep. Kernel: `schedule_work`. */
export function requestWork(m: Words, geometry: Geometry): boolean {
  // Pairs with takeWork, and with the look in sleepUntilPressure: a worker that is about to sleep sees it.
  storeRelease(m, geometry.pressure + WORK, 1);
  return wakeReclaim(m, geometry);
}

/** Whether background work was asked for since the last call. */
export function takeWork(m: Words, geometry: Geometry): boolean {
  return exchange(m, geometry.pressure + WORK, 0) !== 0;
}

/** Ends the loops of all reclaim workers of the arena. */
export function stopReclaim(m: Words, geometry: Geometry): void {
  const at = geometry.pressure + STOPS;
  // Pairs with the load in the worker's loop; whoever sleeps is woken to see it.
  storeRelease(m, at, (m[at]! + 1) | 0);
  storeRelease(m, geometry.pressure + ASLEEP, 0);
  futexWake(m, geometry.pressure + ASLEEP, Number.POSITIVE_INFINITY);
}

export function reclaimStops(m: Words, geometry: Geometry): number {
  return loadAcquire(m, geometry.pressure + STOPS);
}

/** Whether some zone has fewer free pages than the mark at that offset of the zone. */
export function belowMark(m: Words, geometry: Geometry, mark: number): boolean {
  for (let node = 0; node < geometry.nodes; node++) {
    const zone = zoneOf(geometry, node);
    // data race, intended: a count that is old by a block.
    if (m[zone + Zone.nrFree]! < m[zone + mark]!) return true;
  }
  return false;
}

/** Sleeps until woken, or `ms`. Returns at once when there is background work, or a zone is below low, unless `regardless`. */
export function sleepUntilPressure(m: Words, geometry: Geometry, ms: number, regardless: boolean): void {
  const at = geometry.pressure + ASLEEP;
  // Announced before the zones are looked at: whoever takes a page after that look sees it and wakes us.
  storeRelease(m, at, 1);
  const wanted = loadAcquire(m, geometry.pressure + WORK) !== 0;
  if (wanted || (!regardless && belowMark(m, geometry, Zone.wmarkLow))) storeRelease(m, at, 0);
  else futexWait(m, at, 1, ms);
}
