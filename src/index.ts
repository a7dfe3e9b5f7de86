/**
 * Granary: Linux's slab allocator with per-CPU sheaves and per-node barns, on one SharedArrayBuffer.
 * @module
 */
export { Arena, type ArenaHandle, type OnlineOptions } from './arena.js';
export type { AttachOptions } from './attach.js';
export {
  type BucketsLeakReport,
  type BucketsOptions,
  type CacheDefinition,
  type CacheOptions,
  DefinedCache,
  type GroupInfo,
  type GroupOptions,
  KMALLOC_MAX_CACHE_SIZE,
  KMALLOC_MAX_SIZE,
  KmallocSite,
  type KmallocSiteOptions,
  KmemBuckets,
  KmemCache,
  kmemCacheSetup,
  kmemCacheSetupUsercopy,
  type LeakReport,
  MemoryGroup,
  type MemoryGroups,
  type NamedCache,
  PrefilledSheaf,
  type ReclaimWorker,
  type ReclaimWorkerReport,
  type Shrinker,
  type ShrinkReport,
  STOCK_BYTES,
  type StaticCache,
  type StructLike,
  ZERO_SIZE_PTR,
} from './cache/index.js';
export {
  LAYER_STAT_ITEMS,
  STAT_ITEMS,
  type StatItem,
  type Stats,
  type ThisCpu,
  TRYLOCK_ITEMS,
  type TrylockItem,
  type TrylockStats,
} from './cpu/index.js';
export { type Finding, INVARIANTS, type Invariant } from './debug/index.js';
export { defineCache } from './define.js';
export { KMALLOC_COPIES_MAX, type KmallocOptions } from './kmallocPlan.js';
export {
  MAPLE_MAX,
  type Maple,
  type MapleCursor,
  type MapleRange,
  type MapleTree,
  type MapleTreeOptions,
  STORE_TYPES,
  type StoreType,
} from './maple/index.js';
export {
  type Area,
  type FaultStats,
  type Mm,
  type Mms,
  VM_EXEC,
  VM_GROWSDOWN,
  VM_READ,
  VM_WRITE,
} from './mm/index.js';
export {
  attributeFiles,
  type CacheInfo,
  lockStatText,
  type NodeInfo,
  PERF_LOCK_KEYS,
  type PerfLockKey,
  perfLockContention,
  perfLockReport,
  type SlabinfoOptions,
  type SlabinfoSort,
  slabinfoTool,
} from './observe/index.js';

export {
  __GFP_ACCOUNT,
  __GFP_DIRECT_RECLAIM,
  __GFP_DMA,
  __GFP_HIGH,
  __GFP_NOFAIL,
  __GFP_NOMEMALLOC,
  __GFP_NORETRY,
  __GFP_NOWARN,
  __GFP_RECLAIMABLE,
  __GFP_THISNODE,
  __GFP_ZERO,
  GFP_ATOMIC,
  GFP_KERNEL,
  GFP_NOWAIT,
  type NodeMeminfo,
  NUMA_NO_NODE,
} from './page/index.js';
export {
  type BalanceReport,
  PCPU_MIN_UNIT_SIZE,
  PERCPU_COUNTER_BYTES,
  type PercpuAllocator,
  type PercpuChunkInfo,
  type PercpuCounters,
  type PercpuInfo,
  type PercpuOptions,
} from './percpu/index.js';
export { ARENA_BYTES_MAX, type ArenaOptions, CPUS_MAX, NODES_MAX, THREADS_MAX } from './plan.js';
export { Rcu, type RcuCallback, type RcuStall, RcuStallError } from './rcu/index.js';
export type { ReapReport } from './reap.js';
export type { Meminfo, ReclaimInfo } from './reports.js';
export {
  type CallbackError,
  type CtorResult,
  type ObjectCallbacks,
  SLAB_ACCOUNT,
  SLAB_CACHE_DMA,
  SLAB_CACHE_DMA32,
  SLAB_HWCACHE_ALIGN,
  SLAB_NO_MERGE,
  SLAB_PANIC,
  SLAB_RECLAIM_ACCOUNT,
  SLAB_TYPESAFE_BY_RCU,
  SlabObjects,
} from './slab/index.js';
export {
  AttachError,
  CacheDefinitionError,
  type CheckLevel,
  ConstructorError,
  CpuError,
  GranaryError,
  type KmallocCopyRule,
  type KmallocType,
  type Layer,
  LockdepError,
  type LockdepKind,
  LockError,
  type LockPolicy,
  type MergeMode,
  OutOfMemoryError,
  SlabBugError,
  type SlabBugKind,
} from './struct/index.js';
export {
  LOCK_CLASS_NAMES,
  type LockdepInfo,
  type LockOrderEdge,
  type LockPoint,
  type LockStatRow,
  type LockStatTier,
} from './sync/index.js';
export {
  type ArrayType,
  type ArrayView,
  arrayOf,
  type Cursor,
  type FieldPlace,
  type Fields,
  type FieldTypes,
  type Scalar,
  type StructShape,
  type StructType,
  structOf,
  type TextType,
  textOf,
} from './view/index.js';
