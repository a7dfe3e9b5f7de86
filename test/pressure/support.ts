/** Filling arenas to the last page, and counting what is free in them afterwards. */
import type { KmemCache } from '#src/cache/index.js';
import { type Arena, GFP_KERNEL } from '#src/index.js';
import { barnAt, partialList, sheavesOf } from '../cache/support/arena.js';

/** Takes every block of 2^order pages that is to be had with these flags. */
export function takePages(arena: Arena, gfp = GFP_KERNEL, order = 0, node = -1): number[] {
  const taken: number[] = [];
  for (let p = arena.allocPages(order, gfp, node); p !== 0; p = arena.allocPages(order, gfp, node))
    taken.push(p);
  return taken;
}

/** Takes every object that is to be had. */
export function takeObjects(cache: KmemCache, gfp = GFP_KERNEL): number[] {
  const taken: number[] = [];
  for (let p = cache.alloc(gfp); p !== 0; p = cache.alloc(gfp)) taken.push(p);
  return taken;
}

/** Free objects of a cache by where they are; turns have ended. */
export function census(arena: Arena, cache: KmemCache): { slabs: number; barns: number; cpus: number } {
  const found = { slabs: 0, barns: 0, cpus: 0 };
  for (let node = 0; node < arena.geometry.nodes; node++) {
    for (const slab of partialList(arena, cache, node)) found.slabs += slab.objects - slab.inuse;
    if (cache.sheafCapacity > 0) for (const { size } of barnAt(arena, cache, node).full) found.barns += size;
  }
  if (cache.sheafCapacity === 0) return found;
  for (let cpu = 0; cpu < arena.geometry.cpus; cpu++) {
    const { main, spare } = sheavesOf(arena, cache, cpu);
    found.cpus += main.size + (spare?.size ?? 0);
  }
  return found;
}

export const NOTHING_FREE = { slabs: 0, barns: 0, cpus: 0 };
