/** Adding arrays to a cache that exists, as seed 003 does it. */
import { isDebug, KmemCacheStruct, SLAB_KMALLOC, SLAB_NO_MERGE, SLAB_NO_SHEAVES } from '../../slab/index.js';
import { LAYERS, OutOfMemoryError } from '../../struct/index.js';
import { storeRelease } from '../../sync/index.js';
import type { Caches } from '../caches.js';

import type { KmemCache } from '../kmemCache.js';
import { checkArraySize } from '../options.js';
import { addArrays, releaseArrays } from './percpuArray.js';

/** The kernel's -EINVAL, with the reason. */
function refuse(cache: KmemCache, why: string): never {
  throw new RangeError(`cache ${cache.name} cannot get a percpu array: ${why}`);
}

/**
 * slab_mutex held. The layer `none` keeps nothing per CPU, so other CPUs may go on using the cache past the arrays:
 * their handles know nothing of them until the cache is opened again.
 */
export function setUpArrays(caches: Caches, cache: KmemCache, count: number): void {
  const { desc } = cache;
  const { m } = caches.views;
  cache.assertAlive();
  checkArraySize('count', count);
  if ((desc.flags & (SLAB_KMALLOC | SLAB_NO_SHEAVES)) !== 0) refuse(cache, "it is one of the arena's own");
  if (desc.layer === 'percpu-array') refuse(cache, 'it has one already');
  if (isDebug(desc)) refuse(cache, 'it has debug flags, and nothing may stand in front of its slabs');
  if (desc.layer !== 'none') refuse(cache, `its layer is '${desc.layer}', and it must be 'none'`);
  if ((desc.flags & SLAB_NO_MERGE) === 0) refuse(cache, 'it was made without SLAB_NO_MERGE');
  if (!addArrays(caches, desc, count)) {
    releaseArrays(caches, desc);
    throw new OutOfMemoryError(`no memory for an array of ${count} objects per CPU for cache ${cache.name}`);
  }
  // Pairs with the load in Caches.open: whoever sees the layer sees the arrays.
  storeRelease(m, desc.ptr + KmemCacheStruct.layer, LAYERS.indexOf('percpu-array'));
}
