/** kmalloc of an arena with more than the normal caches, or with requested sizes: what others must not pay for. */
import { GFP_KERNEL, NUMA_NO_NODE } from '../page/index.js';
import { isSlabDebugOff } from '../slab/index.js';
import type { Caches } from './caches.js';
import { DebugKmallocs } from './debugKmalloc.js';
import { withGuards } from './guardedKmalloc.js';
import { Kmallocs } from './kmalloc.js';
import { kmallocFamilies } from './kmallocTypes.js';

export class TypedKmallocs extends Kmallocs {
  override alloc(size: number, gfp: number = GFP_KERNEL, node: number = NUMA_NO_NODE): number {
    return this.allocFrom(this.rows, size, gfp, node);
  }
}

/** A class of its own for arenas that need it, so that the others' `alloc` has nothing to ask. `Plain` is theirs. */
export function makeKmallocs(caches: Caches, Plain: typeof Kmallocs): Kmallocs {
  const { geometry } = caches;
  const debugged = !isSlabDebugOff(caches.slabDebug);
  const isPlain = geometry.requestedSize === 0 && kmallocFamilies(geometry).length === 1;
  if (geometry.guardObjects === 0 && !debugged) return new (isPlain ? Plain : TypedKmallocs)(caches);
  const made = debugged ? DebugKmallocs : isPlain ? Kmallocs : TypedKmallocs;
  return new (geometry.guardObjects === 0 ? made : withGuards(made))(caches);
}
