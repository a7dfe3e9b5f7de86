/** Where the cache of an allocation comes from. */
import { LOOKUP_CACHE, type Lookup, lookupName } from '../workloads/lookup.js';
import { AN_OPERATION, type Experiment, type Variant } from './experiment.js';

const CASE = 'pair-of-static-cache';

const found = (way: Lookup, about: string): Variant => ({
  name: way,
  about,
  stage: { caches: [{ name: LOOKUP_CACHE, size: 64 }] },
  workload: () => lookupName(way),
});

export const staticCache: Experiment = {
  name: 'static-cache',
  question:
    "Is a static cache's handle, a constant of the code that uses it, worth more than a field that is read or a name that is looked up at each call?",
  operation: AN_OPERATION,
  seconds: 20,
  threads: [1, 2],
  variants: [
    found('handle', 'a field of an object, read at each call: a pointer that is assigned once'),
    found('fixed', 'a constant of the closure'),
    found('name', 'arena.openCache(name) at each call'),
  ],
  workloads: [CASE],
  replay: false,
  shows: ['paths'],
  expectations: [
    {
      source: 'seed 000, Al Viro',
      text: 'a cache at a fixed place saves the load of its pointer, which shows in profiles of hot ones',
      variant: 'fixed',
      outcome: 'better',
    },
    {
      source: 'seed 000, Al Viro',
      text: 'whoever looks a cache up pays for it at each allocation',
      variant: 'name',
      outcome: 'worse',
    },
  ],
};
