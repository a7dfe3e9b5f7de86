/** Bulk frees of objects on different pages. Kernel: slab_bulk_test03. */
import { PAGE_RUNS } from '../workloads/index.js';
import { AN_OPERATION, type Experiment, type Variant } from './experiment.js';

const CASE = 'free-64-of-4096';
/** More in a row than there are in a batch. */
const TOGETHER = PAGE_RUNS.at(-1)!;

const inARow = (run: number): Variant => ({
  name: run === TOGETHER ? 'one page' : `${run} in a row`,
  about: run === TOGETHER ? 'all objects of a batch from one page' : `${run} from a page, then the next page`,
  stage: { layer: 'none' },
  workload: () => `by-page-${run}`,
});

export const bulkPages: Experiment = {
  name: 'bulk-pages',
  question:
    'What does a bulk free cost when neighbours in its list lie on different pages, and do sheaves care?',
  operation: AN_OPERATION,
  seconds: 30,
  threads: [1],
  variants: [
    inARow(TOGETHER),
    ...[...PAGE_RUNS].reverse().slice(1).map(inARow),
    {
      name: 'sheaves, 1 in a row',
      about: 'another page each time, with sheaves in front of the slabs',
      stage: { layer: 'sheaves' },
      workload: () => 'by-page-1',
    },
  ],
  workloads: [CASE],
  replay: false,
  shows: ['paths'],
  expectations: [
    {
      source: "Brouer's slab_bulk_test03",
      text: 'objects of another page each time are the worst case of a bulk free, and take longer than those of one page',
      variant: '1 in a row',
      outcome: 'worse',
    },
  ],
};
