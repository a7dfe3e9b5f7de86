export { bootCacheWords, bootstrap } from './bootstrap.js';
export { Caches } from './caches.js';
export type { CacheContext } from './context.js';
export type { CacheDebug, DebugServices, TraceGroup, TrackInfo } from './debug/cacheDebug.js';
export type { Failslab, FailslabOptions } from './debug/failslab.js';
export { type CacheDefinition, DefinedCache, defineCache, definitionOf } from './define.js';
export { barnFigures } from './drain.js';
export { type GroupInfo, type GroupOptions, MemoryGroup, MemoryGroups } from './groups/groups.js';
export { type GroupPtr, STOCK_BYTES } from './groups/memoryGroup.js';
export type { GuardBug, GuardTrack } from './guard/guardBug.js';
export { GUARD_OBJECTS_MAX, type GuardedPlace, guardedPlaceAt, guardWords } from './guard/guardPool.js';
export { checkQuarantine } from './guard/quarantine.js';
export { CacheHandles, joinHandle, splitHandle } from './handles.js';
export { type HotCode, makeHotCode } from './hotCode.js';
export { KMALLOC_MAX_CACHE_SIZE, KMALLOC_MAX_SIZE, type Kmallocs, ZERO_SIZE_PTR } from './kmalloc/kmalloc.js';
export { callerSite, familyOfSite, KmallocSite, type KmallocSiteOptions } from './kmalloc/kmallocSite.js';
export { KMALLOC_SIZES } from './kmalloc/kmallocTypes.js';
export { type BucketsOptions, createBuckets, KmemBuckets, openBuckets } from './kmalloc/kmemBuckets.js';
export { KmemCache } from './kmemCache.js';
export { namesOf, sysfsId } from './merge/merging.js';
export { forEachSlab, freelistIndices, slabCapacity, slabObjects } from './objects.js';
export type { CacheOptions } from './options.js';
export { PrefilledSheaf } from './prefilledSheaf.js';
export { ReclaimWorker, type ReclaimWorkerReport } from './reclaim/reclaimWorker.js';
export { type Shrinker, Shrinkers } from './reclaim/shrinkers.js';
export {
  countCaches,
  liveSlots,
  MAX_CACHES,
  RESERVE_MARK,
  Registry,
  RegistrySlot,
  registrySlot,
  registryWords,
  slabMutexDied,
} from './registry.js';
export type { BucketsLeakReport, LeakReport, ShrinkReport } from './reports.js';
export {
  kmemCacheSetup,
  kmemCacheSetupUsercopy,
  type NamedCache,
  type StaticCache,
  type StructLike,
} from './setup.js';
export {
  checkPlaces,
  checkStaticCaches,
  makeStaticCaches,
  staticCacheWords,
} from './staticCaches.js';
