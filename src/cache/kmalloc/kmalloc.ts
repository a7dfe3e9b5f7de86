/**
 * kmalloc: the family of caches by size, and whole pages above 8 KiB.
 *
 * Sizes 8 to 8192 by powers of two, with 96 and 192 between. An object is aligned at least to the largest power of two
 * that divides its size.
 */
import {
  __GFP_ZERO,
  checkGfp,
  compoundHead,
  GFP_KERNEL,
  isHeapAddress,
  NUMA_NO_NODE,
  orderOf,
  Page,
  type PagePtr,
  PG_DEFERRED,
  PG_HEAD,
  PG_LARGE,
  PG_SLAB,
  pageAddress,
  virtToPage,
} from '../../page/index.js';
import {
  type CacheDesc,
  KmemCacheStruct,
  SLAB_ACCOUNT,
  SLAB_POISON,
  SLAB_RED_ZONE,
  SLAB_STORE_USER,
  SLAB_TYPESAFE_BY_RCU,
  tracksOrigSize,
} from '../../slab/index.js';
import {
  describe,
  hexAddress,
  INIT_ON_ALLOC,
  INSPECT,
  PAGE_SHIFT,
  PAGE_SIZE,
  requireInteger,
  SlabBugError,
} from '../../struct/index.js';
import type { Caches } from '../caches.js';
import type { DebugKmemCache } from '../debug/debugCache.js';
import { reallocRequested } from '../debug/debugRealloc.js';
import type { KmemCache } from '../kmemCache.js';
import { checkHead, HEADLESS } from '../rcu/kfreeRcu.js';
import { Channel } from '../rcu/kfreeRcuLists.js';
import {
  familyByFlags,
  GFP_TYPE_MASK,
  GFP_TYPE_SHIFT,
  KMALLOC_SIZES,
  kmallocFamilies,
} from './kmallocTypes.js';

/** What kmalloc(0) returns: not NULL, and not an address either. */
export const ZERO_SIZE_PTR = 16;
/** Above this, kmalloc hands out pages. */
export const KMALLOC_MAX_CACHE_SIZE = 2 * PAGE_SIZE;
/** The largest block of pages. */
export const KMALLOC_MAX_SIZE = PAGE_SIZE << 10;

/** Up to here the cache is looked up by (size - 1) / 8, above by the number of bits. */
const TABLE_MAX = 192;
const BITS_BASE = TABLE_MAX / 8;

/** Position in the lookup table for a size of 1 to 8192. */
export function kmallocIndex(size: number): number {
  return size <= TABLE_MAX ? (size - 1) >> 3 : BITS_BASE + 32 - Math.clz32(size - 1);
}

/** Caches by {@link kmallocIndex}. */
export type KmallocTable = readonly KmemCache[];

const TYPE_SHIFT = GFP_TYPE_SHIFT;
const TYPE_MASK = GFP_TYPE_MASK;

/** The cache for objects of 1 to KMALLOC_MAX_CACHE_SIZE bytes, from tables by what the flags that choose a type come to. */
export const cacheFor = (rows: readonly KmallocTable[], size: number, gfp: number): KmemCache =>
  rows[(gfp >> TYPE_SHIFT) & TYPE_MASK]![kmallocIndex(size)]!;

/** Throws unless a large kmalloc starts at `p`, whose page has these flags. */
function assertLarge(p: number, flags: number): void {
  const isStart = p % PAGE_SIZE === 0;
  if (isStart && (flags & (PG_SLAB | PG_HEAD | PG_LARGE | PG_DEFERRED)) === (PG_HEAD | PG_LARGE)) return;
  let why = 'its page is free, or was allocated with allocPages';
  if ((flags & PG_LARGE) !== 0 || !isStart) why = 'it is not the start of a block';
  if ((flags & PG_DEFERRED) !== 0) why = 'it was freed already';
  const hex = hexAddress(p);
  throw new SlabBugError('not-a-slab', 'kmalloc', p, `${hex} did not come from kmalloc: ${why}`);
}

/** A table from the caches of the sizes, `cacheAt(i)` being that of KMALLOC_SIZES[i]. */
export function kmallocTable(cacheAt: (i: number) => KmemCache): KmallocTable {
  const table: KmemCache[] = [];
  for (let size = 8; size <= KMALLOC_MAX_CACHE_SIZE; size = size < TABLE_MAX ? size + 8 : size * 2) {
    if (size === TABLE_MAX * 2) size = 256;
    table[kmallocIndex(size)] = cacheAt(KMALLOC_SIZES.findIndex((bucket) => bucket >= size));
  }
  return table;
}

/** Kernel: `slab_ksize`. Behind an object may lie its free pointer or its requested size; padding is its own. */
function usableBytes({ flags, inuse, objectSize, offset, origSize, size }: CacheDesc): number {
  if ((flags & (SLAB_RED_ZONE | SLAB_POISON)) !== 0) return objectSize;
  const follows =
    (flags & (SLAB_TYPESAFE_BY_RCU | SLAB_ACCOUNT | SLAB_STORE_USER)) !== 0 ||
    origSize !== 0 ||
    offset >= inuse;
  return follows ? inuse : size;
}

export class Kmallocs {
  protected readonly caches: Caches;
  private readonly table: KmemCache[] = [];
  /** Tables by family. */
  protected families: KmallocTable[] = [];
  /** Tables by what the flags that choose a type come to. */
  protected rows: readonly KmallocTable[] = [];

  constructor(caches: Caches) {
    this.caches = caches;
  }

  /** For console.log of what has it among its fields. */
  [INSPECT](): string {
    return `Kmallocs { CPU ${this.caches.cpu.id} }`;
  }

  /** The handles of all families, which lie one after the other from this slot, each in the order of the sizes. */
  bind(firstSlot: number): void {
    const { caches } = this;
    const { geometry } = caches;
    this.families = kmallocFamilies(geometry).map((_, family) =>
      kmallocTable((i) => caches.handle(firstSlot + family * KMALLOC_SIZES.length + i)),
    );
    this.families[0]!.forEach((cache, i) => {
      this.table[i] = cache;
    });
    this.rows = familyByFlags(geometry).map((family) => this.families[family]!);
  }

  /** The cache for objects of 1 to KMALLOC_MAX_CACHE_SIZE bytes. */
  bucket(size: number, gfp = 0): KmemCache {
    return this.rows[(gfp >> TYPE_SHIFT) & TYPE_MASK]![kmallocIndex(size)]!;
  }

  /** What {@link allocFrom} takes for a site that a copy of the normal caches serves. */
  rowsOfFamily(family: number): readonly KmallocTable[] {
    const normal = this.families[0]!;
    return this.rows.map((table) => (table === normal ? this.families[family]! : table));
  }

  /** Kernel: `kmalloc`, `kmalloc_node`. Returns 0 when out of memory, ZERO_SIZE_PTR for size 0. */
  alloc(size: number, gfp: number = GFP_KERNEL, node: number = NUMA_NO_NODE): number {
    if (size > 0 && size <= KMALLOC_MAX_CACHE_SIZE && size === (size | 0)) {
      const cache = this.table[kmallocIndex(size)]!;
      return node === NUMA_NO_NODE ? cache.alloc(gfp) : cache.allocNode(node, gfp);
    }
    return this.allocLarge(size, gfp, node);
  }

  /** The same from tables of the caller's, by the flags that choose a type. */
  allocFrom(rows: readonly KmallocTable[], size: number, gfp: number, node: number): number {
    if (size > 0 && size <= KMALLOC_MAX_CACHE_SIZE && size === (size | 0)) {
      const cache = rows[(gfp >> TYPE_SHIFT) & TYPE_MASK]![kmallocIndex(size)]!;
      const p = node === NUMA_NO_NODE ? cache.alloc(gfp) : cache.allocNode(node, gfp);
      this.setRequested(cache, p, size);
      return p;
    }
    return this.allocLarge(size, gfp, node);
  }

  /** What the allocator needs for itself. It lasts: where objects are guarded, these never are. */
  allocOwn(size: number, gfp: number = GFP_KERNEL, node: number = NUMA_NO_NODE): number {
    return this.alloc(size, gfp, node);
  }

  /** Notes what an object was asked for, where caches keep that; 0 is no object. Kernel: `set_orig_size`. */
  setRequested({ desc }: KmemCache, p: number, size: number): void {
    if (p !== 0 && desc.origSize !== 0) this.caches.views.m[(p + desc.origSize) >> 2] = size;
  }

  /** The cache whose slab holds `p`, or undefined. */
  cacheOf(p: number): KmemCache | undefined {
    const { m } = this.caches.views;
    const { geometry } = this.caches;
    // A BigInt or a Symbol would throw V8's own error below, and not one that says what it was.
    if (typeof p !== 'number' || !(p > 0 && p < geometry.bytes)) return undefined;
    const cache = m[virtToPage(geometry, p) + Page.cache]!;
    return cache === 0 ? undefined : this.caches.handle(m[cache + KmemCacheStruct.slot]!);
  }

  /** Kernel: `kfree`. NULL and ZERO_SIZE_PTR are nothing to free. */
  free(p: number): void {
    const { m } = this.caches.views;
    const { geometry } = this.caches;
    if (p > 0 && p < geometry.bytes) {
      const cache = m[virtToPage(geometry, p) + Page.cache]!;
      if (cache !== 0) {
        this.caches.handle(m[cache + KmemCacheStruct.slot]!).free(p);
        return;
      }
    }
    this.freeLarge(p);
  }

  /** Frees `list[0..n)`, of any sizes. Kernel: `kfree_bulk`. */
  freeBulk(list: Int32Array, n: number): void {
    if (!(list instanceof Int32Array)) {
      throw new TypeError(`list is ${describe(list)}; it must be an Int32Array of addresses`);
    }
    requireInteger('n', n, 0, list.length);
    for (let i = 0; i < n; i++) this.free(list[i]!);
  }

  /** Frees after a grace period. Kernel: `kfree_rcu`, `kvfree_rcu`. */
  freeRcu(p: number, head?: number): void {
    if (p === 0 || p === ZERO_SIZE_PTR) return;
    const cache = this.cacheOf(p);
    if (cache !== undefined) return cache.freeRcu(p, head);
    this.caches.cpu.assertOnline();
    const page = this.largePage(p); // says what is wrong with it now, not after the grace period
    const word = head === undefined ? HEADLESS : p + checkHead(head, this.caches.views.m[page + Page.size]!);
    this.caches.views.m[this.caches.kfreeRcu.handHead] = word;
    this.caches.views.m[this.caches.kfreeRcu.hand] = p; // until here the block is the caller's
    this.caches.kfreeRcu.add(p, Channel.LARGE, word);
  }

  /** What kfree_rcu gathered past the sheaves; its grace period is over. */
  freeAfterGracePeriod(p: number): void {
    const cache = this.cacheOf(p);
    if (cache !== undefined) cache.freeAfterGracePeriod(p);
    else this.freeLarge(p);
  }

  /** The object, or the large block, that a byte lies in. */
  objectAt(address: number): number {
    const { geometry, views, guards } = this.caches;
    if (guards.owns(address)) return guards.objectAt(address);
    const start = pageAddress(geometry, compoundHead(views.m, virtToPage(geometry, address)));
    const cache = this.cacheOf(address);
    return cache === undefined
      ? start
      : start + Math.floor((address - start) / cache.size) * cache.size + cache.desc.redLeftPad;
  }

  /** Frees an object of a kmalloc cache past its sheaves, for reclaim. */
  freePastLayer(p: number): void {
    const cache = this.cacheOf(p);
    if (cache === undefined) this.freeLarge(p);
    else cache.freePastLayer(p);
  }

  /** Bytes usable at `p`: up to the next object, or to what the cache keeps behind it; whole pages. Kernel: `ksize`. */
  ksize(p: number): number {
    if (p === 0 || p === ZERO_SIZE_PTR) return 0;
    const cache = this.cacheOf(p);
    if (cache === undefined) return this.largeBytes(p);
    cache.assertAllocated(p);
    if (this.caches.guards.owns(p)) return this.caches.guards.bytesOf(p); // what follows is canary
    return usableBytes(cache.desc);
  }

  /** What was asked for at `p`, or 0 where that is not kept. Kernel: `get_orig_size`. */
  requestedSize(p: number): number {
    if (p === 0 || p === ZERO_SIZE_PTR) return 0;
    const { m } = this.caches.views;
    const cache = this.cacheOf(p);
    if (cache === undefined) return m[this.largePage(p) + Page.size]!;
    cache.assertAllocated(p);
    if (cache.desc.origSize === 0) return 0;
    return this.caches.guards.owns(p) ? this.caches.guards.bytesOf(p) : m[(p + cache.desc.origSize) >> 2]!;
  }

  /** Overwrites a block with zeroes, all that is usable, and frees it. Kernel: `kfree_sensitive`. */
  freeSensitive(p: number): void {
    this.caches.cpu.assertOnline();
    const bytes = this.ksize(p);
    if (bytes !== 0) this.caches.views.u8.fill(0, p, p + bytes);
    this.free(p);
  }

  /**
   * Keeps the block when the new size fits; on failure returns 0 and the old one stays. With __GFP_ZERO what was not
   * asked for before is zero, where requested sizes are kept; elsewhere it is if every call for the block had the flag,
   * since each clears what it leaves over. Kernel: `krealloc`.
   */
  realloc(p: number, size: number, gfp: number = GFP_KERNEL): number {
    if (p === 0 || p === ZERO_SIZE_PTR) return this.alloc(size, gfp);
    requireInteger('size', size, 0, KMALLOC_MAX_SIZE);
    checkGfp(gfp);
    const requested = this.requestedSize(p);
    const cache = this.cacheOf(p);
    const bytes = cache === undefined ? this.largeBytes(p) : cache.objectSize;
    if (size === 0) {
      this.free(p);
      return ZERO_SIZE_PTR;
    }
    if (cache !== undefined && tracksOrigSize(cache.desc.flags)) {
      return reallocRequested(this.caches, cache as DebugKmemCache, p, size, gfp);
    }
    if (size <= bytes) {
      if ((gfp & __GFP_ZERO) !== 0) this.clearSpare(p, requested, size, bytes);
      if (cache !== undefined) this.setRequested(cache, p, size);
      else this.caches.views.m[this.largePage(p) + Page.size] = size;
      return p;
    }
    const fresh = this.alloc(size, gfp);
    if (fresh === 0) return 0;
    this.caches.views.u8.copyWithin(fresh, p, p + (requested || bytes));
    this.free(p);
    return fresh;
  }

  /** Clears what a block of `bytes` gains by the new size, or what it leaves over if that is not known or less. */
  private clearSpare(p: number, requested: number, size: number, bytes: number): void {
    const { u8 } = this.caches.views;
    if (requested !== 0 && requested < size) u8.fill(0, p + requested, p + size);
    else u8.fill(0, p + size, p + bytes);
  }

  /** Bytes of a large kmalloc, its pages. */
  private largeBytes(p: number): number {
    return PAGE_SIZE << orderOf(this.caches.views.m[this.largePage(p) + Page.flags]!);
  }

  private allocLarge(size: number, gfp: number, node: number): number {
    requireInteger('size', size, 0, KMALLOC_MAX_SIZE);
    requireInteger('node', node, NUMA_NO_NODE, this.caches.geometry.nodes - 1);
    checkGfp(gfp);
    if (size === 0) return ZERO_SIZE_PTR;
    this.caches.cpu.assertOnline();
    const { m } = this.caches.views;
    const order = 32 - Math.clz32((size - 1) >> PAGE_SHIFT);
    const page = this.caches.slabs.pages.alloc(order, gfp, node);
    if (page === 0) return 0;
    m[page + Page.flags] = m[page + Page.flags]! | PG_LARGE;
    m[page + Page.size] = size;
    const p = pageAddress(this.caches.geometry, page);
    const zeroed = (gfp & __GFP_ZERO) !== 0 || (this.caches.geometry.init & INIT_ON_ALLOC) !== 0;
    if (zeroed) m.fill(0, p >> 2, (p + (PAGE_SIZE << order)) >>> 2);
    return p;
  }

  private freeLarge(p: number): void {
    if (p === 0 || p === ZERO_SIZE_PTR) return;
    this.caches.cpu.assertOnline();
    this.caches.slabs.pages.freeChecked(this.largePage(p), (flags) => assertLarge(p, flags));
  }

  /** The first page of a large kmalloc, or an error that says why `p` is none. */
  largePage(p: number): PagePtr {
    const { m } = this.caches.views;
    const { geometry } = this.caches;
    if (!isHeapAddress(geometry, p)) {
      throw new SlabBugError('invalid-pointer', 'kmalloc', 0, `${describe(p)} is not an address of the heap`);
    }
    const page = virtToPage(geometry, p);
    assertLarge(p, m[page + Page.flags]!);
    return page;
  }
}
