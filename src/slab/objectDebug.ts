/**
 * The bytes that debugging puts into and around an object, and the check that they are still there.
 *
 * | bytes                                 | object is free            | object is allocated                       |
 * |---------------------------------------|---------------------------|-------------------------------------------|
 * | left and right red zone               | 0xbb                      | 0xcc                                      |
 * | object, when poisoned                 | 0x6b, the last one 0xa5   | the user's                                |
 * | kmalloc: behind the requested size    | as the object             | 0xcc, with red zones and tracks           |
 * | padding, the slab's tail, with poison | 0x5a                      | 0x5a                                      |
 *
 * Whoever calls has the slab to itself, or the object, or n->list_lock.
 */
import type { ThisCpu } from '../cpu/index.js';
import { ThreadRecord } from '../cpu/index.js';
import { Page, type PagePtr, pageAddress } from '../page/index.js';
import type { Bytes, Doubles, Words } from '../struct/index.js';
import { type DebugSink, NO_SINK } from './debugSink.js';
import { SLAB_OBJECT_POISON, SLAB_POISON, SLAB_RED_ZONE, SLAB_STORE_USER } from './flags.js';
import { readFreePointer, writeFreePointer } from './freePointer.js';
import type { CacheDesc } from './kmemCache.js';
import { infoEnd, ORIG_SIZE_BYTES, TRACK_BYTES } from './layout.js';

export const POISON_INUSE = 0x5a;
export const POISON_FREE = 0x6b;
export const POISON_END = 0xa5;
export const SLUB_RED_INACTIVE = 0xbb;
export const SLUB_RED_ACTIVE = 0xcc;
type RedZone = typeof SLUB_RED_INACTIVE | typeof SLUB_RED_ACTIVE;

export const TRACK_ALLOC = 0;
export const TRACK_FREE = 1;
export type TrackId = typeof TRACK_ALLOC | typeof TRACK_FREE;

/** Words of a track. `thread` is the thread slot + 1, 0 for no track; `when` a double, milliseconds since 1970. */
const TRACK = { stack: 0, cpu: 1, tid: 2, thread: 3, when: 4 } as const;

/** Who allocated or freed an object last. */
export interface Track {
  /** Handle of the stack. */
  stack: number;
  cpu: number;
  /** The thread slot. */
  thread: number;
  /** What the thread called itself in online(). */
  tid: number;
  /** Milliseconds since 1970, with a fraction. */
  when: number;
}

/** Milliseconds since 1970, the same clock in every thread. */
export const now = (): number => performance.timeOrigin + performance.now();

const trackAt = (s: CacheDesc, p: number, which: TrackId): number => p + infoEnd(s) + which * TRACK_BYTES;

/** From the object: where padding begins that nobody uses. */
export function padStart(s: CacheDesc): number {
  const tracks = (s.flags & SLAB_STORE_USER) !== 0 ? 2 * TRACK_BYTES : 0;
  return infoEnd(s) + tracks + (s.origSize !== 0 ? ORIG_SIZE_BYTES : 0);
}

/** What was asked for when `p` was allocated: less than the object size in kmalloc caches that keep it. */
export function origSize(m: Words, s: CacheDesc, p: number): number {
  if (s.origSize === 0) return s.objectSize;
  // A size that was overwritten must not lead out of the object.
  const size = m[(p + s.origSize) >> 2]!;
  return size >= 0 && size <= s.objectSize ? size : s.objectSize;
}

export function readTrack(
  m: Words,
  f64: Doubles,
  s: CacheDesc,
  p: number,
  which: TrackId,
): Track | undefined {
  if ((s.flags & SLAB_STORE_USER) === 0) return undefined;
  const at = trackAt(s, p, which);
  const word = (field: number): number => m[(at >> 2) + field]!;
  if (word(TRACK.thread) === 0) return undefined;
  return {
    stack: word(TRACK.stack),
    cpu: word(TRACK.cpu),
    thread: word(TRACK.thread) - 1,
    tid: word(TRACK.tid),
    when: f64[(at >> 3) + TRACK.when / 2]!,
  };
}

export class ObjectDebug {
  protected readonly cpu: ThisCpu;
  protected readonly m: Words;
  private readonly u8: Bytes;
  sink: DebugSink = NO_SINK;

  constructor(cpu: ThisCpu) {
    this.cpu = cpu;
    this.m = cpu.m;
    this.u8 = cpu.views.u8;
  }

  /** Fills red zones and object for an object that becomes free, or allocated. Kernel: `init_object`. */
  initObject(s: CacheDesc, p: number, val: RedZone): void {
    const { u8 } = this;
    const redZoned = (s.flags & SLAB_RED_ZONE) !== 0;
    const size = redZoned && val === SLUB_RED_ACTIVE ? origSize(this.m, s, p) : s.objectSize;
    if (redZoned) u8.fill(val, p - s.redLeftPad, p);
    if ((s.flags & SLAB_OBJECT_POISON) !== 0 && size > 0) {
      u8.fill(POISON_FREE, p, p + size - 1);
      u8[p + size - 1] = POISON_END;
    }
    if (redZoned) u8.fill(val, p + size, p + s.inuse);
  }

  /** Of an object that looks free makes one that looks allocated; its contents stay. */
  protected claimRedZones(s: CacheDesc, p: number): void {
    const { u8 } = this;
    const isFree = (from: number, to: number): boolean =>
      u8.subarray(from, to).every((byte) => byte === SLUB_RED_INACTIVE);
    if (!isFree(p - s.redLeftPad, p) || !isFree(p + s.objectSize, p + s.inuse)) return;
    u8.fill(SLUB_RED_ACTIVE, p - s.redLeftPad, p);
    u8.fill(SLUB_RED_ACTIVE, p + origSize(this.m, s, p), p + s.inuse);
  }

  /** The red zone behind a requested size that has changed; what is before it is left alone. */
  initKmallocRedzone(s: CacheDesc, p: number): void {
    if ((s.flags & SLAB_RED_ZONE) === 0) return;
    this.u8.fill(SLUB_RED_ACTIVE, p + origSize(this.m, s, p), p + s.objectSize);
  }

  setOrigSize(s: CacheDesc, p: number, size: number): void {
    if (s.origSize !== 0) this.m[(p + s.origSize) >> 2] = size;
  }

  /** No tracks yet. Kernel: `init_tracking`. */
  initTracking(s: CacheDesc, p: number): void {
    if ((s.flags & SLAB_STORE_USER) === 0) return;
    const at = trackAt(s, p, TRACK_ALLOC) >> 2;
    this.m.fill(0, at, at + (2 * TRACK_BYTES) / 4);
  }

  setTrack(s: CacheDesc, p: number, which: TrackId, stack: number): void {
    if ((s.flags & SLAB_STORE_USER) === 0) return;
    const { m, cpu } = this;
    const at = trackAt(s, p, which) >> 2;
    m[at + TRACK.stack] = stack;
    m[at + TRACK.cpu] = cpu.id;
    m[at + TRACK.tid] = m[cpu.record + ThreadRecord.tid]!;
    m[at + TRACK.thread] = cpu.thread + 1;
    cpu.f64[(at + TRACK.when) >> 1] = now();
  }

  /** A whole new slab is padding until its objects are made. */
  initSlabBytes(s: CacheDesc, from: number, bytes: number): void {
    if ((s.flags & SLAB_POISON) !== 0) this.u8.fill(POISON_INUSE, from, from + bytes);
  }

  /** Checks the bytes of an object, reports and restores what is damaged. False if anything was. Kernel: `check_object`. */
  checkObject(s: CacheDesc, page: PagePtr, p: number, val: RedZone): boolean {
    let sound =
      (s.flags & SLAB_RED_ZONE) !== 0 ? this.checkRedZones(s, page, p, val) : this.checkAlignPad(s, page, p);
    if ((s.flags & SLAB_POISON) !== 0) {
      if (val === SLUB_RED_INACTIVE && !this.checkPoison(s, page, p)) sound = false;
      if (!this.checkPadding(s, page, p)) sound = false;
    }
    return this.checkFreePointer(s, page, p, val) && sound;
  }

  private checkRedZones(s: CacheDesc, page: PagePtr, p: number, val: RedZone): boolean {
    const left = this.checkBytes(s, page, p, 'Left Redzone', p - s.redLeftPad, p, val);
    const right = this.checkBytes(s, page, p, 'Right Redzone', p + s.objectSize, p + s.inuse, val);
    if (val === SLUB_RED_INACTIVE) return left && right;
    const requested = p + origSize(this.m, s, p);
    return this.checkBytes(s, page, p, 'kmalloc Redzone', requested, p + s.objectSize, val) && left && right;
  }

  private checkAlignPad(s: CacheDesc, page: PagePtr, p: number): boolean {
    if ((s.flags & SLAB_POISON) === 0) return true;
    return this.checkBytes(s, page, p, 'Alignment padding', p + s.objectSize, p + s.inuse, POISON_INUSE);
  }

  private checkPoison(s: CacheDesc, page: PagePtr, p: number): boolean {
    if ((s.flags & SLAB_OBJECT_POISON) === 0) return true;
    const last = p + s.objectSize - 1;
    const body = this.checkBytes(s, page, p, 'Poison', p, last, POISON_FREE);
    return this.checkBytes(s, page, p, 'End Poison', last, last + 1, POISON_END) && body;
  }

  private checkPadding(s: CacheDesc, page: PagePtr, p: number): boolean {
    const end = p + s.size - s.redLeftPad;
    return this.checkBytes(s, page, p, 'Object padding', p + padStart(s), end, POISON_INUSE);
  }

  /** A link that leads to no object is cut: what was behind it is lost, which the next count finds. */
  private checkFreePointer(s: CacheDesc, page: PagePtr, p: number, val: RedZone): boolean {
    const { m } = this;
    if (s.offset < s.inuse && val === SLUB_RED_ACTIVE) return true; // it is the user's memory now
    if (this.isLink(s, page, readFreePointer(m, s, p))) return true;
    this.sink.bug(s, { what: 'Freepointer corrupt', page, object: p });
    writeFreePointer(m, s, p, 0);
    return false;
  }

  /** Whether `p` is NULL or an object of the slab. Kernel: `check_valid_pointer`. */
  isLink(s: CacheDesc, page: PagePtr, p: number): boolean {
    if (p === 0) return true;
    const at = p - s.redLeftPad - pageAddress(this.cpu.geometry, page);
    return at >= 0 && at % s.size === 0 && at / s.size < this.m[page + Page.objects]!;
  }

  /**
   * Whether all bytes of `[from, to)` are `expected`. If not, reports the first to the last that is not, and restores
   * them. Kernel: `check_bytes_and_report`.
   */
  protected checkBytes(
    s: CacheDesc,
    page: PagePtr,
    object: number,
    area: string,
    from: number,
    to: number,
    expected: number,
  ): boolean {
    const { u8, sink } = this;
    let first = from;
    while (first < to && u8[first] === expected) first++;
    if (first >= to) return true;
    let end = to;
    while (u8[end - 1] === expected) end--;
    const damage = { area, from: first, to: end, expected, found: u8[first]! };
    sink.bug(s, { what: `${area} overwritten`, page, object, damage });
    u8.fill(expected, first, end);
    const range = `0x${first.toString(16)}-0x${(end - 1).toString(16)}`;
    sink.fix(s, `Restoring ${area} ${range}=0x${expected.toString(16)}`);
    return false;
  }
}
