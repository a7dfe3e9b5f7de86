/** What the checks and the debugging of caches cost, a letter at a time. */
import type { CheckLevel } from '../../struct/index.js';
import { AN_OPERATION, type Experiment, type Variant } from './experiment.js';

const LETTERS: Readonly<Record<string, string>> = {
  F: 'consistency checks of slab and object',
  Z: 'red zones around each object',
  P: 'poison in each free object',
  U: 'who allocated and freed each object, with the stack',
  FZPU: 'all four, as slabDebug: true',
};

const letters = (slabDebug: string): Variant => ({
  name: slabDebug,
  about: `slabDebug: ${LETTERS[slabDebug]}`,
  stage: { slabDebug },
});

const checked = (check: CheckLevel, about: string): Variant => ({
  name: `check ${check}`,
  about,
  stage: { check },
});

export const debugCost: Experiment = {
  name: 'debug-cost',
  question:
    'What do the checks of a free cost, and each letter of slab_debug, for which a cache loses its sheaves?',
  operation: AN_OPERATION,
  seconds: 45,
  threads: [1],
  variants: [
    checked('free', 'a free must be of an allocated object of the cache: the default'),
    checked('none', 'a free is believed'),
    checked('full', 'a free by two threads at once is found, too'),
    {
      name: 'no sheaves',
      about: 'layer: none, as debug caches are: what letters cost beyond it are their checks',
      stage: { layer: 'none' },
    },
    ...Object.keys(LETTERS).map(letters),
  ],
  workloads: ['pair', 'batch-1', 'batch-10', 'batch-100', 'batch-1000', 'shuffled-1000'],
  replay: false,
  shows: ['paths', 'memory'],
  expectations: [
    ...Object.keys(LETTERS).map((variant) => ({
      source: 'kernel 7.1, slab_debug in mm/slub.c',
      text: `a debug cache works object by object under list_lock, so everything takes longer with ${variant}`,
      variant,
      outcome: 'worse' as const,
    })),
  ],
};
