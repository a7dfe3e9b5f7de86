/** The workloads by name. Those of malloc benchmarks keep the names they have there. */
import { batch, shuffledBatch } from './batch.js';
import { bulk } from './bulk.js';
import { byPage, PAGE_RUNS } from './byPage.js';
import {
  CONCURRENT_SIZES,
  kmallocOne,
  kmallocPairs,
  kmallocPhases,
  kmallocRemote,
} from './concurrentKmalloc.js';
import { constructed, LIVES, type Life, OWNERS } from './constructed.js';
import { exhaustion } from './exhaust.js';
import { HARDENED_WAYS, hardened } from './hardenedWays.js';
import { KFREE_BULK_SIZES, kfreeBulk } from './kfreeBulk.js';
import { kin } from './kin.js';
import { larson } from './larson.js';
import { later } from './later.js';
import { LOOKUPS, lookup } from './lookup.js';
import { mixed } from './mixed.js';
import { MM_WORKLOADS } from './mm.js';
import { pair } from './pair.js';
import { PERCPU_WORKLOADS } from './percpu.js';
import { producerConsumer } from './producerConsumer.js';
import { reserve } from './reserve.js';
import { slubBulk } from './slubBulk.js';
import { WALKS, walk } from './walk.js';
import type { Workload } from './workload.js';
import { xmalloc } from './xmalloc.js';

export { PAGE_RUNS } from './byPage.js';
export { CONCURRENT_SIZES } from './concurrentKmalloc.js';
export { type HardenedWay, hardenedName } from './hardenedWays.js';
export { KFREE_BULK_SIZES } from './kfreeBulk.js';
export { OutOfArenaError, type Workload, type WorkloadContext, type WorkloadRun } from './workload.js';

export const WORKLOADS: readonly Workload[] = [
  pair,
  ...[1, 10, 100, 1000].map(batch),
  ...[10, 100, 1000].map(shuffledBatch),
  bulk(16),
  bulk(128),
  producerConsumer,
  larson,
  xmalloc,
  mixed,
];

/** What a study runs unless it is told otherwise. */
export const STUDY_WORKLOADS: readonly string[] = [
  'pair',
  'batch-10',
  'batch-100',
  'batch-1000',
  'shuffled-1000',
  'bulk-16',
  'producer-consumer',
  'larson',
  'xmalloc',
  'mixed',
];

/** Batches of slab_bulk_test01. */
export const BULK_SIZES: readonly number[] = [1, 2, 3, 4, 8, 16, 30, 32, 34, 48, 64, 128, 158, 250];

/** What only experiments run: the parts of a comparison, which say little by themselves. */
export const EXPERIMENT_WORKLOADS: readonly Workload[] = [
  ...BULK_SIZES.flatMap((size) => [batch(size), bulk(size)]),
  ...(['sheaf', 'bulk', 'plain'] as const).flatMap((way) => [1, 2, 3].map((used) => reserve(way, used))),
  ...[16, 32, 64, 128, 256, 512].map(slubBulk),
  ...(['call', 'kfree-rcu', 'at-once'] as const).flatMap((way) =>
    [64, 1024].map((every) => later(way, every)),
  ),
  ...(Object.keys(LIVES) as Life[]).flatMap((life) => OWNERS.map((owner) => constructed(life, owner))),
  ...[1, 2, 8].map(kin),
  ...LOOKUPS.map(lookup),
  ...WALKS.map(walk),
  ...MM_WORKLOADS,
  ...PAGE_RUNS.map(byPage),
  exhaustion,
  ...KFREE_BULK_SIZES.flatMap((size) => [kfreeBulk('each', size), kfreeBulk('bulk', size)]),
  ...CONCURRENT_SIZES.flatMap((size) => [
    kmallocPhases(size),
    kmallocPairs(size),
    kmallocRemote(size),
    kmallocOne(size),
  ]),
  ...PERCPU_WORKLOADS,
  ...HARDENED_WAYS.flatMap((way) => [0, 10, 100, 1000].map((size) => hardened(way, size))),
];

export function workloadNamed(name: string): Workload {
  const found = [...WORKLOADS, ...EXPERIMENT_WORKLOADS].find((workload) => workload.name === name);
  if (found !== undefined) return found;
  const names = WORKLOADS.map((workload) => workload.name).join(', ');
  throw new RangeError(`workload is ${JSON.stringify(name)}; it must be one of ${names}`);
}
