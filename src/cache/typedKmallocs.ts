/** kmalloc of an arena with more than the normal caches, or with requested sizes: what others must not pay for. */
import { GFP_KERNEL, NUMA_NO_NODE } from '../page/index.js';
import { isSlabDebugOff } from '../slab/index.js';
import type { Caches } from './caches.js';
import { DebugKmallocs } from './debugKmalloc.js';
import { withGuards } from './guardedKmalloc.js';
import { Kmallocs } from './kmalloc.js';
import { hotKmallocs } from './kmallocPath.js';
import { kmallocFamilies } from './kmallocTypes.js';

export class TypedKmallocs extends Kmallocs {
  override alloc(size: number, gfp: number = GFP_KERNEL, node: number = NUMA_NO_NODE): number {
    return this.allocFrom(this.rows, size, gfp, node);
  }
}

/** A class of its own for arenas that need it, so that the others' `alloc` has nothing to ask. */
export function makeKmallocs(caches: Caches): Kmallocs {
  const { geometry } = caches;
  const plain = geometry.requestedSize === 0 && kmallocFamilies(geometry).length === 1;
  const debugged = !isSlabDebugOff(caches.slabDebug);
  if (plain && !debugged && geometry.guardObjects === 0 && caches.check !== 'none') {
    return new (hotKmallocs(caches.views, geometry))(caches);
  }
  const unguarded = plain ? Kmallocs : TypedKmallocs;
  const made = debugged ? DebugKmallocs : unguarded;
  return new (geometry.guardObjects === 0 ? made : withGuards(made))(caches);
}
