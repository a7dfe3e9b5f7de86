/** Where the pool of guarded objects lies, and what its slots are; who may write them is said in guards.ts. */
import type { KmemCachePtr } from '../../slab/index.js';
import { type Geometry, PAGE_SIZE, struct, type Words } from '../../struct/index.js';
import { loadAcquire } from '../../sync/index.js';

export const Track = struct('guard_track', { stack: 1, cpu: 1, thread: 1, tid: 1, when: 1 });
export const GuardPool = struct('guard_pool', { start: 1, order: 1 });
export const GuardSlot = struct('guard_slot', {
  state: 1,
  /** When it was taken or freed last, counted over all slots. */
  order: 1,
  cache: 1,
  object: 1,
  /** What was asked for; behind it is canary. */
  bytes: 1,
  allocated: Track.SIZEOF,
  freed: Track.SIZEOF,
});

/** What the state of a slot says; from BUSY on a thread works on it, and which. */
export const SlotState = {
  NEW: 0,
  LIVE: 1,
  /** kfree_rcu has it. */
  WAITS: 2,
  FREED: 3,
  BUSY: 16,
} as const;

export const GUARD_OBJECTS_MAX = 255;

export const guardWords = (objects: number): number =>
  objects === 0 ? 0 : GuardPool.SIZEOF + objects * GuardSlot.SIZEOF;

/** Pages of the pool: one of each object, and one around each. */
export const guardPages = (objects: number): number => 2 * objects + 1;

/** The slot whose page an address lies in; 0 for one between them, or outside the pool. */
export function guardSlotAt(m: Words, { guards, guardObjects }: Geometry, p: number): number {
  const start = guardObjects === 0 ? 0 : m[guards + GuardPool.start]!;
  if (start === 0 || !Number.isInteger(p)) return 0;
  const page = Math.floor((p - start) / PAGE_SIZE);
  if (page < 0 || page >= guardPages(guardObjects) || page % 2 === 0) return 0;
  return guards + GuardPool.SIZEOF + (page >> 1) * GuardSlot.SIZEOF;
}

/** What an address of the pool lies in or beside. */
export interface GuardedPlace {
  /** 0, as the object, where there has been none. */
  readonly cache: KmemCachePtr | 0;
  readonly object: number;
  readonly bytes: number;
  readonly isLive: boolean;
}

/** The same for who copies and views; undefined for an address outside of the pool. */
export function guardedPlaceAt(m: Words, geometry: Geometry, p: number): GuardedPlace | undefined {
  const { guards, guardObjects } = geometry;
  const start = guardObjects === 0 ? 0 : m[guards + GuardPool.start]!;
  if (start === 0 || p < start || p >= start + guardPages(guardObjects) * PAGE_SIZE) return undefined;
  const slot = guardSlotAt(m, geometry, p);
  if (slot === 0) return { cache: 0, object: 0, bytes: 0, isLive: false };
  return {
    // Pairs with the release that hands the slot to whoever has the object.
    isLive: loadAcquire(m, slot) === SlotState.LIVE,
    cache: m[slot + GuardSlot.cache] as KmemCachePtr,
    object: m[slot + GuardSlot.object]!,
    bytes: m[slot + GuardSlot.bytes]!,
  };
}
