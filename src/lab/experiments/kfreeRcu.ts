/** Freeing after a grace period: a sheaf at a time, or each object by itself. */
import { type LaterWay, laterName } from '../workloads/later.js';
import type { Experiment } from './experiment.js';

/** Operations between two quiescent states: short turns, and long ones. */
const EVERY = [64, 1024];
const caseName = (every: number): string => `every-${every}`;
const way =
  (name: LaterWay) =>
  (workload: string): string =>
    laterName(name, EVERY.find((every) => caseName(every) === workload)!);

export const kfreeRcu: Experiment = {
  name: 'kfree-rcu',
  question:
    'What does it save to gather objects that are freed after a grace period in sheaves, over a callback for each, and how ' +
    'much memory do both hold back?',
  operation: 'a read section, an allocation and its free after a grace period',
  seconds: 30,
  threads: [1, 2],
  variants: [
    {
      name: 'callback',
      about: 'call() for each object, which frees it; sheaves',
      stage: {},
      workload: way('call'),
    },
    {
      name: 'sheaf',
      about: 'freeRcu: a sheaf of them waits, and is then a full sheaf of the barn',
      stage: {},
      workload: way('kfree-rcu'),
    },
    {
      name: 'pages',
      about: 'freeRcu without sheaves: pages of addresses, then bulk frees into per-CPU arrays',
      stage: { layer: 'percpu-array' },
      workload: way('kfree-rcu'),
    },
    {
      name: 'at once',
      about: 'free, as if nobody read; sheaves',
      stage: {},
      workload: way('at-once'),
    },
  ],
  workloads: EVERY.map(caseName),
  replay: false,
  shows: ['paths', 'memory'],
  expectations: [
    {
      source: 'seed 004',
      text: 'to submit a whole sheaf, which then serves allocations, is more efficient than to handle individual objects',
      variant: 'sheaf',
      outcome: 'better',
    },
  ],
};
