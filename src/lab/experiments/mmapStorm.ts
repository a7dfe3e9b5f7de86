/** The caches of address spaces, with and without sheaves, under what processes do. */
import type { Experiment } from './experiment.js';

/** From throughput in per cent more to time saved. */
const saved = (percentMore: number): number => 1 - 1 / (1 + percentMore / 100);

export const mmapStorm: Experiment = {
  name: 'mmap-storm',
  question:
    'Processes map, unmap and grow: what do sheaves save for vm_area_struct and maple_node, whose nodes are prefilled and ' +
    'come back through kfree_rcu?',
  operation:
    'a mapping and its unmapping; a growth and its undoing; of areas-50, one area mapped, touched and unmapped',
  seconds: 60,
  threads: [1, 2],
  variants: [
    { name: 'cpu-slab', about: 'what sheaves replaced', stage: { layer: 'cpu-slab' } },
    { name: 'sheaves', about: 'sheaves in front of both caches', stage: { layer: 'sheaves' } },
    { name: 'none', about: 'straight to the slabs', stage: { layer: 'none' } },
  ],
  workloads: ['mmap1', 'mmap2', 'brk1', 'areas-50'],
  replay: false,
  shows: ['paths', 'hits', 'locks'],
  expectations: [
    {
      source: 'seed 004',
      text: 'both maple_node and vma caches can benefit',
      variant: 'sheaves',
      outcome: 'better',
    },
    {
      source: 'Suren Baghdasaryan, mmap stress, Sep 2025',
      text: 'the stress of 50 areas takes less time with sheaves',
      variant: 'sheaves',
      outcome: 'better',
      where: ({ workload }) => workload === 'areas-50',
    },
  ],
  published: {
    source:
      'Suren Baghdasaryan, mmap stress, Sep 2025 (20,000 cycles of 50 areas: 4.914 s before, 3.603 s with sheaves), and ' +
      'Sudarsan Mahendran, will-it-scale, on v5 (8 processes)',
    titles: ['time saved'],
    rows: [
      { workload: 'areas-50', variant: 'sheaves', gains: [0.2667] },
      { workload: 'mmap1', variant: 'sheaves', gains: [saved(16.32)] },
      { workload: 'brk1', variant: 'sheaves', gains: [saved(28.58)] },
    ],
  },
};
