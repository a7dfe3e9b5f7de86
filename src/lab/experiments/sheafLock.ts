/** How long a CPU keeps the lock of its sheaves. */
import { AN_OPERATION, type Experiment } from './experiment.js';

export const sheafLock: Experiment = {
  name: 'sheaf-lock',
  question:
    'What does it save to keep the lock of the sheaves for a turn of JavaScript instead of one operation?',
  operation: AN_OPERATION,
  seconds: 45,
  threads: [1, 2, 4],
  variants: [
    { name: 'op', about: 'two locked instructions around every operation', stage: { lockPolicy: 'op' } },
    {
      name: 'turn',
      about: 'taken at the first use in a turn, given back at its end',
      stage: { lockPolicy: 'turn' },
    },
  ],
  workloads: [
    'pair',
    'batch-10',
    'batch-100',
    'batch-1000',
    'bulk-16',
    'producer-consumer',
    'larson',
    'xmalloc',
    'mixed',
  ],
  replay: true,
  shows: ['locks'],
  expectations: [
    {
      source: 'seed 004, patch 5',
      text: 'a cheaper scheme than a spin lock is worth having, so turn takes less time than op',
      variant: 'turn',
      outcome: 'better',
    },
  ],
};
