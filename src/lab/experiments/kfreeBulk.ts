/** One kfreeBulk of blocks of mixed sizes against a kfree for each. Kernel: slab_bulk_test05. */
import { KFREE_BULK_SIZES } from '../workloads/index.js';
import { AN_OPERATION, type Experiment } from './experiment.js';

const caseName = (size: number): string => `${size}-mixed`;
const sizeIn = (name: string): number => KFREE_BULK_SIZES.find((size) => caseName(size) === name)!;

export const kfreeBulk: Experiment = {
  name: 'kfree-bulk',
  question: 'Blocks of 8 to 8192 bytes in one list: does kfreeBulk save time over a kfree for each?',
  operation: AN_OPERATION,
  seconds: 30,
  threads: [1],
  variants: [
    {
      name: 'one by one',
      about: 'kfree for each',
      stage: {},
      workload: (name) => `kfree-each-${sizeIn(name)}`,
    },
    {
      name: 'kfreeBulk',
      about: 'one call for the list',
      stage: {},
      workload: (name) => `kfree-bulk-${sizeIn(name)}`,
    },
  ],
  workloads: KFREE_BULK_SIZES.map(caseName),
  replay: false,
  shows: ['paths'],
  expectations: [
    {
      source: "Brouer's slab_bulk_test05",
      text: 'kfree_bulk of mixed sizes takes less time than a kfree for each',
      variant: 'kfreeBulk',
      outcome: 'better',
      where: ({ workload }) => sizeIn(workload) > 1,
    },
  ],
};
