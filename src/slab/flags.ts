/** SLAB_* flags, with the kernel's names; the values are ours. */
export const SLAB_HWCACHE_ALIGN = 1 << 0;
export const SLAB_TYPESAFE_BY_RCU = 1 << 1;
export const SLAB_RECLAIM_ACCOUNT = 1 << 2;
export const SLAB_ACCOUNT = 1 << 3;
/** Failure to create the cache throws instead of returning: here every failure throws, so it only documents. */
export const SLAB_PANIC = 1 << 4;
export const SLAB_NO_MERGE = 1 << 5;
export const SLAB_CACHE_DMA = 1 << 6;
/** Debugging: `F`, `Z`, `P`, `U`, `T` and `A` of slab_debug; see docs/slab-debug.md. */
export const SLAB_CONSISTENCY_CHECKS = 1 << 8;
export const SLAB_RED_ZONE = 1 << 9;
export const SLAB_POISON = 1 << 10;
export const SLAB_STORE_USER = 1 << 11;
export const SLAB_TRACE = 1 << 12;
export const SLAB_FAILSLAB = 1 << 13;
/** The arena's slabDebug option passes the cache by. */
export const SLAB_NO_USER_FLAGS = 1 << 15;
/** Internal: one of the kmalloc family. */
export const SLAB_KMALLOC = 1 << 16;
/** Internal: never gets sheaves (kmem_cache, kmem_cache_node). */
export const SLAB_NO_SHEAVES = 1 << 17;
/** Internal, the kernel's __OBJECT_POISON: a free object is poisoned, which constructors and SLAB_TYPESAFE_BY_RCU forbid. */
export const SLAB_OBJECT_POISON = 1 << 22;

/** A cache with one of these is worked on object by object under list_lock; it has no sheaves. */
export const SLAB_DEBUG_FLAGS =
  SLAB_CONSISTENCY_CHECKS | SLAB_RED_ZONE | SLAB_POISON | SLAB_STORE_USER | SLAB_TRACE;
/** What `slabDebug: true`, or a block without letters, turns on. Kernel: `DEBUG_DEFAULT_FLAGS`. */
export const SLAB_DEBUG_DEFAULT = SLAB_CONSISTENCY_CHECKS | SLAB_RED_ZONE | SLAB_POISON | SLAB_STORE_USER;
/** What `O` drops where it would cost a higher order. Kernel: `DEBUG_METADATA_FLAGS`. */
export const SLAB_DEBUG_METADATA = SLAB_RED_ZONE | SLAB_POISON | SLAB_STORE_USER;

/** What createCache accepts. */
export const SLAB_FLAGS_PERMITTED =
  SLAB_HWCACHE_ALIGN |
  SLAB_RECLAIM_ACCOUNT |
  SLAB_ACCOUNT |
  SLAB_PANIC |
  SLAB_NO_MERGE |
  SLAB_CACHE_DMA |
  SLAB_DEBUG_FLAGS |
  SLAB_FAILSLAB |
  SLAB_NO_USER_FLAGS;
