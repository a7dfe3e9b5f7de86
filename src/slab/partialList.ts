/**
 * The partial list of one node: slabs that have free objects and that nobody holds.
 *
 * | state of a slab                 | PG_PARTIAL | freelist          | how it got here                     |
 * |---------------------------------|------------|-------------------|-------------------------------------|
 * | on the partial list             | 1          | not empty         | new with leftovers, or a first free |
 * | taken off by a refiller         | 0          | any               | getPartialBulk, until it is put back |
 * | full, on no list                | 0          | empty             | its last object was popped          |
 * | frozen                          | 0          | empty             | failed a consistency check          |
 *
 * Everything here needs list_lock. New slabs go to the head, slabs that come back to the tail: they have had the
 * shortest time to get more objects back. (Without `batchDetach` a refiller's go to the head, as they once did.)
 */
import { Page, type PagePtr, PG_PARTIAL } from '../page/index.js';
import type { Words } from '../struct/index.js';
import { KmemCacheNode, type KmemCacheNodePtr } from './kmemCache.js';

const { flags: FLAGS, next: NEXT, prev: PREV } = Page;
const { head: HEAD, tail: TAIL, nrPartial: NR_PARTIAL } = KmemCacheNode;

export function addPartialHead(m: Words, n: KmemCacheNodePtr, page: PagePtr): void {
  const first = m[n + HEAD]!;
  m[page + NEXT] = first;
  m[page + PREV] = 0;
  if (first !== 0) m[first + PREV] = page;
  else m[n + TAIL] = page;
  m[n + HEAD] = page;
  markPartial(m, n, page);
}

export function addPartialTail(m: Words, n: KmemCacheNodePtr, page: PagePtr): void {
  const last = m[n + TAIL]!;
  m[page + NEXT] = 0;
  m[page + PREV] = last;
  if (last !== 0) m[last + NEXT] = page;
  else m[n + HEAD] = page;
  m[n + TAIL] = page;
  markPartial(m, n, page);
}

export function removePartial(m: Words, n: KmemCacheNodePtr, page: PagePtr): void {
  const next = m[page + NEXT]!;
  const prev = m[page + PREV]!;
  if (next !== 0) m[next + PREV] = prev;
  else m[n + TAIL] = prev;
  if (prev !== 0) m[prev + NEXT] = next;
  else m[n + HEAD] = next;
  m[page + NEXT] = 0;
  m[page + PREV] = 0;
  m[page + FLAGS] = m[page + FLAGS]! & ~PG_PARTIAL;
  m[n + NR_PARTIAL] = m[n + NR_PARTIAL]! - 1;
}

/** Takes the list up to `last`, `nr` slabs, off in one piece; what is cut keeps its links, and its marks are cleared. */
export function cutPartialHead(m: Words, n: KmemCacheNodePtr, last: PagePtr, nr: number): void {
  const rest = m[last + NEXT]!;
  m[last + NEXT] = 0;
  m[n + HEAD] = rest;
  if (rest !== 0) m[rest + PREV] = 0;
  else m[n + TAIL] = 0;
  m[n + NR_PARTIAL] = m[n + NR_PARTIAL]! - nr;
}

/** Appends a chain that was cut from a list, from `first` to its end, in one piece. */
export function splicePartialTail(m: Words, n: KmemCacheNodePtr, first: PagePtr): void {
  const before = m[n + TAIL]!;
  m[first + PREV] = before;
  if (before !== 0) m[before + NEXT] = first;
  else m[n + HEAD] = first;
  for (let page: number = first; page !== 0; page = m[page + NEXT]!) {
    markPartial(m, n, page as PagePtr);
    m[n + TAIL] = page;
  }
}

function markPartial(m: Words, n: KmemCacheNodePtr, page: PagePtr): void {
  m[page + FLAGS] = m[page + FLAGS]! | PG_PARTIAL;
  m[n + NR_PARTIAL] = m[n + NR_PARTIAL]! + 1;
}
