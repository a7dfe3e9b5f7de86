/** Which registry slot is whose: first the arena's own caches, then the static ones, then those made later. */
import { type KmemCachePtr, kmemCacheBytes } from '../slab/index.js';
import { alignUp, type Geometry, LINE_WORDS, WORD_BYTES } from '../struct/index.js';
import { FIRST_KMALLOC_SLOT } from './bootstrap.js';
import { KMALLOC_SIZES, kmallocFamilies } from './kmalloc/kmallocTypes.js';

/** The slot of the first static cache. */
export const firstStaticSlot = (geometry: Geometry): number =>
  FIRST_KMALLOC_SLOT + KMALLOC_SIZES.length * kmallocFamilies(geometry).length;

/** The first slot for a cache that is made later. */
export const firstDynamicSlot = (geometry: Geometry): number =>
  firstStaticSlot(geometry) + geometry.nrStatics;

/** Words from one place of a static cache to the next: no two share a line. */
export const placeWords = (nodes: number): number => alignUp(kmemCacheBytes(nodes) / WORD_BYTES, LINE_WORDS);

/** The struct of static cache number `i`, in the order in which the arena was given them. */
export function staticPlace({ staticCaches, nodes }: Geometry, i: number): KmemCachePtr {
  return (staticCaches + i * placeWords(nodes)) as KmemCachePtr;
}

/** The number of the static cache in a registry slot, or -1. */
export function placeOfSlot(geometry: Geometry, slot: number): number {
  const i = slot - firstStaticSlot(geometry);
  return i >= 0 && i < geometry.nrStatics ? i : -1;
}
