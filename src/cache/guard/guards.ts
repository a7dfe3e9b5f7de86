/**
 * The pool of guarded objects: a few allocations are served from pages of their own, with pages of canary bytes between
 * them, so that writes out of bounds and after the free hit nobody and are seen. There are no page faults here: what was
 * written is found when the object is freed, when its slot is used again, and by a scan; what was only read never.
 * Kernel: KFENCE.
 *
 *  U1  A slot belongs to whoever's compare-exchange took its state from there to `BUSY + thread`; a store with release ends
 *      that. Nobody waits: a slot that is taken is passed by. Whoever reaps a thread gives back what it had taken.
 *  U2  The slot that was freed first is used again first, so that poison stays as long as it can.
 *  U3  Page.cache of an object's page is its cache, as in a slab, by which kfree finds it; the page is none of a slab.
 */
import { ThreadRecord } from '../../cpu/index.js';
import { __GFP_ZERO, GFP_KERNEL, Page, pageAddress, virtToPage } from '../../page/index.js';
import {
  type CacheDesc,
  type KmemCachePtr,
  now,
  POISON_FREE,
  readCacheDesc,
  readName,
} from '../../slab/index.js';
import { hexAddress, OutOfMemoryError, PAGE_SIZE, SlabBugError, type Words } from '../../struct/index.js';
import { cmpxchg, fetchAdd, loadAcquire, storeRelease } from '../../sync/index.js';
import type { Caches } from '../caches.js';
import { type Damage, damageIn, type GuardTrack } from './guardBug.js';
import { GuardPool, GuardSlot, guardPages, guardSlotAt, SlotState, Track } from './guardPool.js';

const { NEW, LIVE, WAITS, FREED, BUSY } = SlotState;

const CANARY = 0xaa;
/** The half of a guard page that is nearer. */
const NEAR = PAGE_SIZE / 2;
const TRIES = 4;

export class Guards {
  private readonly caches: Caches;
  private readonly m: Words;
  private readonly pool: number;
  readonly objects: number;
  start = 0;
  end = 0;

  constructor(caches: Caches) {
    const { views, geometry } = caches;
    this.caches = caches;
    this.m = views.m;
    this.pool = geometry.guards;
    this.objects = geometry.guardObjects;
    if (this.objects > 0) this.bind();
  }

  /** At boot: takes the pages. Throws OutOfMemoryError. */
  make(): void {
    if (this.objects === 0) return;
    const page = this.caches.pages.alloc(32 - Math.clz32(guardPages(this.objects) - 1), GFP_KERNEL);
    if (page === 0) throw new OutOfMemoryError(`no memory for a pool of ${this.objects} guarded objects`);
    const { geometry, views } = this.caches;
    this.m[this.pool + GuardPool.start] = pageAddress(geometry, page);
    this.bind();
    views.u8.fill(CANARY, this.start, this.end);
  }

  private bind(): void {
    this.start = this.m[this.pool + GuardPool.start]!;
    this.end = this.start === 0 ? 0 : this.start + guardPages(this.objects) * PAGE_SIZE;
  }

  owns(p: number): boolean {
    return p >= this.start && p < this.end;
  }

  /**
   * An object of the cache, of the `bytes` bytes that were asked for, or 0 when every slot is in use. Contents are canary
   * unless they are to be zeroes.
   */
  alloc(s: CacheDesc, gfp: number, zero: boolean, bytes: number): number {
    const slot = this.take();
    if (slot === 0) return 0;
    const { m } = this;
    const { geometry, views } = this.caches;
    const page = this.pageOf(slot);
    this.report(slot, this.damages(slot, FREED));
    // Against the right end as far as the alignment of a slot allows, which handles rely on.
    const p = Math.random() < 0.5 ? page : page + Math.max(0, PAGE_SIZE - s.size);
    views.u8.fill(CANARY, page, page + PAGE_SIZE);
    if (zero || (gfp & __GFP_ZERO) !== 0) views.u8.fill(0, p, p + bytes);
    m[slot + GuardSlot.cache] = s.ptr;
    m[slot + GuardSlot.object] = p;
    m[slot + GuardSlot.bytes] = bytes;
    m[virtToPage(geometry, p) + Page.cache] = s.ptr;
    this.track(slot + GuardSlot.allocated);
    m.fill(0, slot + GuardSlot.freed, slot + GuardSlot.SIZEOF);
    views.shadow[p >> 3] = s.tag;
    this.settle(slot, LIVE);
    this.caches.slabs.checks.sink.flush();
    return p;
  }

  /** Frees an object of the cache. Throws SlabBugError, reported, with nothing changed. */
  free(s: CacheDesc, p: number): void {
    this.finish(this.takeBack(s, p));
  }

  /**
   * The same into the hands of kfree_rcu, which may link it through a word that ends `end` bytes into it. Without that
   * word, 0. The word may lie behind what was asked for: from now on it is the object's. The caller sends the reports.
   */
  freeLater(s: CacheDesc, p: number, end: number): void {
    const { m } = this;
    const slot = this.takeBack(s, p);
    this.report(slot, this.damages(slot, LIVE));
    m[slot + GuardSlot.bytes] = Math.max(end, m[slot + GuardSlot.bytes]!);
    this.settle(slot, WAITS);
  }

  /** The slot of an object that is freed now, ours. */
  private takeBack(s: CacheDesc, p: number): number {
    const slot = this.claimObject(s, p);
    this.caches.views.shadow[p >> 3] = 0;
    this.track(slot + GuardSlot.freed);
    return slot;
  }

  /** The slot of an allocated object of the cache, ours. Throws SlabBugError, reported. */
  private claimObject(s: CacheDesc, p: number): number {
    const slot = this.liveSlot(p);
    const taken = slot !== 0 && this.m[slot + GuardSlot.cache] === s.ptr && this.claim(slot, LIVE);
    if (!taken) throw this.refused(s, p);
    return slot;
  }

  /** Bytes that the object at `p` was asked for. */
  bytesOf(p: number): number {
    const slot = this.liveSlot(p);
    return slot === 0 ? 0 : this.m[slot + GuardSlot.bytes]!;
  }

  /**
   * An allocated object is to have `bytes` bytes from now on, at most those of the cache. What it had in its neighbourhood
   * is looked at before that moves.
   */
  resize(s: CacheDesc, p: number, bytes: number, zero: boolean): void {
    const slot = this.claimObject(s, p);
    const before = this.m[slot + GuardSlot.bytes]!;
    const { u8 } = this.caches.views;
    this.report(slot, this.damages(slot, LIVE));
    if (bytes < before) u8.fill(CANARY, p + bytes, p + before);
    else if (zero) u8.fill(0, p + before, p + bytes);
    this.m[slot + GuardSlot.bytes] = bytes;
    this.settle(slot, LIVE);
    this.caches.slabs.checks.sink.flush();
  }

  /** The grace period of what was freed later is over. */
  freeWaiting(p: number): void {
    const slot = this.slotAt(p);
    if (slot !== 0 && this.claim(slot, WAITS)) this.finish(slot);
  }

  /** What is wrong with an address of the pool that is to be an allocated object of the cache; undefined if nothing is. */
  fault(s: CacheDesc, p: number): SlabBugError | undefined {
    const { m } = this;
    const hex = hexAddress(Number(p));
    const slot = this.slotAt(p);
    if (slot === 0 || m[slot + GuardSlot.object] !== p || m[slot + GuardSlot.cache] === 0) {
      return new SlabBugError(
        'invalid-pointer',
        s.name,
        p,
        `Invalid object pointer ${hex}: no guarded object`,
      );
    }
    const owner = m[slot + GuardSlot.cache] as KmemCachePtr;
    if (owner !== s.ptr) {
      const what = `No slab cache for object: ${hex} belongs to ${readName(m, owner)}`;
      return new SlabBugError('wrong-cache', s.name, p, what);
    }
    if (loadAcquire(m, slot) === LIVE) return undefined;
    return new SlabBugError('double-free', s.name, p, `Object already free: ${hex}`);
  }

  /** Checks every slot that nobody is working on. Returns how many were damaged; each damage is reported once. */
  scan(): number {
    let damaged = 0;
    for (let i = 0; i < this.objects; i++) {
      const slot = this.slot(i);
      const state = loadAcquire(this.m, slot);
      const order = this.m[slot + GuardSlot.order];
      const found = state >= BUSY ? [] : this.damages(slot, state);
      // What changed hands while it was looked at is left for its free.
      if (loadAcquire(this.m, slot) !== state || this.m[slot + GuardSlot.order] !== order) continue;
      this.report(slot, found);
      if (found.length > 0) damaged++;
    }
    this.caches.slabs.checks.sink.flush();
    return damaged;
  }

  /** Start of the object that a byte of the pool lies beside or in. */
  objectAt(address: number): number {
    const slot = this.slotAt(address);
    return slot === 0 ? 0 : this.m[slot + GuardSlot.object]!;
  }

  /** Addresses of the cache's objects that are not free. */
  live(s: CacheDesc): number[] {
    return this.slots()
      .filter((slot) => this.m[slot + GuardSlot.cache] === s.ptr && this.m[slot] !== FREED)
      .map((slot) => this.m[slot + GuardSlot.object]!);
  }

  /** The cache ends: checks its free objects for the last time. */
  forget(s: CacheDesc): void {
    for (const slot of this.slots()) {
      if (this.m[slot + GuardSlot.cache] !== s.ptr || !this.claim(slot, FREED)) continue;
      this.report(slot, this.damages(slot, FREED));
      this.clear(slot);
    }
  }

  /** Gives back what a thread that is gone was working on. */
  reap(thread: number): void {
    for (const slot of this.slots()) if (loadAcquire(this.m, slot) === BUSY + thread) this.clear(slot);
  }

  /** Calls `visit` with what each slot says of itself; others are quiet. */
  forEach(visit: (object: number, state: 'free' | 'live' | 'busy') => void): void {
    for (const slot of this.slots()) {
      const state = this.m[slot]!;
      const object = this.m[slot + GuardSlot.object]!;
      visit(object, state >= BUSY ? 'busy' : state === LIVE ? 'live' : 'free');
    }
  }

  private slots(): number[] {
    return Array.from({ length: this.objects }, (_, i) => this.slot(i));
  }

  private slot(i: number): number {
    return this.pool + GuardPool.SIZEOF + i * GuardSlot.SIZEOF;
  }

  private slotAt(p: number): number {
    return guardSlotAt(this.m, this.caches.geometry, p);
  }

  private liveSlot(p: number): number {
    const slot = this.slotAt(p);
    return slot !== 0 && this.m[slot + GuardSlot.object] === p ? slot : 0;
  }

  private pageOf(slot: number): number {
    const i = (slot - this.pool - GuardPool.SIZEOF) / GuardSlot.SIZEOF;
    return this.start + (2 * i + 1) * PAGE_SIZE;
  }

  /** U1. */
  private claim(slot: number, from: number): boolean {
    return cmpxchg(this.m, slot, from, BUSY + this.caches.cpu.thread) === from;
  }

  private settle(slot: number, state: number): void {
    this.m[slot + GuardSlot.order] = fetchAdd(this.m, this.pool + GuardPool.order, 1) + 1;
    // U1: whoever takes the slot next sees all that was written into it.
    storeRelease(this.m, slot, state);
  }

  /** U2: a free slot, ours; or 0. */
  private take(): number {
    const { m } = this;
    for (let tries = 0; tries < TRIES; tries++) {
      let oldest = 0;
      for (let i = 0; i < this.objects; i++) {
        const slot = this.slot(i);
        if (m[slot] !== NEW && m[slot] !== FREED) continue;
        if (oldest === 0 || m[slot + GuardSlot.order]! < m[oldest + GuardSlot.order]!) oldest = slot;
      }
      if (oldest === 0) return 0;
      if (this.claim(oldest, m[oldest] === NEW ? NEW : FREED)) return oldest;
    }
    return 0;
  }

  /** The slot is ours, and its object free. */
  private finish(slot: number): void {
    const { m } = this;
    const p = m[slot + GuardSlot.object]!;
    this.report(slot, this.damages(slot, LIVE));
    this.caches.views.u8.fill(POISON_FREE, p, p + m[slot + GuardSlot.bytes]!);
    this.settle(slot, FREED);
    this.caches.slabs.checks.sink.flush();
  }

  private clear(slot: number): void {
    const { geometry, views } = this.caches;
    const page = this.pageOf(slot);
    const object = this.m[slot + GuardSlot.object]!;
    this.m[virtToPage(geometry, page) + Page.cache] = 0;
    if (object !== 0) views.shadow[object >> 3] = 0;
    views.u8.fill(CANARY, page, page + PAGE_SIZE);
    this.m.fill(0, slot + GuardSlot.cache, slot + GuardSlot.SIZEOF);
    storeRelease(this.m, slot, NEW);
  }

  /** Reports that an address may not be freed, and gives the error to throw. */
  refused(s: CacheDesc, p: number): SlabBugError {
    const error = this.fault(s, p) ?? new SlabBugError('double-free', s.name, p, 'Object already free');
    const slot = this.slotAt(p);
    const bug = { what: 'invalid free' as const, object: Number(p), bytes: 0 };
    this.caches.debug.guarded(s, slot === 0 ? bug : { ...bug, ...this.tracks(slot) });
    this.caches.slabs.checks.sink.flush();
    return error;
  }

  /** What is not as it must be around the object, and in it when it is free. */
  private damages(slot: number, state: number): Damage[] {
    const p = this.m[slot + GuardSlot.object]!;
    const page = this.pageOf(slot);
    const object = p === 0 ? page : p;
    const end = p === 0 ? page : p + this.m[slot + GuardSlot.bytes]!;
    const { views } = this.caches;
    const found = [
      damageIn(views, 'out-of-bounds write', page - NEAR, page, CANARY),
      damageIn(views, 'memory corruption', page, object, CANARY),
      damageIn(views, 'memory corruption', end, page + PAGE_SIZE, CANARY),
      damageIn(views, 'out-of-bounds write', page + PAGE_SIZE, page + PAGE_SIZE + NEAR, CANARY),
    ];
    if (state === FREED && p !== 0) found.push(damageIn(views, 'use-after-free write', p, end, POISON_FREE));
    return found.filter((damage) => damage !== undefined);
  }

  /** Says what was found, and puts the bytes right, so that it is said once. */
  private report(slot: number, damages: Damage[]): void {
    const { m } = this;
    const owner = m[slot + GuardSlot.cache] as KmemCachePtr;
    for (const { what, ...damage } of damages) {
      this.caches.views.u8.fill(damage.expected, damage.from, damage.to);
      if (owner === 0) continue; // beside a slot that has had no object
      const object = m[slot + GuardSlot.object]!;
      const bytes = m[slot + GuardSlot.bytes]!;
      const s = readCacheDesc(m, owner, this.caches.geometry.nodes);
      const area = what === 'use-after-free write' ? 'Object' : 'Canary';
      this.caches.debug.guarded(s, {
        what,
        object,
        bytes,
        ...this.tracks(slot),
        damage: { area, ...damage },
      });
    }
  }

  private track(at: number): void {
    const { cpu, slabs } = this.caches;
    const { m } = this;
    m[at + Track.stack] = slabs.checks.sink.stack(cpu.locks.held === 0);
    m[at + Track.cpu] = cpu.id;
    m[at + Track.thread] = cpu.thread + 1;
    m[at + Track.tid] = m[cpu.record + ThreadRecord.tid]!;
    m[at + Track.when] = now() | 0;
  }

  private tracks(slot: number): { allocated?: GuardTrack; freed?: GuardTrack } {
    const allocated = this.readTrack(slot + GuardSlot.allocated);
    const freed = this.readTrack(slot + GuardSlot.freed);
    return { ...(allocated ? { allocated } : {}), ...(freed ? { freed } : {}) };
  }

  private readTrack(at: number): GuardTrack | undefined {
    const { m } = this;
    const thread = m[at + Track.thread]!;
    if (thread === 0) return undefined;
    const age = ((now() | 0) - m[at + Track.when]!) >>> 0;
    return { stack: m[at]!, cpu: m[at + Track.cpu]!, thread: thread - 1, tid: m[at + Track.tid]!, age };
  }
}
