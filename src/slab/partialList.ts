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
 * shortest time to get more objects back.
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

function markPartial(m: Words, n: KmemCacheNodePtr, page: PagePtr): void {
  m[page + FLAGS] = m[page + FLAGS]! | PG_PARTIAL;
  m[n + NR_PARTIAL] = m[n + NR_PARTIAL]! + 1;
}
