/** How many sheaves a barn should keep. */
import { AN_OPERATION, type Experiment, type Variant } from './experiment.js';

const BASE = 10;
const LIMITS = [0, 2, 5, 20, 40];

const barnOf = (limit: number): Variant => ({
  name: `barn ${limit}`,
  about: `at most ${limit} full and ${limit} empty sheaves in a barn`,
  stage: { barnFull: limit, barnEmpty: limit },
});

const GROWS: Variant = {
  name: 'barn grows',
  about: 'at first 10, then as many as bursts show to be too few: what an arena does that is told nothing',
  stage: { barnFull: BASE, barnFullMax: 100 },
};

export const barn: Experiment = {
  name: 'barn',
  question:
    'How many sheaves should a barn keep: what do more of them gain in hits and time, and what do they cost?',
  operation: AN_OPERATION,
  seconds: 60,
  threads: [2, 4],
  variants: [barnOf(BASE), ...LIMITS.map(barnOf), GROWS],
  workloads: ['batch-100', 'batch-1000', 'shuffled-1000', 'producer-consumer', 'larson', 'xmalloc'],
  replay: false,
  shows: ['paths', 'memory', 'locks'],
  expectations: [
    {
      source: 'seed 004',
      text: 'sheaves travel between CPUs through the barn, so producer and consumer are slower without one',
      variant: 'barn 0',
      outcome: 'worse',
      where: ({ workload }) => workload === 'producer-consumer',
    },
  ],
};
