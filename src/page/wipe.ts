/** Blocks that are freed, in an arena with initOnFree. */
import type { ThisCpu } from '../cpu/index.js';
import { INIT_ON_FREE, PAGE_SIZE } from '../struct/index.js';
import { type PagePtr, pageAddress } from './page.js';

/** Zeroes a block that is being freed, where the arena wants that. Kernel: `free_pages_prepare`. */
export function wipeFreed({ geometry, views }: ThisCpu, page: PagePtr, order: number): void {
  if ((geometry.init & INIT_ON_FREE) === 0) return;
  const p = pageAddress(geometry, page);
  views.u8.fill(0, p, p + (PAGE_SIZE << order));
}
