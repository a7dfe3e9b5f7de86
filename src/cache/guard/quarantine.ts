/**
 * Where freed objects wait before they are really free: a ring of addresses per CPU and cache, in the arena, so that
 * whoever writes through an address that it gave back hits poison instead of somebody's new object, and is found out
 * when the object leaves.
 *
 *  Q1  Each step is one exchange of a slot, so a ring has no lock that a thread could die in: it holds an object or not.
 *      A thread that dies between two steps loses at most the one object it had in hand, and its reaper says so.
 *  Q2  Its CPU alone puts in; anybody may take out, at any time: shrink, reclaim, whoever reaps the CPU's thread.
 *  Q3  An object in a ring has no mark in the shadow: a second free is refused, as of any free object.
 */
import { GFP_KERNEL } from '../../page/index.js';
import {
  type CacheDesc,
  type KmemCachePtr,
  KmemCacheStruct,
  SLAB_ACCOUNT,
  SLAB_RCU_DEBUG,
  SLAB_TYPESAFE_BY_RCU,
} from '../../slab/index.js';
import { requireInteger, struct, WORD_BYTES, type Words } from '../../struct/index.js';
import { cmpxchg, exchange, fetchAdd } from '../../sync/index.js';
import type { Caches } from '../caches.js';

/** The word indices of the rings follow, one per CPU. */
const QuarantineTable = struct('quarantine_table', { capacity: 1 });
/** The slots follow: an address, or 0. */
const QuarantineRing = struct('quarantine_ring', { puts: 1 });

const QUARANTINE_BYTES_MAX = 1 << 24;
/** A ring of these takes 64 pages. */
const QUARANTINE_OBJECTS_MAX = 65_535;

/** What the arena says of its caches. */
export interface QuarantineRule {
  readonly quarantine: number;
  /** Index in CHECK_LEVELS. */
  readonly check: number;
}

export const checkQuarantine = (bytes: unknown): number =>
  requireInteger('quarantine', bytes, 0, QUARANTINE_BYTES_MAX);

/**
 * How many objects of `size` bytes wait on each CPU; 0 for a cache without. `wanted` is the cache's own option, which must
 * be possible; the arena's passes by what it does not suit. Throws RangeError or TypeError.
 */
export function quarantineObjects(
  wanted: unknown,
  { quarantine, check }: QuarantineRule,
  flags: number,
  size: number,
): number {
  const bytes = checkQuarantine(wanted ?? quarantine);
  if (bytes === 0) return 0;
  const obstacle = obstacleTo(flags, check);
  if (obstacle === '' && bytes >= size) return Math.min(QUARANTINE_OBJECTS_MAX, Math.floor(bytes / size));
  if (wanted === undefined) return 0;
  throw new RangeError(
    `quarantine is ${bytes}; ${obstacle !== '' ? obstacle : `with objects of ${size} bytes it must be at least ${size}`}`,
  );
}

function obstacleTo(flags: number, check: number): string {
  if (check === 0) return "it needs an arena with check 'free' or 'full', which know what is free";
  if ((flags & SLAB_ACCOUNT) !== 0) return 'a cache with SLAB_ACCOUNT gives its charges back at once';
  if ((flags & (SLAB_TYPESAFE_BY_RCU | SLAB_RCU_DEBUG)) === 0) return '';
  return 'readers may look at free objects of a cache with SLAB_TYPESAFE_BY_RCU, which must stay as they are';
}

/** Gives a new cache its rings; false when out of memory, and then release gives back what was made. */
export function addQuarantine(
  { kmallocs, geometry, views }: Caches,
  s: CacheDesc,
  capacity: number,
): boolean {
  const { m } = views;
  const words = (n: number): number => {
    const p = kmallocs.allocOwn(n * WORD_BYTES, GFP_KERNEL) / WORD_BYTES;
    if (p !== 0) m.fill(0, p, p + n);
    return p;
  };
  if (capacity === 0) return true;
  const table = words(QuarantineTable.SIZEOF + geometry.cpus);
  if (table === 0) return false;
  m[table + QuarantineTable.capacity] = capacity;
  m[s.ptr + KmemCacheStruct.quarantine] = table;
  for (let cpu = 0; cpu < geometry.cpus; cpu++) {
    const ring = words(QuarantineRing.SIZEOF + capacity);
    if (ring === 0) return false;
    m[table + QuarantineTable.SIZEOF + cpu] = ring;
  }
  return true;
}

/** Gives the rings back, as far as they were made; nothing waits in them. */
export function releaseQuarantine({ kmallocs, geometry, views }: Caches, s: CacheDesc): void {
  const { m } = views;
  const table = m[s.ptr + KmemCacheStruct.quarantine]!;
  if (table === 0) return;
  for (let cpu = 0; cpu < geometry.cpus; cpu++) {
    const ring = m[table + QuarantineTable.SIZEOF + cpu]!;
    if (ring !== 0) kmallocs.free(ring * WORD_BYTES);
  }
  m[s.ptr + KmemCacheStruct.quarantine] = 0;
  kmallocs.free(table * WORD_BYTES);
}

/** The rings of one cache. */
export class Quarantine {
  private readonly m: Words;
  private readonly table: number;
  /** Objects that a ring holds. */
  readonly capacity: number;

  constructor(m: Words, cache: KmemCachePtr) {
    this.m = m;
    this.table = m[cache + KmemCacheStruct.quarantine]!;
    this.capacity = m[this.table + QuarantineTable.capacity]!;
  }

  /** Puts an object in. Returns the one that it replaces, which has waited longest, or 0 while there is room. */
  put(cpu: number, p: number): number {
    const ring = this.ringOf(cpu);
    // Threads that share the CPU get slots of their own; pairs with nothing else.
    const turn = fetchAdd(this.m, ring + QuarantineRing.puts, 1) >>> 0;
    // Q1: whoever gets an object out by an exchange, here or in take, has it alone, with the poison written before.
    return exchange(this.m, ring + QuarantineRing.SIZEOF + (turn % this.capacity), p);
  }

  /** Takes what waits in one slot, or 0. */
  take(cpu: number, slot: number): number {
    const at = this.ringOf(cpu) + QuarantineRing.SIZEOF + slot;
    // data race, intended: what is put in after this look is left for the next.
    return this.m[at] === 0 ? 0 : exchange(this.m, at, 0);
  }

  /** Puts back what take has taken out, there or wherever there is room. */
  putBack(cpu: number, slot: number, p: number): void {
    const first = this.ringOf(cpu) + QuarantineRing.SIZEOF;
    for (let i = 0; i < this.capacity; i++) {
      // Q1, as in put; a slot that its CPU has filled meanwhile is left alone.
      if (cmpxchg(this.m, first + ((slot + i) % this.capacity), 0, p) === 0) return;
    }
  }

  /** Visits what waits on a CPU; others are quiet. */
  forEach(cpu: number, visit: (p: number) => void): void {
    const first = this.ringOf(cpu) + QuarantineRing.SIZEOF;
    for (let at = first; at < first + this.capacity; at++) {
      if (this.m[at] !== 0) visit(this.m[at]!);
    }
  }

  private ringOf(cpu: number): number {
    return this.m[this.table + QuarantineTable.SIZEOF + cpu]!;
  }
}
