/**
 * The buddy allocator of one zone. Free blocks of 2^order pages are aligned to their size by page frame number; the
 * buddy of a block is the one whose number differs in bit `order`. All of it runs under zone->lock.
 */
import type { Geometry, Words } from '../struct/index.js';
import {
  MAX_PAGE_ORDER,
  orderBits,
  orderOf,
  Page,
  type PagePtr,
  PG_BUDDY,
  PG_HEAD,
  PG_TAIL,
  pageToPfn,
  pfnToPage,
} from './page.js';
import { Zone, type ZonePtr } from './zone.js';

const { flags: FLAGS, next: NEXT, prev: PREV, head: HEAD } = Page;
const { freeArea: FREE_AREA, nrFreeArea: NR_FREE_AREA, nrFree: NR_FREE, nrFreeMin: NR_FREE_MIN } = Zone;

function addToFreeArea(m: Words, zone: ZonePtr, page: PagePtr, order: number): void {
  const area = zone + FREE_AREA + order;
  const first = m[area]!;
  m[page + FLAGS] = PG_BUDDY | orderBits(order);
  m[page + NEXT] = first;
  m[page + PREV] = 0;
  if (first !== 0) m[first + PREV] = page;
  m[area] = page;
  m[zone + NR_FREE_AREA + order] = m[zone + NR_FREE_AREA + order]! + 1;
}

function delFromFreeArea(m: Words, zone: ZonePtr, page: PagePtr, order: number): void {
  const next = m[page + NEXT]!;
  const prev = m[page + PREV]!;
  if (next !== 0) m[next + PREV] = prev;
  if (prev !== 0) m[prev + NEXT] = next;
  else m[zone + FREE_AREA + order] = next;
  m[page + FLAGS] = 0;
  m[zone + NR_FREE_AREA + order] = m[zone + NR_FREE_AREA + order]! - 1;
}

/** Gives the zone all its pages, in the largest aligned blocks that fit. */
export function initZone(m: Words, geometry: Geometry, zone: ZonePtr): void {
  let pfn = m[zone + Zone.startPfn]!;
  const end = m[zone + Zone.endPfn]!;
  while (pfn < end) {
    let order = Math.min(MAX_PAGE_ORDER, 31 - Math.clz32(pfn & -pfn));
    while (pfn + (1 << order) > end) order--;
    addToFreeArea(m, zone, pfnToPage(geometry, pfn), order);
    pfn += 1 << order;
  }
  m[zone + NR_FREE] = end - m[zone + Zone.startPfn]!;
  m[zone + NR_FREE_MIN] = m[zone + NR_FREE]!;
}

/** Takes a block of 2^order pages, splitting a larger one if need be. Returns 0 when there is none. */
export function rmqueue(m: Words, geometry: Geometry, zone: ZonePtr, order: number): PagePtr {
  let have = order;
  while (have <= MAX_PAGE_ORDER && m[zone + FREE_AREA + have] === 0) have++;
  if (have > MAX_PAGE_ORDER) return 0 as PagePtr;
  const page = m[zone + FREE_AREA + have] as PagePtr;
  delFromFreeArea(m, zone, page, have);
  const pfn = pageToPfn(geometry, page);
  while (have > order) {
    have--;
    addToFreeArea(m, zone, pfnToPage(geometry, pfn + (1 << have)), have);
  }
  const left = m[zone + NR_FREE]! - (1 << order);
  m[zone + NR_FREE] = left;
  if (left < m[zone + NR_FREE_MIN]!) m[zone + NR_FREE_MIN] = left;
  prepareBlock(m, page, order);
  return page;
}

/** Marks the pages of a block that is about to be handed out. */
function prepareBlock(m: Words, page: PagePtr, order: number): void {
  m[page + FLAGS] = PG_HEAD | orderBits(order);
  for (let i = 1; i < 1 << order; i++) {
    const tail = page + i * Page.SIZEOF;
    m[tail + FLAGS] = PG_TAIL;
    m[tail + HEAD] = page;
  }
}

/** Makes single pages of a block that the caller owns, from the end, so that the block's head tells of less and less. Kernel: `split_page`. */
export function splitPage(m: Words, page: PagePtr, order: number): void {
  for (let i = (1 << order) - 1; i >= 0; i--) {
    const each = page + i * Page.SIZEOF;
    m[each + FLAGS] = PG_HEAD | orderBits(0);
    m[each + HEAD] = 0;
  }
}

/** A loop for the common single page: the builtin costs more than eight stores. */
function clearPages(m: Words, page: PagePtr, order: number): void {
  const end = page + (1 << order) * Page.SIZEOF;
  if (order > 0) m.fill(0, page, end);
  else for (let i = page as number; i < end; i++) m[i] = 0;
}

/** Puts a block back and merges it with its buddy for as long as that is free too. */
export function freeOnePage(m: Words, geometry: Geometry, zone: ZonePtr, page: PagePtr, order: number): void {
  clearPages(m, page, order);
  m[zone + NR_FREE] = m[zone + NR_FREE]! + (1 << order);
  const start = m[zone + Zone.startPfn]!;
  const end = m[zone + Zone.endPfn]!;
  let pfn = pageToPfn(geometry, page);
  let merged = order;
  while (merged < MAX_PAGE_ORDER) {
    const buddyPfn = pfn ^ (1 << merged);
    if (buddyPfn < start || buddyPfn + (1 << merged) > end) break;
    const buddy = pfnToPage(geometry, buddyPfn);
    // The buddy may be somebody's block whose flags change as we read; BUDDY changes only under our lock.
    const flags = m[buddy + FLAGS]!;
    if ((flags & PG_BUDDY) === 0 || orderOf(flags) !== merged) break;
    delFromFreeArea(m, zone, buddy, merged);
    pfn &= buddyPfn;
    merged++;
  }
  addToFreeArea(m, zone, pfnToPage(geometry, pfn), merged);
}
