/**
 * Granary: Linux's slab allocator with per-CPU sheaves and per-node barns, on one SharedArrayBuffer.
 * @module
 */
export { Arena, type ArenaHandle, type OnlineOptions } from './arena.js';
export {
  type CacheDefinition,
  type CacheOptions,
  DefinedCache,
  type GroupInfo,
  type GroupOptions,
  KMALLOC_MAX_CACHE_SIZE,
  KMALLOC_MAX_SIZE,
  KmemCache,
  type LeakReport,
  MemoryGroup,
  type MemoryGroups,
  PrefilledSheaf,
  type ReclaimWorker,
  type ReclaimWorkerReport,
  type Shrinker,
  type ShrinkReport,
  STOCK_BYTES,
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
export type { CacheInfo } from './observe/index.js';
export {
  __GFP_DIRECT_RECLAIM,
  __GFP_HIGH,
  __GFP_NOFAIL,
  __GFP_NOMEMALLOC,
  __GFP_NORETRY,
  __GFP_NOWARN,
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
  type Layer,
  LockdepError,
  type LockdepKind,
  LockError,
  type LockPolicy,
  OutOfMemoryError,
  SlabBugError,
  type SlabBugKind,
} from './struct/index.js';
export {
  LOCK_CLASS_NAMES,
  type LockdepInfo,
  type LockOrderEdge,
  type LockStatRow,
  type LockStatTier,
} from './sync/index.js';
