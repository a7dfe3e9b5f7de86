/** One call for many objects against many calls for one. Kernel: slab_bulk_test01. */
import { BULK_SIZES } from '../workloads/index.js';
import { AN_OPERATION, type Experiment } from './experiment.js';

const caseName = (size: number): string => `${size}-at-once`;
const sizeIn = (name: string): number => BULK_SIZES.find((size) => caseName(size) === name)!;

export const bulkCalls: Experiment = {
  name: 'bulk',
  question: 'What does one call for many objects save over a call for each, and from how many objects on?',
  operation: AN_OPERATION,
  seconds: 30,
  threads: [1],
  variants: [
    {
      name: 'one by one',
      about: 'alloc for each, then free for each',
      stage: {},
      workload: (name) => `batch-${sizeIn(name)}`,
    },
    {
      name: 'bulk',
      about: 'allocBulk, then freeBulk',
      stage: {},
      workload: (name) => `bulk-${sizeIn(name)}`,
    },
  ],
  workloads: BULK_SIZES.map(caseName),
  replay: false,
  shows: ['paths'],
  expectations: [
    {
      source: "Brouer's measurements of 2016",
      text: 'a bulk call takes less time from two objects on',
      variant: 'bulk',
      outcome: 'better',
      where: ({ workload }) => sizeIn(workload) > 1,
    },
  ],
};
