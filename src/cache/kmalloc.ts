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
} from '../page/index.js';
import { KmemCacheStruct } from '../slab/index.js';
import { describe, PAGE_SHIFT, PAGE_SIZE, requireInteger, SlabBugError } from '../struct/index.js';
import type { Caches } from './caches.js';
import { checkHead, HEADLESS } from './kfreeRcu.js';
import { Channel } from './kfreeRcuLists.js';
import type { KmemCache } from './kmemCache.js';

/** What kmalloc(0) returns: not NULL, and not an address either. */
export const ZERO_SIZE_PTR = 16;
/** Above this, kmalloc hands out pages. */
export const KMALLOC_MAX_CACHE_SIZE = 2 * PAGE_SIZE;
/** The largest block of pages. */
export const KMALLOC_MAX_SIZE = PAGE_SIZE << 10;

export const KMALLOC_SIZES = [8, 16, 32, 64, 96, 128, 192, 256, 512, 1024, 2048, 4096, 8192];

export function kmallocName(size: number): string {
  return size < 1024 ? `kmalloc-${size}` : `kmalloc-${size / 1024}k`;
}

/** Up to here the cache is looked up by (size - 1) / 8, above by the number of bits. */
const TABLE_MAX = 192;
const BITS_BASE = TABLE_MAX / 8;

/** Position in the lookup table for a size of 1 to 8192. */
function kmallocIndex(size: number): number {
  return size <= TABLE_MAX ? (size - 1) >> 3 : BITS_BASE + 32 - Math.clz32(size - 1);
}

/** Throws unless a large kmalloc starts at `p`, whose page has these flags. */
function assertLarge(p: number, flags: number): void {
  const isStart = p % PAGE_SIZE === 0;
  if (isStart && (flags & (PG_SLAB | PG_HEAD | PG_LARGE | PG_DEFERRED)) === (PG_HEAD | PG_LARGE)) return;
  let why = 'its page is free, or was allocated with allocPages';
  if ((flags & PG_LARGE) !== 0 || !isStart) why = 'it is not the start of a block';
  if ((flags & PG_DEFERRED) !== 0) why = 'it was freed already';
  const hex = `0x${p.toString(16)}`;
  throw new SlabBugError('not-a-slab', 'kmalloc', p, `${hex} did not come from kmalloc: ${why}`);
}

export class Kmallocs {
  private readonly caches: Caches;
  private readonly table: KmemCache[] = [];

  constructor(caches: Caches) {
    this.caches = caches;
  }

  /** The handles of the family, in the order of {@link KMALLOC_SIZES}, from the slot of the first. */
  bind(firstSlot: number): void {
    for (let size = 8; size <= KMALLOC_MAX_CACHE_SIZE; size = size < TABLE_MAX ? size + 8 : size * 2) {
      if (size === TABLE_MAX * 2) size = 256;
      const at = KMALLOC_SIZES.findIndex((bucket) => bucket >= size);
      this.table[kmallocIndex(size)] = this.caches.handle(firstSlot + at);
    }
  }

  /** The cache for objects of 1 to KMALLOC_MAX_CACHE_SIZE bytes. */
  bucket(size: number): KmemCache {
    return this.table[kmallocIndex(size)]!;
  }

  /** Kernel: `kmalloc`, `kmalloc_node`. Returns 0 when out of memory, ZERO_SIZE_PTR for size 0. */
  alloc(size: number, gfp: number = GFP_KERNEL, node: number = NUMA_NO_NODE): number {
    if (size > 0 && size <= KMALLOC_MAX_CACHE_SIZE && size === (size | 0)) {
      const cache = this.table[kmallocIndex(size)]!;
      return node === NUMA_NO_NODE ? cache.alloc(gfp) : cache.allocNode(node, gfp);
    }
    return this.allocLarge(size, gfp, node);
  }

  /** The cache whose slab holds `p`, or undefined. */
  cacheOf(p: number): KmemCache | undefined {
    const { m } = this.caches.views;
    const { geometry } = this.caches;
    if (!(p > 0 && p < geometry.bytes)) return undefined;
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

  /** Kernel: `kfree_bulk`. */
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
    this.caches.kfreeRcu.add(p, Channel.LARGE, word);
  }

  /** What kfree_rcu gathered past the sheaves; its grace period is over. */
  freeAfterGracePeriod(p: number): void {
    const cache = this.cacheOf(p);
    if (cache !== undefined) cache.freeAfterGracePeriod(p);
    else this.freeLarge(p);
  }

  /** The same for `list[0..n)`: those of one cache that follow one another, in one call. */
  freeBulkAfterGracePeriod(list: Int32Array, n: number): void {
    for (let from = 0; from < n; ) {
      const cache = this.cacheOf(list[from]!);
      let to = from + 1;
      if (cache === undefined) this.freeLarge(list[from]!);
      else {
        while (to < n && this.cacheOf(list[to]!) === cache) to++;
        cache.freeBulkAfterGracePeriod(list.subarray(from, to), to - from);
      }
      from = to;
    }
  }

  /** The object, or the large block, that a byte lies in. */
  objectAt(address: number): number {
    const { geometry, views } = this.caches;
    const start = pageAddress(geometry, compoundHead(views.m, virtToPage(geometry, address)));
    const cache = this.cacheOf(address);
    return cache === undefined ? start : start + Math.floor((address - start) / cache.size) * cache.size;
  }

  /** Frees an object of a kmalloc cache past its sheaves, for reclaim. */
  freePastLayer(p: number): void {
    const cache = this.cacheOf(p);
    if (cache === undefined) this.freeLarge(p);
    else cache.freePastLayer(p);
  }

  /** Bytes usable at `p`: the size of its bucket, or of its pages. Kernel: `ksize`. */
  ksize(p: number): number {
    if (p === 0 || p === ZERO_SIZE_PTR) return 0;
    const { m } = this.caches.views;
    const { geometry } = this.caches;
    const cache = isHeapAddress(geometry, p) ? m[virtToPage(geometry, p) + Page.cache]! : 0;
    if (cache === 0) return PAGE_SIZE << orderOf(m[this.largePage(p) + Page.flags]!);
    this.caches.handle(m[cache + KmemCacheStruct.slot]!).assertAllocated(p);
    return m[cache + KmemCacheStruct.objectSize]!;
  }

  /** Kernel: `krealloc`. Keeps the block when the new size fits; on failure returns 0 and the old one stays. */
  realloc(p: number, size: number, gfp: number = GFP_KERNEL): number {
    if (p === 0 || p === ZERO_SIZE_PTR) return this.alloc(size, gfp);
    requireInteger('size', size, 0, KMALLOC_MAX_SIZE);
    const old = this.ksize(p);
    if (size === 0) {
      this.free(p);
      return ZERO_SIZE_PTR;
    }
    if (size <= old) return p;
    const fresh = this.alloc(size, gfp);
    if (fresh === 0) return 0;
    this.caches.views.u8.copyWithin(fresh, p, p + old);
    this.free(p);
    return fresh;
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
    if ((gfp & __GFP_ZERO) !== 0) m.fill(0, p >> 2, (p + (PAGE_SIZE << order)) >>> 2);
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
