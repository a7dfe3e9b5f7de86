/** The class of slabs for an arena: its options decide once, so that no path asks for them. */
import { FREELIST_HARDENED, FREELIST_RANDOM, type Geometry, type Words } from '../struct/index.js';
import { type FreelistLoops, makeFreelistLoops } from './freelist.js';
import { makeHardenedLoops } from './hardenedFreelist.js';
import { type SlabAllocatorClass, withHardenedFreelist } from './hardenedSlabs.js';
import { withRandomFreelist } from './randomSlabs.js';
import { SlabAllocator } from './shrink.js';
import { TinySlabAllocator } from './tiny.js';

export function slabAllocatorClass({ tiny, hardening }: Geometry): SlabAllocatorClass {
  const plain = tiny === 0 ? SlabAllocator : TinySlabAllocator;
  const hardened = (hardening & FREELIST_HARDENED) === 0 ? plain : withHardenedFreelist(plain);
  return (hardening & FREELIST_RANDOM) === 0 ? hardened : withRandomFreelist(hardened);
}

/** The loops that go with it. Call once per thread and arena. */
export function freelistLoops(m: Words, { memmap, hardening }: Geometry): FreelistLoops {
  return (hardening & FREELIST_HARDENED) === 0 ? makeFreelistLoops(m, memmap) : makeHardenedLoops(m, memmap);
}
