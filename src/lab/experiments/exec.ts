/** Percpu memory of mm_struct: taken each time, or by a constructor. Seed 001, patch 7. */
import { withoutPercpu } from '../trace/index.js';
import { tracedMmCache } from '../workloads/mmStruct.js';
import { ownerName } from '../workloads/percpu.js';
import type { Experiment } from './experiment.js';

export const exec: Experiment = {
  name: 'exec',
  question:
    'An mm_struct owns two percpu areas. What does it save when a constructor takes them once per object of a slab, and not ' +
    'each exec anew, by itself and among all that an exec allocates?',
  operation: 'an mm_struct from allocation to free; of the replay, an allocation and its free',
  seconds: 60,
  threads: [1, 2, 4, 8],
  variants: [
    {
      name: 'plain',
      about: 'two percpu areas and four counters made and ended with each mm_struct',
      stage: {},
      workload: () => ownerName('mm', 'plain'),
    },
    {
      name: 'ctor/dtor',
      about:
        'by constructor when the slab is made, behind the offset where memset stops; back when the slab goes',
      stage: {},
      workload: () => ownerName('mm', 'ctor'),
      program: (program) => withoutPercpu(program, 'mm_struct', tracedMmCache.name),
    },
  ],
  workloads: ['mm_struct'],
  replay: true,
  trace: 'exec',
  shows: ['locks', 'perf-lock', 'memory'],
  lockNames: ['pcpu_alloc_mutex', 'pcpu_lock', 'percpu_counters_lock'],
  expectations: [
    {
      source: 'seed 001, patch 7',
      text: 'constructors that keep the percpu memory make exec faster, also on one thread',
      variant: 'ctor/dtor',
      outcome: 'better',
    },
  ],
  published: {
    source:
      'Yoo, seed 001: exec throughput +33 % on 2 sockets with 192 CPUs, +4.56 % on 24 hardware threads, about +4 % on one',
    titles: ['192 CPUs', '24 threads', 'one thread'],
    rows: ['mm_struct', 'replay-exec'].map((workload) => ({
      workload,
      variant: 'ctor/dtor',
      gains: [0.33, 0.0456, 0.04].map((more) => 1 - 1 / (1 + more)),
    })),
  },
};
