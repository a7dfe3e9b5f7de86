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

/** Counters of one layer beyond the 26: those of the kernel that had it. They follow the 26 in a CPU's array. */
export const LAYER_STAT_ITEMS = {
  sheaves: [],
  'percpu-array': [],
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

/** Index of each of a layer's own items in a CPU's array. */
export function layerStats<L extends Layer>(
  layer: L,
): Readonly<Record<(typeof LAYER_STAT_ITEMS)[L][number], number>> {
  const items: readonly string[] = LAYER_STAT_ITEMS[layer];
  const indices = items.map((item, index) => [item, STAT_ITEMS.length + index]);
  return Object.freeze(Object.fromEntries(indices)) as never;
}
