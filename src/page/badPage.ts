/** What is wrong with a block of pages that a user names by address and order. */
import { hexAddress, SlabBugError } from '../struct/index.js';
import { orderOf, PG_HEAD, PG_LARGE, PG_SLAB } from './page.js';

export function badPage(address: unknown, what: string): SlabBugError {
  return new SlabBugError('bad-page', 'page_alloc', typeof address === 'number' ? address : 0, what);
}

/** Throws unless a block of that order, of allocPages, starts at the page with these flags. */
export function checkBlock(address: number, order: number, flags: number): void {
  const hex = hexAddress(address);
  if ((flags & PG_HEAD) === 0) {
    throw badPage(address, `no block starts at ${hex}: it was freed already or never allocated`);
  }
  if ((flags & (PG_SLAB | PG_LARGE)) !== 0) {
    throw badPage(address, `${hex} belongs to kmalloc or a cache; free it there`);
  }
  if (orderOf(flags) !== order) {
    throw badPage(address, `the block at ${hex} has order ${orderOf(flags)}, not ${order}`);
  }
}
