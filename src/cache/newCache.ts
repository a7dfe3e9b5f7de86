/** What a cache that is about to be made will be: its options, checked and worked out. */
import {
  type KmemCachePtr,
  SLAB_ACCOUNT,
  SLAB_GUARD,
  SLAB_NO_MERGE,
  SLAB_OBJ_EXT_IN_OBJ,
  SLAB_QUARANTINE,
  SLAB_RCU_DEBUG,
  type SlabDebugSpec,
} from '../slab/index.js';
import type { Layer } from '../struct/index.js';
import { withDebug } from './debug/debugPlan.js';
import { type GuardRule, isGuarded } from './guard/guarded.js';
import { type QuarantineRule, quarantineObjects } from './guard/quarantine.js';
import { type CacheLayout, type CacheOptions, layoutFor } from './options.js';

/** What is written into a new kmem_cache. */
export interface NewCache {
  readonly name: string;
  readonly objectSize: number;
  readonly flags: number;
  readonly layer: Layer;
  readonly layout: CacheLayout;
  readonly useroffset?: number;
  readonly usersize?: number;
  /** The module with its constructor and destructor; '' when it has none. */
  readonly definedIn?: string;
  /** 1 by default: its own name. */
  readonly refcount?: number;
  /** The cache whose storage it uses; itself by default. */
  readonly primary?: KmemCachePtr;
  readonly hidden?: boolean;
  /** Freed objects that wait on each CPU; 0 by default. */
  readonly quarantine?: number;
  /** Thread slot + 1 of the module that it belongs to. */
  readonly module?: number;
  /** Where it is to lie, instead of in an object of the cache kmem_cache. Never freed. Kernel: seed 000's argument. */
  readonly preallocated?: KmemCachePtr;
}

/** A name, options, and what goes with functions that a definition has. */
export interface Wanted {
  readonly name: string;
  readonly options: CacheOptions;
  readonly callbackFlags: number;
  readonly definedIn: string;
}

/** Throws RangeError or TypeError that names the option. `byDefault` is the layer of caches that name none. `slabDebug` adds flags. */
export function newCache(
  { name, options, callbackFlags, definedIn }: Wanted,
  arena: QuarantineRule & GuardRule & { readonly cpus: number; readonly tiny: number },
  byDefault: Layer,
  slabDebug: SlabDebugSpec,
) {
  const layoutWith = (flags?: number) =>
    layoutFor(options, arena.cpus, byDefault, callbackFlags !== 0, arena.tiny !== 0, flags);
  layoutWith(); // says what is wrong with the options before they are looked into
  const { size, layer = byDefault, useroffset = 0, usersize = 0 } = options;
  // Asking for room of one's own in front of the slabs is asking not to merge.
  const own =
    (options.flags ?? 0) |
    callbackFlags |
    (options.sheafCapacity || options.arraySize ? SLAB_NO_MERGE : 0) |
    // Behind the object, where another's of another size would lie elsewhere.
    ((options.flags ?? 0) & SLAB_ACCOUNT ? SLAB_OBJ_EXT_IN_OBJ : 0) |
    (options.rcuDebug ? SLAB_RCU_DEBUG : 0);
  const plan = withDebug(slabDebug, name, own, size, layer, layoutWith);
  const quarantine = quarantineObjects(options.quarantine, arena, plan.flags, plan.layout.size);
  const guard = isGuarded(options.guard, arena, plan.flags, size) ? SLAB_GUARD | SLAB_NO_MERGE : 0;
  const flags = plan.flags | guard | (quarantine > 0 ? SLAB_QUARANTINE | SLAB_NO_MERGE : 0);
  return {
    name,
    objectSize: size,
    ...plan,
    flags,
    quarantine,
    useroffset,
    usersize,
    definedIn,
  } satisfies NewCache;
}
