/**
 * Allocation flags, with the kernel's names and meaning. The values are ours. What each one does when memory is short
 * is in the table of docs/memory-pressure.md.
 */
import { describe } from '../struct/index.js';

/** What is handed out is zero. */
export const __GFP_ZERO = 1 << 0;
/** The caller may wait for memory to be reclaimed. */
export const __GFP_DIRECT_RECLAIM = 1 << 1;
/** Take the memory from the requested node or not at all. */
export const __GFP_THISNODE = 1 << 2;
/** A failure leaves no report. */
export const __GFP_NOWARN = 1 << 3;
/** One round of reclaim, and no page from the reserve below the min watermark. */
export const __GFP_NORETRY = 1 << 4;
/** May use the whole reserve below the min watermark. */
export const __GFP_HIGH = 1 << 5;
/** Never returns 0: waits for memory, and throws OutOfMemoryError when there is none within the limit. */
export const __GFP_NOFAIL = 1 << 6;
/** No page from the reserve on the ground that this thread is reclaiming. */
export const __GFP_NOMEMALLOC = 1 << 7;
// The next three are neighbours: kmalloc looks its type up by all of them as one number.
/** From the caches of memory that can be reclaimed, if the arena has them. */
export const __GFP_RECLAIMABLE = 1 << 8;
/** From the caches for DMA, if the arena has them. */
export const __GFP_DMA = 1 << 9;
/** From the accounted caches, if the arena has them. */
export const __GFP_ACCOUNT = 1 << 10;

/** The default: may wait for memory to be reclaimed. */
export const GFP_KERNEL = __GFP_DIRECT_RECLAIM;
/** Waits for nothing. */
export const GFP_NOWAIT = 0;
/** Waits for nothing, and may use the reserve. */
export const GFP_ATOMIC = __GFP_HIGH;

/** Internal, for restricted contexts: zone->lock is only tried. */
export const ALLOC_TRYLOCK = 1 << 30;

/** No preference for a node. */
export const NUMA_NO_NODE = -1;

const FLAG_NAMES: ReadonlyArray<[number, string]> = [
  [__GFP_ZERO, '__GFP_ZERO'],
  [__GFP_DIRECT_RECLAIM, 'GFP_KERNEL'],
  [__GFP_THISNODE, '__GFP_THISNODE'],
  [__GFP_NOWARN, '__GFP_NOWARN'],
  [__GFP_NORETRY, '__GFP_NORETRY'],
  [__GFP_HIGH, '__GFP_HIGH'],
  [__GFP_NOFAIL, '__GFP_NOFAIL'],
  [__GFP_NOMEMALLOC, '__GFP_NOMEMALLOC'],
  [__GFP_RECLAIMABLE, '__GFP_RECLAIMABLE'],
  [__GFP_DMA, '__GFP_DMA'],
  [__GFP_ACCOUNT, '__GFP_ACCOUNT'],
];
const GFP_KNOWN = FLAG_NAMES.reduce((all, [flag]) => all | flag, 0);

/** The flags by name, as a report prints them. */
export function gfpNames(gfp: number): string {
  const names = FLAG_NAMES.filter(([flag]) => (gfp & flag) !== 0).map(([, name]) => name);
  return names.length > 0 ? names.join('|') : 'GFP_NOWAIT';
}

/**
 * Throws RangeError unless `gfp` has known flags only, and flags that go together. Slow paths call it before they
 * change anything; the fast paths look at no flag but __GFP_ZERO.
 */
export function checkGfp(gfp: number): void {
  if (typeof gfp !== 'number' || gfp !== (gfp & GFP_KNOWN)) {
    throw new RangeError(
      `gfp is ${typeof gfp === 'number' ? `0x${gfp.toString(16)}` : describe(gfp)}; ` +
        `it must be an or of GFP_* and __GFP_* flags, within 0x${GFP_KNOWN.toString(16)}`,
    );
  }
  if ((gfp & (__GFP_NOFAIL | __GFP_DIRECT_RECLAIM)) === __GFP_NOFAIL) {
    throw new RangeError('gfp has __GFP_NOFAIL but may not wait; use GFP_KERNEL | __GFP_NOFAIL');
  }
}

/** For a larger block than is needed: no effort, since the smaller one is tried next. `least`: there is no smaller one. */
export function preferredOrderGfp(gfp: number, least: boolean): number {
  const flags = (gfp & ~__GFP_NOFAIL) | __GFP_NORETRY | __GFP_NOWARN;
  return least ? flags : (flags | __GFP_NOMEMALLOC) & ~__GFP_DIRECT_RECLAIM;
}

/** For a first look at one node only, before all nodes are tried with the caller's flags. */
export function nodeOnlyGfp(gfp: number): number {
  return (gfp & __GFP_NOMEMALLOC) | __GFP_THISNODE | __GFP_NOWARN;
}

/**
 * For filling a sheaf. The kernel reclaims for a whole sheaf too; here the one object that is really wanted does,
 * since reclaim empties sheaves. Nothing of the reserve gets into a sheaf, where anybody could take it.
 */
export function sheafGfp(gfp: number): number {
  const asked = gfp & ~(__GFP_DIRECT_RECLAIM | __GFP_NOFAIL | __GFP_HIGH | __GFP_ZERO);
  return asked | __GFP_NORETRY | __GFP_NOWARN | __GFP_NOMEMALLOC;
}

/**
 * For a sheaf's own memory, which goes where its allocator works, whatever its objects are asked for. Kernel:
 * OBJCGS_CLEAR_MASK.
 */
export function sheafMemoryGfp(gfp: number): number {
  return gfp & ~(__GFP_ZERO | __GFP_THISNODE | __GFP_RECLAIMABLE | __GFP_DMA | __GFP_ACCOUNT);
}
