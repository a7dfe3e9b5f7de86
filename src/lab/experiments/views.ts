/** What names for fields cost. */
import { type Walk, walkName } from '../workloads/walk.js';
import type { Experiment, Variant } from './experiment.js';

const by = (way: Walk, about: string): Variant => ({
  name: way,
  about,
  stage: {},
  workload: () => walkName(way),
});

export const views: Experiment = {
  name: 'views',
  question:
    'What does it cost to read and write fields by name, through a cursor, and what would an object for each access?',
  operation: 'one step along a list: a field written, one read',
  seconds: 20,
  threads: [1],
  variants: [
    by('plain', 'words of the arena at constant offsets'),
    by('cursor', 'one cursor, moved from object to object'),
    by('object', 'a new cursor for each object'),
  ],
  workloads: ['step-along-a-list'],
  replay: false,
  shows: [],
  // No source says what fields by name would cost here: the figures speak for themselves.
  expectations: [],
};
