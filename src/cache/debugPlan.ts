/** Layer, flags and layout of a cache, with what the arena's slabDebug adds to what was asked for. */
import {
  calculateSizes,
  debugFlagsFor,
  getOrder,
  objectPoison,
  SLAB_DEBUG_FLAGS,
  SLAB_DEBUG_METADATA,
  SLAB_KMALLOC,
  SLAB_NO_MERGE,
} from '../slab/index.js';
import type { Layer } from '../struct/index.js';
import type { Caches } from './caches.js';
import { type CacheLayout, type CacheOptions, layoutFor, withArray } from './options.js';

export interface CachePlan {
  flags: number;
  /** A debug cache has nothing in front of its slabs, whatever it asked for. */
  layer: Layer;
  layout: CacheLayout;
}

/** Throws as layoutFor does. */
export function planCache(caches: Caches, name: string, options: CacheOptions): CachePlan {
  const { cpus } = caches.geometry;
  layoutFor(options, cpus, caches.layer); // says what is wrong with the options before they are looked into
  const own = (options.flags ?? 0) | (options.sheafCapacity || options.arraySize ? SLAB_NO_MERGE : 0);
  const layoutWith = (flags: number): CacheLayout => layoutFor(options, cpus, caches.layer, flags);
  return withDebug(caches, name, own, options.size, options.layer ?? caches.layer, layoutWith);
}

export function planKmalloc(caches: Caches, name: string, size: number): CachePlan {
  const { cpus } = caches.geometry;
  const layoutWith = (flags: number): CacheLayout =>
    withArray(calculateSizes({ objectSize: size, align: size & -size, flags, cpus }));
  return withDebug(caches, name, SLAB_KMALLOC, size, caches.layer, layoutWith);
}

/** Kernel: `kmem_cache_flags`, and what `O` means in `kmem_cache_open`. */
function withDebug(
  { slabDebug }: Caches,
  name: string,
  own: number,
  objectSize: number,
  layer: Layer,
  layoutWith: (flags: number) => CacheLayout,
): CachePlan {
  let flags = own | debugFlagsFor(slabDebug, name, own);
  if ((flags & SLAB_DEBUG_FLAGS) === 0) return { flags, layer, layout: layoutWith(flags) };
  let layout = layoutWith(flags);
  if (slabDebug.keepOrder && getOrder(layout.size) > getOrder(objectSize)) {
    flags &= ~SLAB_DEBUG_METADATA;
    if ((flags & SLAB_DEBUG_FLAGS) === 0) return { flags, layer, layout: layoutWith(flags) };
    layout = layoutWith(flags);
  }
  return { flags: flags | objectPoison(flags, false), layer: 'none', layout };
}
