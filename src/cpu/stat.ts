import type { Layer } from '../struct/index.js';

/**
 * The 26 counters of `enum stat_item`, by the kernel's names and in its order. Each thread counts for itself; a
 * reader adds. They are doubles, exact to 2^53, where the kernel's wrap at 2^32.
 */
export const STAT_ITEMS = [
  'ALLOC_FASTPATH',
  'ALLOC_SLOWPATH',
  'FREE_RCU_SHEAF',
  'FREE_RCU_SHEAF_FAIL',
  'FREE_FASTPATH',
  'FREE_SLOWPATH',
  'FREE_ADD_PARTIAL',
  'FREE_REMOVE_PARTIAL',
  'ALLOC_SLAB',
  'ALLOC_NODE_MISMATCH',
  'FREE_SLAB',
  'ORDER_FALLBACK',
  'CMPXCHG_DOUBLE_FAIL',
  'SHEAF_FLUSH',
  'SHEAF_REFILL',
  'SHEAF_ALLOC',
  'SHEAF_FREE',
  'BARN_GET',
  'BARN_GET_FAIL',
  'BARN_PUT',
  'BARN_PUT_FAIL',
  'SHEAF_PREFILL_FAST',
  'SHEAF_PREFILL_SLOW',
  'SHEAF_PREFILL_OVERSIZE',
  'SHEAF_RETURN_FAST',
  'SHEAF_RETURN_SLOW',
] as const;

/**
 * What came of a CPU's sheaves being locked by somebody else: not in the kernel's list, and so behind it and under names
 * of our own. `trylockFailures` are attempts; the bypasses are objects that for that reason came straight from a slab or
 * went straight to one.
 */
export const TRYLOCK_ITEMS = ['trylockFailures', 'allocBypasses', 'freeBypasses'] as const;

/** One of the 26 counters of a cache, by its name in the kernel. */
export type StatItem = (typeof STAT_ITEMS)[number];
/** All 26. */
export type Stats = Record<StatItem, number>;
/** What may come of sheaves that another thread has locked. */
export type TrylockItem = (typeof TRYLOCK_ITEMS)[number];
/** How often each came. */
export type TrylockStats = Record<TrylockItem, number>;

/** Index of each item in a thread's array. */
export const Stat = Object.freeze(
  Object.fromEntries(STAT_ITEMS.map((item, index) => [item, index])),
) as Readonly<Record<StatItem, number>>;

/** The same for what is not in the kernel's list. */
export const TrylockStat = Object.freeze(
  Object.fromEntries(TRYLOCK_ITEMS.map((item, index) => [item, STAT_ITEMS.length + index])),
) as Readonly<Record<TrylockItem, number>>;

/** What a layer counts beyond the 26 and the trylocks. Each layer's begin at the same place, behind those. */
export const LAYER_STAT_ITEMS = {
  sheaves: [],
  /** Objects that the array gave and took, and that were moved into it and out of it. */
  'percpu-array': ['ALLOC_PCA', 'FREE_PCA', 'PCA_REFILL', 'PCA_FLUSH'],
  /** What kernels counted that had cpu slabs. */
  'cpu-slab': [
    'ALLOC_FROM_PARTIAL',
    'ALLOC_REFILL',
    'FREE_FROZEN',
    'CPUSLAB_FLUSH',
    'DEACTIVATE_FULL',
    'DEACTIVATE_EMPTY',
    'DEACTIVATE_TO_HEAD',
    'DEACTIVATE_TO_TAIL',
    'DEACTIVATE_REMOTE_FREES',
    'DEACTIVATE_BYPASS',
    'CPU_PARTIAL_ALLOC',
    'CPU_PARTIAL_FREE',
    'CPU_PARTIAL_NODE',
    'CPU_PARTIAL_DRAIN',
  ],
  none: [],
} as const satisfies Readonly<Record<Layer, readonly string[]>>;

type LayerStatItem<L extends Layer> = (typeof LAYER_STAT_ITEMS)[L][number];

const LAYER_ITEMS_AT = STAT_ITEMS.length + TRYLOCK_ITEMS.length;

/** Index of a layer's items in a thread's array. */
export function layerStats<L extends Layer>(layer: L): Readonly<Record<LayerStatItem<L>, number>> {
  const items: readonly string[] = LAYER_STAT_ITEMS[layer];
  return Object.freeze(Object.fromEntries(items.map((item, i) => [item, LAYER_ITEMS_AT + i]))) as never;
}

/** Numbers of one (thread, cache) block: those that every cache has, and as many as the layer that counts most. */
export const NR_COUNTERS =
  LAYER_ITEMS_AT + Math.max(...Object.values(LAYER_STAT_ITEMS).map((items) => items.length));
