/** kmalloc of an arena with more than the normal caches, or with requested sizes: what others must not pay for. */
import { GFP_KERNEL, NUMA_NO_NODE } from '../../page/index.js';
import { isSlabDebugOff } from '../../slab/index.js';
import type { Caches } from '../caches.js';
import { DebugKmallocs } from '../debug/debugKmalloc.js';
import { withGuards } from '../guard/guardedKmalloc.js';
import { Kmallocs } from './kmalloc.js';
import { kmallocFamilies } from './kmallocTypes.js';

class TypedKmallocs extends Kmallocs {
  override alloc(size: number, gfp: number = GFP_KERNEL, node: number = NUMA_NO_NODE): number {
    return this.allocFrom(this.rows, size, gfp, node);
  }
}

/** A class of its own for arenas that need it, so that the others' `alloc` has nothing to ask. `Hot` is theirs. */
export function makeKmallocs(caches: Caches, Hot: typeof Kmallocs): Kmallocs {
  const { geometry } = caches;
  const debugged = !isSlabDebugOff(caches.slabDebug);
  const unguarded = geometry.guardObjects === 0;
  const typed = kmallocFamilies(geometry).length > 1;
  const isHot = unguarded && !debugged && geometry.requestedSize === 0;
  if (isHot && (caches.check !== 'none' || !typed)) return new Hot(caches);
  const made = debugged ? DebugKmallocs : typed || geometry.requestedSize !== 0 ? TypedKmallocs : Kmallocs;
  return new (unguarded ? made : withGuards(made))(caches);
}
