/** The microbenchmark of the cover letter that brought sheaves: batches, freed in order and shuffled. */
import { AN_OPERATION, type Experiment } from './experiment.js';

/** Capacity of the sheaves that were measured there. */
const CAPACITY = 32;

/** Time saved by sheaves, without and with memory cgroups: the seven rows of the cover letter of sheaves v7, Sep 2025. */
const PUBLISHED: Readonly<Record<string, readonly [number, number]>> = {
  'batch-1': [0.172, 0.115],
  'batch-10': [0.153, 0.11],
  'batch-100': [0.31, 0.246],
  'batch-1000': [0.302, 0.244],
  'shuffled-10': [0.126, 0.116],
  'shuffled-100': [0.286, 0.256],
  'shuffled-1000': [0.063, 0.087],
};

export const microbench: Experiment = {
  name: 'microbench',
  question:
    'Batches of 1 to 1000 objects, freed in order and shuffled: do sheaves save here what they saved in the kernel?',
  operation: AN_OPERATION,
  seconds: 40,
  threads: [1],
  variants: [
    {
      name: 'cpu-slab',
      about: 'what the kernel had before, and measured against',
      stage: { layer: 'cpu-slab' },
    },
    {
      name: 'sheaves',
      about: `sheaves of ${CAPACITY}, as measured there`,
      stage: { layer: 'sheaves', sheafCapacity: CAPACITY },
    },
    { name: 'none', about: 'slabs and list_lock only', stage: { layer: 'none' } },
  ],
  workloads: Object.keys(PUBLISHED),
  replay: false,
  shows: ['paths'],
  expectations: [
    {
      source: 'sheaves v7, cover letter',
      text: 'sheaves take less time than cpu slabs in every row',
      variant: 'sheaves',
      outcome: 'better',
    },
  ],
  published: {
    source: 'Babka, sheaves v7, September 2025, one thread of a Ryzen 7 5700',
    titles: ['published', 'with memcg'],
    rows: Object.entries(PUBLISHED).map(([workload, gains]) => ({ workload, variant: 'sheaves', gains })),
  },
};
