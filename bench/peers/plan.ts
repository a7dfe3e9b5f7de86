/**
 * What `npm run bench:peers` measures: the workloads, who takes part in which, and the random orders.
 */

export const WORKLOADS = [
  'pair',
  'batch-16',
  'batch-1000',
  'batch-10000',
  'shuffled-1000',
  'producer-consumer',
] as const;
export type Workload = (typeof WORKLOADS)[number];

/** This library, in the settings that are compared. */
export const OURS = ['granary', 'granary-none', 'granary-bulk'] as const;
/** One C program, with whichever malloc it is started. */
export const NATIVES = ['glibc', 'jemalloc', 'mimalloc', 'tcmalloc'] as const;
/** What JavaScript programs use instead. */
export const SCRIPTED = ['thi.ng', 'Uint8Array'] as const;

export type Ours = (typeof OURS)[number];
export type Native = (typeof NATIVES)[number];
export type Variant = Ours | Native | (typeof SCRIPTED)[number];
export const VARIANTS: readonly Variant[] = [...OURS, ...NATIVES, ...SCRIPTED];

export interface Row {
  readonly workload: Workload;
  readonly size: number;
  readonly threads: 1 | 2;
}

export const SIZES = [64, 256] as const;
export const SMALL_BATCH = 16;
export const LARGE_BATCH = 1000;
/** More than a barn ever holds: most of it comes from the slabs and goes back to them. */
export const HUGE_BATCH = 10_000;
export const RING_SLOTS = 4096;
export const PUBLISH_EVERY = 32;
/** Looks at the other side's counter before a waiting thread gives the processor away. */
export const SPINS = 1000;

export const rowKey = (row: Row): string => `${row.workload}/${row.size}/${row.threads}`;

export const rowLabel = (row: Row): string =>
  `${row.workload} ${row.size} B, ${row.threads} ${row.threads === 1 ? 'thread' : 'threads'}`;

/** Rows in the order they are measured: the two thread counts of a workload are neighbours in time. */
export function allRows(filter?: RegExp): Row[] {
  const rows: Row[] = [];
  for (const workload of WORKLOADS) {
    if (filter && !filter.test(workload)) continue;
    for (const size of SIZES) {
      if (workload !== 'producer-consumer') rows.push({ workload, size, threads: 1 });
      rows.push({ workload, size, threads: 2 });
    }
  }
  return rows;
}

/** Whether a variant has something to measure in a row. */
export function takesPart(variant: Variant, row: Row): boolean {
  if (variant === 'granary-bulk') return row.workload === 'batch-16';
  // Its lists carry no lock: two threads on one pool make them cyclic.
  if (variant === 'thi.ng') return row.threads === 1;
  // A typed array cannot be handed to another thread without a message.
  if (variant === 'Uint8Array') return row.workload !== 'producer-consumer';
  return true;
}

const GRANULE: Record<Workload, number> = {
  pair: 1,
  'batch-16': SMALL_BATCH,
  'batch-1000': LARGE_BATCH,
  'batch-10000': HUGE_BATCH,
  'shuffled-1000': LARGE_BATCH,
  'producer-consumer': PUBLISH_EVERY,
};

/** The nearest count below `operations` which is made of whole batches; at least one batch. */
export function wholeBatches(workload: Workload, operations: number): number {
  const granule = GRANULE[workload];
  return Math.max(1, Math.floor(operations / granule)) * granule;
}

/** Marsaglia's xorshift32: peer.c runs the same one, so both sides free in the same order. */
export function xorshift32(seed: number): () => number {
  let x = seed | 0 || 1;
  return () => {
    x ^= x << 13;
    x ^= x >>> 17;
    x ^= x << 5;
    return x >>> 0;
  };
}

/** Fisher and Yates, in place. */
export function shuffle<T extends { length: number; [i: number]: unknown }>(items: T, next: () => number): T {
  for (let i = items.length - 1; i > 0; i--) {
    const j = next() % (i + 1);
    const kept = items[i];
    items[i] = items[j];
    items[j] = kept;
  }
  return items;
}

const ORDER_SEED = 0x9e3779b9;

/** The order in which shuffled-1000 frees. */
export function freeOrder(): Int32Array {
  return shuffle(
    Int32Array.from({ length: LARGE_BATCH }, (_, i) => i),
    xorshift32(ORDER_SEED),
  );
}

/** A number that tells two orders apart; the native program announces its own. */
export function orderCheckSum(order: Int32Array): number {
  return order.reduce((sum, slot, i) => (sum + (i + 1) * slot) >>> 0, 0);
}
