/** SLAB_* flags, with the kernel's names; the values are ours. */
export const SLAB_HWCACHE_ALIGN = 1 << 0;
/**
 * A freed object may be used again at once, but stays an object of this cache for whoever reads it in an RCU read
 * section: the pages of a slab are given back after a grace period. Readers must check that it is still the one they
 * looked for.
 */
export const SLAB_TYPESAFE_BY_RCU = 1 << 1;
export const SLAB_RECLAIM_ACCOUNT = 1 << 2;
export const SLAB_ACCOUNT = 1 << 3;
/** Failure to create the cache throws instead of returning: here every failure throws, so it only documents. */
export const SLAB_PANIC = 1 << 4;
export const SLAB_NO_MERGE = 1 << 5;
export const SLAB_CACHE_DMA = 1 << 6;
/** Internal: one of the kmalloc family. */
export const SLAB_KMALLOC = 1 << 16;
/** Internal: each free is put off for a grace period, kernel option SLUB_RCU_DEBUG; see rcuDebug of the cache options. */
export const SLAB_RCU_DEBUG = 1 << 18;
/** Internal: never gets sheaves (kmem_cache, kmem_cache_node). */
export const SLAB_NO_SHEAVES = 1 << 17;

/** What createCache accepts. */
export const SLAB_FLAGS_PERMITTED =
  SLAB_HWCACHE_ALIGN |
  SLAB_TYPESAFE_BY_RCU |
  SLAB_RECLAIM_ACCOUNT |
  SLAB_ACCOUNT |
  SLAB_PANIC |
  SLAB_NO_MERGE |
  SLAB_CACHE_DMA;
