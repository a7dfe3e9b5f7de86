/** SLAB_* flags, with the kernel's names; the values are ours. */
/** Objects begin at a cache line of 64 bytes, small ones at a half or quarter of one. */
export const SLAB_HWCACHE_ALIGN = 1 << 0;
/**
 * A freed object may be used again at once, but stays an object of this cache for whoever reads it in an RCU read
 * section: the pages of a slab are given back after a grace period. Readers must check that it is still the one they
 * looked for.
 */
export const SLAB_TYPESAFE_BY_RCU = 1 << 1;
/** Its memory can be reclaimed, by a shrinker: it counts as that, and merges with its like alone. */
export const SLAB_RECLAIM_ACCOUNT = 1 << 2;
/** Objects are charged to the memory group that their thread works for; see {@link MemoryGroups}. */
export const SLAB_ACCOUNT = 1 << 3;
/** Failure to create the cache throws instead of returning: here every failure throws, so it only documents. */
export const SLAB_PANIC = 1 << 4;
/** The cache shares its slabs with no other. */
export const SLAB_NO_MERGE = 1 << 5;
/** For DMA, of which an arena has no zone: it merges with its like alone. */
export const SLAB_CACHE_DMA = 1 << 6;
/** The same below 4 GiB. */
export const SLAB_CACHE_DMA32 = 1 << 7;
/** Debugging, `F` of slab_debug: checks at each allocation and free. See docs/slab-debug.md. */
export const SLAB_CONSISTENCY_CHECKS = 1 << 8;
/** `Z`: what lies around an object is known, and looked at. */
export const SLAB_RED_ZONE = 1 << 9;
/** `P`: free objects are filled with a pattern, and looked at. */
export const SLAB_POISON = 1 << 10;
/** `U`: who allocated and freed an object is kept. */
export const SLAB_STORE_USER = 1 << 11;
/** `T`: each allocation and free is reported. */
export const SLAB_TRACE = 1 << 12;
/** `A`: allocations fail as `arena.failslab` says. */
export const SLAB_FAILSLAB = 1 << 13;
/** A checker's own cache: keeps no tracks but where slabDebug names it, and does not merge. */
export const SLAB_NOLEAKTRACE = 1 << 14;
/** The arena's slabDebug option passes the cache by. */
export const SLAB_NO_USER_FLAGS = 1 << 15;
/** Internal: one of the kmalloc family. */
export const SLAB_KMALLOC = 1 << 16;
/** Internal: objects are constructed when their slab is made; see slabCallbacks.ts. */
export const SLAB_CTOR = 1 << 19;
/** Internal: objects are destructed when their slab goes. */
export const SLAB_DTOR = 1 << 20;
/** Internal: objects have a state that lasts while they are free, and that nobody may poison, zero or link through. */
export const SLAB_KEEPS_STATE = SLAB_CTOR | SLAB_DTOR;
/** Internal: each free is put off for a grace period, kernel option SLUB_RCU_DEBUG; see rcuDebug of the cache options. */
export const SLAB_RCU_DEBUG = 1 << 18;
/** Internal: never gets sheaves (kmem_cache, kmem_cache_node). */
export const SLAB_NO_SHEAVES = 1 << 17;
/** Internal, the kernel's __OBJECT_POISON: a free object is poisoned, which constructors and SLAB_TYPESAFE_BY_RCU forbid. */
export const SLAB_OBJECT_POISON = 1 << 23;

/** A cache with one of these is worked on object by object under list_lock; it has no sheaves. */
export const SLAB_DEBUG_FLAGS =
  SLAB_CONSISTENCY_CHECKS | SLAB_RED_ZONE | SLAB_POISON | SLAB_STORE_USER | SLAB_TRACE;
/** What `slabDebug: true`, or a block without letters, turns on. Kernel: `DEBUG_DEFAULT_FLAGS`. */
export const SLAB_DEBUG_DEFAULT = SLAB_CONSISTENCY_CHECKS | SLAB_RED_ZONE | SLAB_POISON | SLAB_STORE_USER;
/** What `O` drops where it would cost a higher order. Kernel: `DEBUG_METADATA_FLAGS`. */
export const SLAB_DEBUG_METADATA = SLAB_RED_ZONE | SLAB_POISON | SLAB_STORE_USER;

/** Internal: a word in each slot says which memory group its object is charged to. */
export const SLAB_OBJ_EXT_IN_OBJ = 1 << 22;

/** Internal: what is freed waits in a quarantine; see quarantine.ts of the cache layer. */
export const SLAB_QUARANTINE = 1 << 26;

/** Internal: some of its objects are guarded; see guards.ts of the cache layer. */
export const SLAB_GUARD = 1 << 27;

/** With one of these a cache has its slabs to itself, always. */
export const SLAB_NEVER_MERGE =
  SLAB_CONSISTENCY_CHECKS |
  SLAB_RED_ZONE |
  SLAB_POISON |
  SLAB_STORE_USER |
  SLAB_TRACE |
  SLAB_TYPESAFE_BY_RCU |
  SLAB_NOLEAKTRACE |
  SLAB_FAILSLAB |
  SLAB_NO_MERGE |
  SLAB_OBJ_EXT_IN_OBJ |
  SLAB_KMALLOC;

/** In these two caches must agree. */
export const SLAB_MERGE_SAME = SLAB_RECLAIM_ACCOUNT | SLAB_CACHE_DMA | SLAB_CACHE_DMA32 | SLAB_ACCOUNT;

/** What createCache accepts. */
export const SLAB_FLAGS_PERMITTED =
  SLAB_HWCACHE_ALIGN |
  SLAB_TYPESAFE_BY_RCU |
  SLAB_RECLAIM_ACCOUNT |
  SLAB_ACCOUNT |
  SLAB_PANIC |
  SLAB_NO_MERGE |
  SLAB_CACHE_DMA |
  SLAB_DEBUG_FLAGS |
  SLAB_FAILSLAB |
  SLAB_NOLEAKTRACE |
  SLAB_NO_USER_FLAGS |
  SLAB_CACHE_DMA32;
