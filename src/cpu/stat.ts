import type { Layer } from '../struct/index.js';

/**
 * The 26 counters of `enum stat_item`, by the kernel's names and in its order. Each CPU counts for itself; a
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

export type StatItem = (typeof STAT_ITEMS)[number];
export type Stats = Record<StatItem, number>;

/** Index of each item in a CPU's array. */
export const Stat = Object.freeze(
  Object.fromEntries(STAT_ITEMS.map((item, index) => [item, index])),
) as Readonly<Record<StatItem, number>>;

/** What a layer counts beyond the 26. They lie behind them, and each layer's begin at the same place. */
export const LAYER_STAT_ITEMS = {
  sheaves: [],
  /** Objects that the array gave and took, and that were moved into it and out of it. */
  'percpu-array': ['ALLOC_PCA', 'FREE_PCA', 'PCA_REFILL', 'PCA_FLUSH'],
  'cpu-slab': [],
  none: [],
} as const satisfies Readonly<Record<Layer, readonly string[]>>;

type LayerStatItem<L extends Layer> = (typeof LAYER_STAT_ITEMS)[L][number];

function layerStat<L extends Layer>(layer: L): Readonly<Record<LayerStatItem<L>, number>> {
  const items: readonly string[] = LAYER_STAT_ITEMS[layer];
  return Object.freeze(Object.fromEntries(items.map((item, i) => [item, STAT_ITEMS.length + i]))) as never;
}

/** Index of each layer's items in a CPU's array. */
export const LayerStat = Object.freeze({
  'percpu-array': layerStat('percpu-array'),
  'cpu-slab': layerStat('cpu-slab'),
});

/** Counters in a CPU's array: the 26, and those of the layer that has most. */
export const STAT_COUNT =
  STAT_ITEMS.length + Math.max(...Object.values(LAYER_STAT_ITEMS).map((items) => items.length));
