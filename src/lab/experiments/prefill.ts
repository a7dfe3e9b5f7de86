/** Providing for the worst case of an operation that rarely needs it. */
import { Arena } from '../../arena.js';
import { BOUND, reserveName } from '../workloads/reserve.js';
import type { Experiment } from './experiment.js';

const USED = [1, 2, 3];
const caseName = (used: number): string => `use-${used}-of-${BOUND}`;
const usedIn = (name: string): number => USED.find((used) => caseName(used) === name)!;

/** Whether caches of this build can be asked for a prefilled sheaf. */
function missing(): string | undefined {
  const arena = Arena.create({ bytes: 4 << 20, cpus: 1 });
  arena.online();
  try {
    const cache = arena.createCache('prefill', { size: 256 });
    return 'prefill' in cache ? undefined : 'caches have no prefill method';
  } finally {
    arena.offline();
  }
}

export const prefill: Experiment = {
  name: 'prefill',
  question:
    `An operation may need up to ${BOUND} objects and uses 1 to 3: does a prefilled sheaf, returned with the rest, beat ` +
    'a bulk allocation of the worst case and a bulk free of the rest? And what does the guarantee cost?',
  operation: `one such operation, with the frees of as many older objects`,
  seconds: 30,
  threads: [1, 2],
  variants: [
    {
      name: 'bulk',
      about: `allocBulk of ${BOUND}, freeBulk of what is not used`,
      stage: {},
      workload: (name) => reserveName('bulk', usedIn(name)),
    },
    {
      name: 'prefill',
      about: `prefill(${BOUND}), alloc from the sheaf, return`,
      stage: {},
      workload: (name) => reserveName('sheaf', usedIn(name)),
    },
    {
      name: 'plain',
      about: 'alloc for each object used: no guarantee',
      stage: {},
      workload: (name) => reserveName('plain', usedIn(name)),
    },
  ],
  workloads: USED.map(caseName),
  replay: false,
  shows: ['paths'],
  expectations: [
    {
      source: 'seed 004',
      text: 'borrowing and returning a sheaf is much more efficient than a bulk allocation for the worst case and a bulk free of the rest',
      variant: 'prefill',
      outcome: 'better',
    },
  ],
  missing,
};
