/**
 * Byte ranges and text in and out of the arena, and what is checked of them when it is hardened.
 *
 * "User" is the JavaScript side, whose lengths and addresses the arena cannot trust. In a hardened arena a copy must lie in
 * one object: in its cache's usercopy range, which most caches have none of; anywhere in a kmalloc object; within one block
 * of pages. Otherwise it must lie in the heap. Kernel: `__check_heap_object`.
 */
import { type GuardedPlace, guardedPlaceAt } from '../cache/index.js';
import type { Views } from '../cpu/index.js';
import {
  compoundHead,
  isHeapAddress,
  orderOf,
  Page,
  type PagePtr,
  PG_SLAB,
  pageAddress,
  virtToPage,
} from '../page/index.js';
import { type KmemCachePtr, KmemCacheStruct, readName } from '../slab/index.js';
import {
  describe,
  type Geometry,
  hexAddress,
  PAGE_SIZE,
  requireInteger,
  SlabBugError,
} from '../struct/index.js';
import { readText, writeText } from './text.js';

const K = KmemCacheStruct;

/** Where an address lies: in which object of which cache, or in a block of pages. */
interface Place {
  /** 0 in a block of pages. */
  readonly cache: KmemCachePtr;
  /** Address and bytes of the object or block. */
  readonly start: number;
  readonly bytes: number;
}

export class UserCopy {
  private readonly views: Views;
  private readonly geometry: Geometry;
  readonly hardened: boolean;

  constructor(views: Views, geometry: Geometry) {
    this.views = views;
    this.geometry = geometry;
    this.hardened = geometry.hardenedUsercopy === 1;
  }

  /** Copies bytes into the arena. */
  from(to: number, bytes: Uint8Array): void {
    if (!(bytes instanceof Uint8Array)) {
      throw new TypeError(`from is ${describe(bytes)}; it must be a Uint8Array`);
    }
    this.check(to, bytes.length);
    this.views.u8.set(bytes, to);
  }

  /** Copies `bytes.length` bytes out of the arena. */
  to(bytes: Uint8Array, from: number): void {
    if (!(bytes instanceof Uint8Array))
      throw new TypeError(`to is ${describe(bytes)}; it must be a Uint8Array`);
    this.check(from, bytes.length);
    bytes.set(this.views.u8.subarray(from, from + bytes.length));
  }

  writeText(p: number, room: number, text: string): number {
    this.check(p, room);
    return writeText(this.views.u8, p, room, text);
  }

  readText(p: number, room: number): string {
    this.check(p, room);
    return readText(this.views.u8, p, room);
  }

  /** Throws unless a range may be copied. */
  check(p: number, n: number): void {
    requireInteger('n', n, 0, this.geometry.bytes);
    this.assertHeap(p, n);
    if (this.hardened && n > 0) this.assertWindow(p, n, this.placeOf(p));
  }

  /** Throws unless an allocated object, of the cache if it is given, begins at `p` and has room for `n` bytes. */
  assertObject(p: number, n: number, owner: KmemCachePtr | 0): void {
    this.assertHeap(p, n);
    const { cache, start, bytes } = this.placeOf(p);
    if ((owner === 0 || cache === owner) && p === start && n <= bytes) return;
    const name = this.nameOf(cache);
    if (owner !== 0 && cache !== owner) {
      throw new SlabBugError('wrong-cache', this.nameOf(owner), p, `${hexAddress(p)} is of ${name}`);
    }
    if (p !== start) {
      throw new SlabBugError('misaligned', name, p, `${hexAddress(p)} is ${p - start} bytes into an object`);
    }
    throw new SlabBugError('usercopy', name, p, `a view of ${n} bytes on an object of ${bytes}`);
  }

  /** For messages alone: it makes a string. */
  private nameOf(cache: KmemCachePtr): string {
    return cache === 0 ? 'pages' : readName(this.views.m, cache);
  }

  private assertHeap(p: number, n: number): void {
    const { geometry } = this;
    if (typeof p === 'number' && isHeapAddress(geometry, p) && p + n <= geometry.bytes) return;
    throw new SlabBugError(
      'invalid-pointer',
      'usercopy',
      typeof p === 'number' ? p : 0,
      `${n} bytes from ${describe(p)} on do not lie in the heap`,
    );
  }

  /** Throws for what nobody has allocated. */
  private placeOf(p: number): Place {
    const { m } = this.views;
    const guarded = guardedPlaceAt(m, this.geometry, p);
    if (guarded !== undefined) return this.guardedOf(p, guarded);
    const page = compoundHead(m, virtToPage(this.geometry, p));
    if (page === 0 || m[page + Page.flags] === 0) {
      throw new SlabBugError('not-a-slab', 'usercopy', p, `${hexAddress(p)} lies in a free page`);
    }
    const base = pageAddress(this.geometry, page);
    const cache = m[page + Page.cache] as KmemCachePtr;
    if ((m[page + Page.flags]! & PG_SLAB) === 0 || cache === 0) return this.blockOf(page, base);
    const size = m[cache + K.size]!;
    const index = Math.floor((p - base) / size);
    const start = base + index * size + m[cache + K.redLeftPad]!;
    if (index >= m[page + Page.objects]!) {
      const what = `${hexAddress(p)} lies past the slab's last object`;
      throw new SlabBugError('misaligned', this.nameOf(cache), p, what);
    }
    this.assertMarked(cache, p, start);
    return { cache, start, bytes: m[cache + K.objectSize]! };
  }

  private assertMarked(cache: KmemCachePtr, p: number, start: number): void {
    const { shadow } = this.views;
    if (shadow.length === 0 || shadow[start >> 3] !== 0) return;
    throw this.isFree(cache, p);
  }

  private isFree(cache: KmemCachePtr, p: number): SlabBugError {
    const what = `${hexAddress(p)} lies in an object that is free`;
    return new SlabBugError('use-after-free', this.nameOf(cache), p, what);
  }

  private guardedOf(p: number, { cache, object, bytes, isLive }: GuardedPlace): Place {
    if (cache === 0)
      throw new SlabBugError('not-a-slab', 'usercopy', p, `${hexAddress(p)} lies in a guard page`);
    if (isLive) return { cache, start: object, bytes };
    throw this.isFree(cache, p);
  }

  private blockOf(page: PagePtr, start: number): Place {
    const bytes = PAGE_SIZE << orderOf(this.views.m[page + Page.flags]!);
    return { cache: 0 as KmemCachePtr, start, bytes };
  }

  private assertWindow(p: number, n: number, { cache, start, bytes }: Place): void {
    const { m } = this.views;
    const from = cache === 0 ? 0 : m[cache + K.useroffset]!;
    // A guarded object may be smaller than those of its cache.
    const room = cache === 0 ? bytes : Math.min(m[cache + K.usersize]!, bytes - from);
    const offset = p - start;
    if (offset >= from && offset - from + n <= room) return;
    const range = room === 0 ? 'nothing of it may be' : `bytes ${from} to ${from + room} may be`;
    throw new SlabBugError(
      'usercopy',
      this.nameOf(cache),
      p,
      `Kernel memory exposure attempt: ${n} bytes at offset ${offset} of an object are copied, ${range}`,
    );
  }
}
