/** What newer kernels added to the slab path, each taken away. */
import { REFINEMENTS, type Refinement } from '../../struct/index.js';
import { AN_OPERATION, type Experiment } from './experiment.js';

const ABOUT: Readonly<Record<Refinement, string>> = {
  lazyFreelist: 'a new slab has its whole freelist built before anything is taken from it',
  returnFreelist: 'what a refill took too much of a slab goes back object by object',
  batchDetach: 'partial slabs come off their list one at a time',
};

const SLUB_BULK = [16, 32, 64, 128, 256, 512].map((size) => `slub-bulk-${size}`);

export const refinements: Experiment = {
  name: 'refinements',
  question: 'What does each refinement of the slab path bring: what is lost without it?',
  operation: `${AN_OPERATION}; for slub-bulk, an allocation`,
  seconds: 60,
  threads: [1, 2, 4],
  variants: [
    { name: 'all on', about: 'the slab path as it is', stage: {} },
    ...REFINEMENTS.map((name) => ({
      name: `no ${name}`,
      about: ABOUT[name],
      stage: { refinements: { [name]: false } },
    })),
  ],
  workloads: [...SLUB_BULK, 'batch-1000', 'shuffled-1000', 'bulk-128', 'larson', 'mixed'],
  replay: true,
  shows: ['locks'],
  expectations: [
    {
      source: 'kernel 7.2, slub_bulk_bench',
      text: 'a new slab that is taken whole needs no freelist, so bulk allocation is slower without lazyFreelist',
      variant: 'no lazyFreelist',
      outcome: 'worse',
      where: ({ workload }) => SLUB_BULK.includes(workload),
    },
    {
      source: 'kernel 7.2, will-it-scale',
      text: 'fewer trips to the partial list under list_lock pay with several threads, so it is slower without batchDetach',
      variant: 'no batchDetach',
      outcome: 'worse',
      where: ({ threads, workload }) => threads > 1 && /1000$/.test(workload),
    },
  ],
};
