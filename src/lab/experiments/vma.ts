/** Page faults that find their area without the address space's lock. */
import type { CaseName, Experiment } from './experiment.js';

const CASE = 'page-faults';
const contended = ({ threads }: CaseName): boolean => threads > 2;

export const vma: Experiment = {
  name: 'vma',
  question:
    'Page faults of 1 to 8 threads look for their areas while one more maps and unmaps: what do RCU and a lock per area ' +
    'save over one lock for all?',
  operation: 'a page fault of each thread but the last, which changes the space',
  seconds: 60,
  threads: [2, 3, 5, 9],
  variants: [
    {
      name: 'mmap_lock',
      about: 'faults take the lock under which the space is changed',
      stage: {},
      workload: () => 'faults-mmap-lock',
    },
    {
      name: 'vma lock',
      about: 'faults walk the tree under RCU and take a reference in the area',
      stage: {},
      workload: () => 'faults-vma-lock',
    },
  ],
  workloads: [CASE],
  replay: false,
  shows: ['locks'],
  expectations: [
    {
      source: 'seed 004',
      text: 'VMA scalability is what the work is for: faults that need no common lock are faster where others would wait',
      variant: 'vma lock',
      outcome: 'better',
      where: contended,
    },
  ],
};
