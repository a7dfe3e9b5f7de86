/**
 * The memmap: one `struct page` for each 4 KiB page of the arena, by page frame number.
 *
 * A page is in one of these states; a zeroed entry is the inside of a free block, so that a new arena needs no
 * initialisation page by page.
 *
 * | flags                 | meaning                                      | links                    |
 * |-----------------------|----------------------------------------------|--------------------------|
 * | 0                     | inside a free block                          | -                        |
 * | BUDDY, order          | first page of a free block                   | in the zone's free area  |
 * | HEAD, order           | first page of an allocated block             | free for the owner       |
 * | TAIL                  | another page of an allocated block           | `head` names the first   |
 * | HEAD or TAIL + SLAB   | the block is a slab; `cache` is set on each  | head: partial list       |
 * | HEAD or TAIL, `cache` set | of the pool of guarded objects, while one of the cache's lies there | -          |
 * | HEAD + LARGE          | the block is a large kmalloc                 | -                        |
 * | HEAD + PFMEMALLOC     | taken from the reserve by a thread that reclaims | as for HEAD              |
 * | HEAD + CALLBACK       | a slab whose objects are constructed, or await destructors | see slabCallbacks.ts |
 * | HEAD + LARGE + DEFERRED | the block is to be freed                   | on a deferred list, by its first word |
 *
 * BUDDY changes under zone->lock only; PARTIAL under n->list_lock only; the rest belongs to the block's owner.
 */
import { type Geometry, PAGE_SHIFT, type Ptr, struct, type Words } from '../struct/index.js';

export const Page = struct('page', {
  flags: 1,
  /** Slab: its kmem_cache. */
  cache: 1,
  /** Slab: freelist head, inuse and frozen in one word. */
  slabWord: 1,
  /** Slab: how many objects it has. */
  objects: 1,
  next: 1,
  prev: 1,
  /** TAIL: the block's first page. */
  head: 1,
  /** LARGE: the requested size in bytes. */
  size: 1,
});
export type PagePtr = Ptr<'page'>;

export const PG_BUDDY = 1 << 0;
export const PG_HEAD = 1 << 1;
export const PG_TAIL = 1 << 2;
export const PG_SLAB = 1 << 3;
/** SL_partial: the slab is on its node's partial list. */
export const PG_PARTIAL = 1 << 4;
export const PG_LARGE = 1 << 5;
/** Freed in a restricted context: the block waits on a CPU's deferred list, its first word is the link. */
export const PG_DEFERRED = 1 << 6;
/** Taken from below the min watermark by a thread that reclaims: what lies in the block is for such threads only. */
export const PG_PFMEMALLOC = 1 << 7;
/** No slab yet, or no more: its objects are being constructed, or wait for their destructors. */
export const PG_CALLBACK = 1 << 8;
const ORDER_SHIFT = 12;
const ORDER_MASK = 0xf;

/** Largest block: 2^10 pages, 4 MiB. */
export const MAX_PAGE_ORDER = 10;
export const NR_PAGE_ORDERS = MAX_PAGE_ORDER + 1;

export const orderBits = (order: number): number => order << ORDER_SHIFT;
export const orderOf = (flags: number): number => (flags >> ORDER_SHIFT) & ORDER_MASK;

const { SIZEOF: PAGE_WORDS } = Page;

/** The page that holds byte `address`. */
export function virtToPage(geometry: Geometry, address: number): PagePtr {
  return (geometry.memmap + (address >>> PAGE_SHIFT) * PAGE_WORDS) as PagePtr;
}

export function pfnToPage(geometry: Geometry, pfn: number): PagePtr {
  return (geometry.memmap + pfn * PAGE_WORDS) as PagePtr;
}

export function pageToPfn(geometry: Geometry, page: PagePtr): number {
  return (page - geometry.memmap) / PAGE_WORDS;
}

/** Byte address of the first byte of `page`. */
export function pageAddress(geometry: Geometry, page: PagePtr): number {
  return pageToPfn(geometry, page) << PAGE_SHIFT;
}

/** The first page of the allocated block that `page` is part of, or 0. */
export function compoundHead(m: Words, page: PagePtr): PagePtr {
  const flags = m[page + Page.flags]!;
  if ((flags & PG_HEAD) !== 0) return page;
  if ((flags & PG_TAIL) !== 0) return m[page + Page.head] as PagePtr;
  return 0 as PagePtr;
}

/** Whether `address` lies in the pages that the zones hand out. */
export function isHeapAddress(geometry: Geometry, address: number): boolean {
  // First of all: a BigInt would throw in the division.
  if (!Number.isInteger(address)) return false;
  const pfn = address / (1 << PAGE_SHIFT);
  return pfn >= geometry.firstPfn && pfn < geometry.endPfn;
}
