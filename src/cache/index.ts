export { bootCacheWords, bootstrap } from './bootstrap.js';
export { Caches } from './caches.js';
export type { CacheContext } from './context.js';
export { type CacheDefinition, DefinedCache, defineCache, definitionOf } from './define.js';
export { barnFigures } from './drain.js';
export { type HotCode, makeHotCode } from './fastPath.js';
export { type GroupInfo, type GroupOptions, MemoryGroup, MemoryGroups } from './groups.js';
export {
  KMALLOC_MAX_CACHE_SIZE,
  KMALLOC_MAX_SIZE,
  KMALLOC_SIZES,
  type Kmallocs,
  ZERO_SIZE_PTR,
} from './kmalloc.js';
export { KmemCache } from './kmemCache.js';
export { STOCK_BYTES } from './memoryGroup.js';
export { allocatedObjects, forEachSlab, freelistIndices, slabCapacity, slabObjects } from './objects.js';
export type { CacheOptions } from './options.js';
export { PrefilledSheaf } from './prefilledSheaf.js';
export { ReclaimWorker, type ReclaimWorkerReport } from './reclaimWorker.js';
export {
  findByName,
  liveSlots,
  MAX_CACHES,
  Registry,
  RegistrySlot,
  registrySlot,
  registryWords,
} from './registry.js';
export type { LeakReport, ShrinkReport } from './reports.js';
export { type Shrinker, Shrinkers } from './shrinkers.js';
