/** Walking a cache's slabs and objects through the memmap, for reports and checks. Others must be quiet. */
import { orderOf, Page, type PagePtr, PG_HEAD, PG_SLAB, pageAddress, pfnToPage } from '../page/index.js';
import { type CacheDesc, freelistOf, MAX_OBJS_PER_PAGE, readFreePointer } from '../slab/index.js';
import { type Geometry, PAGE_SIZE, type Words } from '../struct/index.js';
import type { CacheContext } from './context.js';

/** Calls `visit` for the first page of each slab of the arena. */
export function forEachSlab(m: Words, geometry: Geometry, visit: (page: PagePtr) => void): void {
  for (let pfn = geometry.firstPfn; pfn < geometry.endPfn; pfn++) {
    const page = pfnToPage(geometry, pfn);
    const flags = m[page + Page.flags]!;
    if ((flags & PG_SLAB) !== 0 && (flags & PG_HEAD) !== 0) visit(page);
  }
}

/** How many objects a slab of this page's order has room for. */
export function slabCapacity(m: Words, s: CacheDesc, page: PagePtr): number {
  const bytes = PAGE_SIZE << orderOf(m[page + Page.flags]!);
  return Math.min(MAX_OBJS_PER_PAGE, Math.floor(bytes / s.size));
}

/** The slab's objects; never more than there is room for, whatever its page says. */
export function slabObjects(m: Words, s: CacheDesc, page: PagePtr): number {
  return Math.max(0, Math.min(m[page + Page.objects]!, slabCapacity(m, s, page)));
}

/** Object indices on a slab's freelist, in order. Ends with -1 at a repetition or a link to what is no object. */
export function freelistIndices(m: Words, geometry: Geometry, s: CacheDesc, page: PagePtr): number[] {
  const base = pageAddress(geometry, page) + s.redLeftPad;
  const objects = slabObjects(m, s, page);
  const seen = new Set<number>();
  const head = freelistOf(m[page + Page.slabWord]!);
  for (let p = head === 0 ? 0 : base + (head - 1) * s.size; p !== 0; ) {
    const index = (p - base) / s.size;
    if (!Number.isInteger(index) || index < 0 || index >= objects || seen.has(index)) {
      seen.add(-1);
      break;
    }
    seen.add(index);
    p = readFreePointer(m, s, p);
  }
  return [...seen];
}

/** Addresses of a cache's objects that are not free; its sheaves have been drained. */
export function allocatedObjects(context: CacheContext, s: CacheDesc): number[] {
  const { geometry, views } = context;
  const { m } = views;
  const found: number[] = [];
  forEachSlab(m, geometry, (page) => {
    if (m[page + Page.cache] !== s.ptr) return;
    const free = new Set(freelistIndices(m, geometry, s, page));
    const base = pageAddress(geometry, page) + s.redLeftPad;
    const objects = slabObjects(m, s, page);
    for (let i = 0; i < objects; i++) {
      if (!free.has(i)) found.push(base + i * s.size);
    }
  });
  return found;
}
