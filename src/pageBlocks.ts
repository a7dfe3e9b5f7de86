/** Blocks of pages as the facade hands them out. */
import type { Caches } from './cache/index.js';
import { __GFP_ZERO, checkGfp, NUMA_NO_NODE } from './page/index.js';
import { INIT_ON_ALLOC, PAGE_SIZE, requireInteger } from './struct/index.js';

/** 2^order pages; their address or 0. Zeroed if that is asked for, here or for the whole arena. */
export function allocBlock(caches: Caches, order: number, gfp: number, node: number): number {
  const { geometry, pages, views } = caches;
  requireInteger('order', order, 0, 10);
  requireInteger('node', node, NUMA_NO_NODE, geometry.nodes - 1);
  checkGfp(gfp);
  const page = pages.alloc(order, gfp, node);
  if (page === 0) return 0;
  const address = pages.address(page);
  const zeroed = (gfp & __GFP_ZERO) !== 0 || (geometry.init & INIT_ON_ALLOC) !== 0;
  if (zeroed) views.u8.fill(0, address, address + (PAGE_SIZE << order));
  return address;
}
