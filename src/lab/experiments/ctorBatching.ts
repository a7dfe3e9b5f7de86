/** What constructors save, and what one call for a whole slab saves over a call for each object. */
import { constructedName, LIVES, type Life, type Owner } from '../workloads/constructed.js';
import { AN_OPERATION, type Experiment, type Variant } from './experiment.js';

const caseName = (life: Life): string => `${life}-${LIVES[life]}`;
const lifeIn = (name: string): Life =>
  (Object.keys(LIVES) as Life[]).find((life) => caseName(life) === name)!;

const variant = (name: string, owner: Owner, about: string): Variant => ({
  name,
  about,
  stage: {},
  workload: (workload) => constructedName(lifeIn(workload), owner),
});

export const ctorBatching: Experiment = {
  name: 'ctor-batching',
  question:
    'An object owns a block of 64 bytes. What does it cost to construct a slab object by object, or all at once, what ' +
    'does either save over allocating the block with each object, and what does it leave of the cost of objects without?',
  operation: `${AN_OPERATION}; in ${caseName('cycle')} nine in ten of them make and end slabs`,
  seconds: 30,
  threads: [1, 2],
  variants: [
    variant('by object', 'object', 'ctor and dtor: a kmalloc and a kfree for each object of a slab'),
    variant('by slab', 'slab', 'ctorSlab and dtorSlab: one kmalloc and one kfree for a slab'),
    variant('by alloc', 'alloc', 'no constructor: a kmalloc with each allocation, a kfree with each free'),
    variant('nothing', 'nobody', 'no block at all'),
  ],
  workloads: [caseName('reuse'), caseName('cycle')],
  replay: false,
  shows: ['paths', 'memory'],
  expectations: [
    {
      source: 'seed 001, cover letter',
      text: 'what the constructor keeps in the object saves getting it with every allocation',
      variant: 'by alloc',
      outcome: 'worse',
      where: ({ workload }) => workload === caseName('reuse'),
    },
    {
      source: 'seed 001, review by Pedro Falcato',
      text: 'an iterator over the slab, which takes locks and memory once, makes slabs for less',
      variant: 'by slab',
      outcome: 'better',
      where: ({ workload }) => workload === caseName('cycle'),
    },
  ],
};
