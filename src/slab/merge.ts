/**
 * Which caches may share their slabs, as Linux decides it. Nothing in this file touches memory: the arena and the
 * oracle ask the same functions.
 *
 *  M1  A cache takes part unless something about its objects or its debugging is its own: a constructor, a usercopy
 *      range, SLAB_TYPESAFE_BY_RCU, a debug flag, or the wish not to (asking for a sheaf capacity is such a wish).
 *  M2  A live cache serves another whose slot, rounded up as its own was, is its own or less than a word smaller, whose
 *      alignment divides its stride, and whose memory is accounted to the same purse: same zone, same reclaim class.
 *  M3  Of several the oldest serves.
 */
import type { Layer } from '../struct/index.js';
import {
  SLAB_ACCOUNT,
  SLAB_CACHE_DMA,
  SLAB_CACHE_DMA32,
  SLAB_CONSISTENCY_CHECKS,
  SLAB_HWCACHE_ALIGN,
  SLAB_MERGE_SAME,
  SLAB_NEVER_MERGE,
  SLAB_RECLAIM_ACCOUNT,
} from './flags.js';
import { calculateAlignment } from './layout.js';

const WORD_SIZE = 8;

/** Refcount of caches that exist before merging does: nothing merges into them. */
export const BOOT_REFCOUNT = -1;

/** What merging needs to know of a cache that is about to be made. */
export interface MergeWish {
  /** The size that was asked for. */
  readonly objectSize: number;
  /** The alignment that was asked for; 0 for none. */
  readonly align: number;
  readonly flags: number;
  readonly hasCtor: boolean;
  readonly usersize: number;
  /** What stands in front of its slabs: not the kernel's condition, which has one layer for all. */
  readonly layer: Layer;
}

/** And of one that lives. */
export interface MergeCandidate {
  /** Stride. */
  readonly size: number;
  readonly flags: number;
  readonly hasCtor: boolean;
  readonly usersize: number;
  readonly layer: Layer;
  readonly refcount: number;
}

type Bars = Pick<MergeWish, 'flags' | 'hasCtor' | 'usersize'>;

/** M1. `never` are the flags that bar; kernels before 7.0 let caches with consistency checks merge. */
export function slabUnmergeable(s: Bars & { refcount?: number }, never: number = SLAB_NEVER_MERGE): boolean {
  return (s.flags & never) !== 0 || s.hasCtor || s.usersize !== 0 || (s.refcount ?? 0) < 0;
}

/**
 * The cache that serves a new one, or undefined: it must be made. `caches` from the oldest to the newest. Kernel:
 * `find_mergeable`.
 */
export function findMergeable<S extends MergeCandidate>(
  caches: Iterable<S>,
  wish: MergeWish,
  never: number = SLAB_NEVER_MERGE,
): S | undefined {
  if (slabUnmergeable(wish, never)) return undefined;
  const words = Math.ceil(wish.objectSize / WORD_SIZE) * WORD_SIZE;
  const align = calculateAlignment(words, wish.align, (wish.flags & SLAB_HWCACHE_ALIGN) !== 0);
  const size = Math.ceil(words / align) * align;
  for (const s of caches) {
    if (slabUnmergeable(s, never)) continue;
    if (size > s.size || s.size - size >= WORD_SIZE) continue;
    if (((wish.flags ^ s.flags) & SLAB_MERGE_SAME) !== 0) continue;
    if (s.size % align !== 0) continue;
    if (s.layer === wish.layer) return s;
  }
  return undefined;
}

/** In the order in which the kernel writes them. */
export const ID_LETTERS: ReadonlyArray<readonly [letter: string, flag: number]> = [
  ['d', SLAB_CACHE_DMA],
  ['D', SLAB_CACHE_DMA32],
  ['a', SLAB_RECLAIM_ACCOUNT],
  ['F', SLAB_CONSISTENCY_CHECKS],
  ['A', SLAB_ACCOUNT],
];

/** The name that a cache which may merge has in sysfs, where its own are links: `:aA-0000064`. Kernel: `create_unique_id`. */
export function createUniqueId(flags: number, size: number): string {
  const letters = ID_LETTERS.filter(([, flag]) => (flags & flag) !== 0).map(([letter]) => letter);
  const prefix = letters.length > 0 ? `${letters.join('')}-` : '';
  return `:${prefix}${String(size).padStart(7, '0')}`;
}
