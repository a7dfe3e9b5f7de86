/** What was proposed in the review of seed 001 in place of constructors and destructors. */
import { ownerName } from '../workloads/percpu.js';
import type { Experiment } from './experiment.js';

const OWNERS = ['mm', 'tc'] as const;
const OWNER_CASES: Readonly<Record<string, (typeof OWNERS)[number]>> = { mm_struct: 'mm', tc_action: 'tc' };

/** The case's workload, with percpu memory taken each time or, where there are objects, by a constructor. */
const way =
  (how: 'plain' | 'ctor') =>
  (name: string): string => {
    const kind = OWNER_CASES[name];
    return kind === undefined ? name : ownerName(kind, how);
  };

const isOwner = ({ workload }: { readonly workload: string }): boolean => workload in OWNER_CASES;

export const percpuAlternatives: Experiment = {
  name: 'percpu-alternatives',
  question:
    'Does a better percpu allocator make constructors and destructors needless: a cache of recently freed areas, areas that ' +
    'are taken many at once, larger chunks, a cache that a few CPUs share?',
  operation: 'a percpu area, or an object with two or three of them, from allocation to free',
  seconds: 75,
  threads: [1, 2, 4],
  variants: [
    {
      name: 'chunks',
      about: 'each area from and to its chunk: pcpu_alloc_mutex and pcpu_lock, as in the kernel',
      stage: {},
      workload: way('plain'),
    },
    {
      name: 'area cache',
      about: 'up to 16 freed areas of each size are kept by the CPU that freed them',
      stage: { percpu: { areaCache: 16 } },
      workload: way('plain'),
    },
    {
      name: 'batches of 16',
      about: 'a cache of 32, and 16 areas at once when there is none',
      stage: { percpu: { areaCache: 32, areaBatch: 16 } },
      workload: way('plain'),
    },
    {
      name: 'larger chunks',
      about: 'units of 512 KiB in place of 32 KiB, handed out in parts',
      stage: { percpu: { unitPages: 128 } },
      workload: way('plain'),
    },
    {
      name: 'shared by 4',
      about: 'a cache of 64 that four CPUs share under a lock, 16 areas at once',
      stage: { percpu: { areaCache: 64, areaBatch: 16, cpusPerAreaCache: 4 } },
      workload: way('plain'),
    },
    {
      name: 'ctor/dtor',
      about: "the series' own way: the areas stay with the object. A percpu area by itself is as in chunks",
      stage: {},
      workload: way('ctor'),
    },
  ],
  workloads: ['percpu-1', 'percpu-100', 'mm_struct', 'tc_action'],
  replay: false,
  shows: ['locks', 'perf-lock', 'memory'],
  lockNames: ['pcpu_alloc_mutex', 'pcpu_lock', 'pcpu_areas->lock'],
  expectations: [
    {
      source: 'Lameter, review of seed 001',
      text: 'to cache recently used percpu areas takes less time',
      variant: 'area cache',
      outcome: 'better',
    },
    {
      source: 'Lameter, review of seed 001',
      text: 'to take larger percpu areas for a batch of objects and hand them out takes less time',
      variant: 'batches of 16',
      outcome: 'better',
    },
    {
      source: 'Guzik, review of seed 001',
      text: 'a cache for 4 to 8 CPUs is enough',
      variant: 'shared by 4',
      outcome: 'better',
    },
    {
      source: 'Yoo, seed 001',
      text: 'it is simpler on the side of the slab, which caches objects per CPU already',
      variant: 'ctor/dtor',
      outcome: 'better',
      where: isOwner,
    },
  ],
};
