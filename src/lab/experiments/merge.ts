/** Caches of one size, apart and merged. */
import type { MergeMode } from '../../struct/index.js';
import { kinName } from '../workloads/kin.js';
import { AN_OPERATION, type Experiment, type Variant } from './experiment.js';

const mode = (merge: MergeMode, about: string): Variant => ({ name: merge, about, stage: { merge } });

export const merge: Experiment = {
  name: 'merge',
  question:
    'What does it save, and what does it cost, that caches of one size share slabs and sheaves: in memory, in time, in waits for locks?',
  operation: AN_OPERATION,
  seconds: 40,
  threads: [1, 2, 4],
  variants: [
    mode('off', 'every cache has slabs and sheaves of its own'),
    mode('kernel', 'one cache; the others are links to it'),
    mode('primary', "each is a cache that goes to its primary's slabs and sheaves"),
  ],
  workloads: [1, 2, 8].map(kinName),
  replay: false,
  shows: ['paths', 'memory', 'locks'],
  expectations: [
    {
      source: 'seed 000, Vlastimil Babka',
      text: 'a scheme that keeps caches from merging is a concern, so eight that share slabs are faster than eight on their own',
      variant: 'kernel',
      outcome: 'better',
      where: ({ workload }) => workload === kinName(8),
    },
    {
      source: 'seed 000, Vlastimil Babka',
      text: 'the primary is read on no fast path, so aliases keep that gain',
      variant: 'primary',
      outcome: 'better',
      where: ({ workload }) => workload === kinName(8),
    },
  ],
};
