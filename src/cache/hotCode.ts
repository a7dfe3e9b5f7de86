/**
 * Which code a cache runs: everything that V8 is to compile once for an arena and a thread (see fastPath.ts), and the
 * choice among it by a cache's layer and flags. What few caches want is a class around the class, so that the others
 * pay nothing for it.
 */
import type { Views } from '../cpu/index.js';
import {
  type CacheDesc,
  type FreelistLoops,
  freelistLoops,
  isDebug,
  SLAB_ACCOUNT,
  SLAB_FAILSLAB,
  SLAB_GUARD,
  SLAB_KMALLOC,
  SLAB_QUARANTINE,
  SLAB_RCU_DEBUG,
  type SlabAllocatorClass,
  slabAllocatorClass,
} from '../slab/index.js';
import {
  CHECK_LEVELS,
  FREELIST_HARDENED,
  type Geometry,
  LAYERS,
  type Layer,
  LOCK_POLICIES,
} from '../struct/index.js';
import { BulkKmemCache } from './bulk.js';
import { withFailslab, withInit } from './cacheClass.js';
import { DebugKmemCache } from './debug/debugCache.js';
import { withRcuDebug } from './debug/rcuDebug.js';
import { turnClass } from './fastPath.js';
import { withAccounting, withForcedCharge } from './groups/accounted.js';
import { withGuard, withSampling } from './guard/guarded.js';
import { withQuarantine } from './guard/quarantined.js';
import { Kmallocs } from './kmalloc/kmalloc.js';
import { hotKmallocs } from './kmalloc/kmallocPath.js';
import { trackingClass } from './kmalloc/requestedSize.js';
import type { KmemCacheClass } from './kmemCache.js';
import { CpuSlabKmemCache } from './layers/cpuSlabCache.js';
import { hardenedCpuSlabClass } from './layers/cpuSlabHardened.js';
import { turnCpuSlabClass } from './layers/cpuSlabPath.js';
import { directClass } from './layers/directCache.js';
import { turnArrayClass } from './layers/fastPathArray.js';
import { ArrayKmemCache } from './layers/percpuArray.js';
import { makePrefilledSheaf, type PrefilledSheafClass } from './prefilledSheaf.js';

/** What V8 compiles for one arena on one thread: its constants are that arena's. */
export interface HotCode {
  readonly classes: Readonly<Record<Layer, KmemCacheClass>>;
  /** The same for caches with rcuDebug. */
  readonly rcuDebugClasses: Readonly<Record<Layer, KmemCacheClass>>;
  /** The classes of debug caches, which have no layer. */
  readonly debug: Readonly<Record<'plain' | 'rcuDebug', KmemCacheClass>>;
  /** The class of kmalloc caches that keep requested sizes. */
  readonly tracking: KmemCacheClass;
  /** Any of these for caches with SLAB_ACCOUNT, for the thread that has this record. */
  readonly accounted: (base: KmemCacheClass, record: number) => KmemCacheClass;
  readonly prefilledSheaf: PrefilledSheafClass;
  readonly accountedSheaf: PrefilledSheafClass;
  readonly slabs: SlabAllocatorClass;
  /** kmalloc of arenas that have the normal caches alone. */
  readonly kmallocs: typeof Kmallocs;
  readonly freelists: FreelistLoops;
}

/** Call once per thread and arena: a second closure of the same function and V8 folds no constants any more. */
export function makeHotCode(views: Views, geometry: Geometry): HotCode {
  const policy = LOCK_POLICIES[geometry.lockPolicy]!;
  const check = CHECK_LEVELS[geometry.check]!;
  const turn = policy === 'turn';
  const { nodes, init } = geometry;
  const sheaves = withInit(turn ? turnClass(views, nodes, check) : BulkKmemCache, init);
  const cpuSlab = withInit(cpuSlabClass(views, geometry), init);
  const arrays = withInit(turn ? turnArrayClass(views, nodes, check) : ArrayKmemCache, init);
  const none = withInit(directClass(), init);
  const classes = { sheaves, 'percpu-array': arrays, 'cpu-slab': cpuSlab, none };
  const prefilledSheaf = makePrefilledSheaf(views, check !== 'none', init !== 0);
  const tracking = trackingClass(classes[LAYERS[geometry.layer]!]);
  return {
    classes,
    rcuDebugClasses: {
      sheaves: withRcuDebug(sheaves),
      'percpu-array': withRcuDebug(arrays),
      'cpu-slab': withRcuDebug(cpuSlab),
      none: withRcuDebug(classes.none),
    },
    debug: {
      plain: DebugKmemCache,
      rcuDebug: withRcuDebug(DebugKmemCache),
    },
    tracking,
    accounted: accountedClasses(views),
    prefilledSheaf,
    accountedSheaf: withForcedCharge(prefilledSheaf),
    slabs: slabAllocatorClass(geometry),
    kmallocs: check === 'none' ? Kmallocs : hotKmallocs(views, geometry),
    freelists: freelistLoops(views.m, geometry),
  };
}

/**
 * Made when the first cache needs it: an arena's accounted caches are mostly of one layer, and of a class that is made once
 * V8 folds the constants.
 */
function accountedClasses({ m }: Views): HotCode['accounted'] {
  const made = new Map<KmemCacheClass, { record: number; accounted: KmemCacheClass }>();
  return (base, record) => {
    let known = made.get(base);
    if (known?.record !== record) {
      known = { record, accounted: withAccounting(base, m, record) };
      made.set(base, known);
    }
    return known.accounted;
  };
}

function cpuSlabClass(views: Views, { lockPolicy, check, hardening }: Geometry): KmemCacheClass {
  const turn = LOCK_POLICIES[lockPolicy] === 'turn';
  const level = CHECK_LEVELS[check]!;
  if ((hardening & FREELIST_HARDENED) !== 0) return hardenedCpuSlabClass(views, turn, level);
  return turn ? turnCpuSlabClass(views, level) : CpuSlabKmemCache;
}

/** The class of a cache's handles on the thread that has this record. */
export function classOf(code: HotCode, s: CacheDesc, record: number): KmemCacheClass {
  const plain = isDebug(s) ? debugClassOf(code, s) : layeredClassOf(code, s);
  const paid = (s.flags & SLAB_ACCOUNT) !== 0 ? code.accounted(plain, record) : plain;
  const late = (s.flags & SLAB_QUARANTINE) === 0 ? paid : withQuarantine(paid);
  const made = (s.flags & SLAB_GUARD) === 0 ? late : guardedClassOf(late, s);
  return (s.flags & SLAB_FAILSLAB) === 0 ? made : withFailslab(made);
}

/** In a cache of kmalloc, kmalloc says which objects are guarded. */
function guardedClassOf(base: KmemCacheClass, { flags }: CacheDesc): KmemCacheClass {
  return (flags & SLAB_KMALLOC) !== 0 ? withGuard(base) : withSampling(base);
}

function debugClassOf({ debug }: HotCode, { flags }: CacheDesc): KmemCacheClass {
  return (flags & SLAB_RCU_DEBUG) !== 0 ? debug.rcuDebug : debug.plain;
}

function layeredClassOf(code: HotCode, { layer, flags, origSize }: CacheDesc): KmemCacheClass {
  if (origSize !== 0) return code.tracking;
  return ((flags & SLAB_RCU_DEBUG) !== 0 ? code.rcuDebugClasses : code.classes)[layer];
}
