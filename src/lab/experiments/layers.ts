/** Sheaves beside the two designs before them, and beside nothing. */
import type { Layer } from '../../struct/index.js';
import { AN_OPERATION, type CaseName, type Experiment, type Variant } from './experiment.js';

const layer = (name: Layer, about: string): Variant => ({ name, about, stage: { layer: name } });

const ownObjects = ({ workload }: CaseName): boolean => /^(pair|batch|shuffled)/.test(workload);

export const layers: Experiment = {
  name: 'layers',
  question:
    'What do per-CPU sheaves save over per-CPU arrays, over cpu slabs, and over going straight to the slabs?',
  operation: AN_OPERATION,
  seconds: 60,
  threads: [1, 2, 4, 8],
  variants: [
    layer('sheaves', 'main, spare and a barn'),
    layer('percpu-array', 'one array per CPU; half of it is filled or flushed at a time'),
    layer('cpu-slab', 'a slab of its own per CPU, and a list of partial ones'),
    layer('none', 'slabs and list_lock only'),
  ],
  workloads: [
    'pair',
    'batch-10',
    'batch-100',
    'batch-1000',
    'shuffled-10',
    'shuffled-100',
    'shuffled-1000',
    'producer-consumer',
    'larson',
    'xmalloc',
    'mixed',
  ],
  replay: true,
  shows: ['paths', 'memory'],
  expectations: [
    {
      source: 'sheaves v7, cover letter',
      text: 'cpu-slab takes longer than sheaves for pairs, batches and shuffled batches on one thread',
      variant: 'cpu-slab',
      outcome: 'worse',
      where: (name) => name.threads === 1 && ownObjects(name),
    },
    {
      source: 'seed 004',
      text: 'fast paths without atomic operations beat those of the slabs, so none takes longer than sheaves',
      variant: 'none',
      outcome: 'worse',
    },
  ],
};
