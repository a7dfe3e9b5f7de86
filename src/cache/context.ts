/** What a cache handle needs of its thread; the class behind it is in caches.ts. */
import type { ThisCpu, Views } from '../cpu/index.js';
import type { SheafSource } from '../sheaf/index.js';
import type { CacheDesc, SlabAllocator } from '../slab/index.js';
import type { CheckLevel, Geometry, LockPolicy } from '../struct/index.js';
import type { DebugServices } from './debug/cacheDebug.js';
import type { Failslab } from './debug/failslab.js';
import type { Accounting } from './groups/memoryGroup.js';
import type { Guards } from './guard/guards.js';
import type { Kmallocs } from './kmalloc/kmalloc.js';
import type { KmemCache } from './kmemCache.js';
import type { PrefilledSheafClass } from './prefilledSheaf.js';
import type { KfreeRcu } from './rcu/kfreeRcu.js';
import type { LeakReport, ShrinkReport } from './reports.js';

export interface CacheContext extends SheafSource {
  readonly cpu: ThisCpu;
  readonly slabs: SlabAllocator;
  readonly kfreeRcu: KfreeRcu;
  readonly kmallocs: Kmallocs;
  readonly guards: Guards;
  readonly geometry: Geometry;
  readonly views: Views;
  readonly policy: LockPolicy;
  readonly check: CheckLevel;
  /** The class of what prefill returns. */
  readonly prefilledSheaf: PrefilledSheafClass;
  /** What debugging does beyond checking. */
  readonly debug: DebugServices;
  readonly failslab: Failslab;
  /** The same for caches with SLAB_ACCOUNT. */
  readonly accountedSheaf: PrefilledSheafClass;
  readonly accounting: Accounting;
  /** What the cache in a registry slot is. */
  describe(slot: number): CacheDesc;
  setupPercpuArray(cache: KmemCache, count: number): KmemCache;
  shrink(cache: KmemCache): ShrinkReport;
  destroy(cache: KmemCache): LeakReport;
}
