/** kmalloc on several threads at once. Kernel: slab_test, the concurrent part. */
import { CONCURRENT_SIZES } from '../workloads/index.js';
import { AN_OPERATION, type Experiment } from './experiment.js';

const KINDS = ['phases', 'pairs', 'remote', 'one'];

export const concurrentKmalloc: Experiment = {
  name: 'concurrent-kmalloc',
  question:
    'Threads that kmalloc and kfree at once, in phases, in pairs, and freeing what others allocated: do sheaves save time there?',
  operation: `${AN_OPERATION} on each thread, in nanoseconds where the kernel's test counts cycles`,
  seconds: 60,
  threads: [2],
  variants: [
    {
      name: 'cpu-slab',
      about: 'what the kernel had when these tests were written',
      stage: { layer: 'cpu-slab' },
    },
    { name: 'sheaves', about: 'sheaves and barns', stage: { layer: 'sheaves' } },
    { name: 'none', about: 'slabs and list_lock only', stage: { layer: 'none' } },
  ],
  workloads: KINDS.flatMap((kind) => CONCURRENT_SIZES.map((size) => `kmalloc-${kind}-${size}`)),
  replay: false,
  shows: ['paths', 'memory', 'locks'],
  expectations: [
    {
      source: 'seed 004',
      text: 'a free elsewhere or later than its allocation costs a locked exchange on the slab, and with sheaves no atomic operation',
      variant: 'sheaves',
      outcome: 'better',
      // Blocks of four pages come from no cache, and no path of theirs is counted.
      where: ({ workload }) => /^kmalloc-(remote|one)-(8|256|4096)$/.test(workload),
    },
  ],
};
