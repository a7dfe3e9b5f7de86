/** Layer, flags and layout of a cache, with what the arena's slabDebug adds to what was asked for. */
import {
  calculateSizes,
  debugFlagsFor,
  getOrder,
  objectPoison,
  SLAB_ACCOUNT,
  SLAB_DEBUG_FLAGS,
  SLAB_DEBUG_METADATA,
  SLAB_GUARD,
  SLAB_KEEPS_STATE,
  type SlabDebugSpec,
} from '../../slab/index.js';
import type { Layer } from '../../struct/index.js';
import type { Caches } from '../caches.js';
import { isGuarded } from '../guard/guarded.js';
import { type CacheLayout, withArray } from '../options.js';

export interface CachePlan {
  flags: number;
  /** A debug cache has nothing in front of its slabs, whatever it asked for. */
  layer: Layer;
  layout: CacheLayout;
}

export function planKmalloc(
  { geometry, layer, slabDebug }: Caches,
  name: string,
  size: number,
  flags: number,
): CachePlan {
  const layoutWith = (layoutFlags: number): CacheLayout =>
    withArray(
      calculateSizes({
        objectSize: size,
        align: size & -size,
        origSize: geometry.requestedSize !== 0,
        objExt: (flags & SLAB_ACCOUNT) !== 0,
        flags: layoutFlags,
        cpus: geometry.cpus,
        tiny: geometry.tiny !== 0,
      }),
    );
  const plan = withDebug(slabDebug, name, flags, size, layer, layoutWith);
  return isGuarded(undefined, geometry, plan.flags, size)
    ? { ...plan, flags: plan.flags | SLAB_GUARD }
    : plan;
}

/** What is asked for as `own`, laid out by `layoutWith`. Kernel: `kmem_cache_flags`, and what `O` means in `kmem_cache_open`. */
export function withDebug(
  slabDebug: SlabDebugSpec,
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
  return {
    flags: flags | objectPoison(flags, (flags & SLAB_KEEPS_STATE) !== 0),
    layer: 'none',
    layout,
  };
}
