/** How many objects a sheaf should hold. */
import { AN_OPERATION, type Experiment, type Variant } from './experiment.js';

const BASE = 60;
const CAPACITIES = [4, 8, 16, 32, 120, 240];

const sheavesOf = (capacity: number): Variant => ({
  name: `capacity ${capacity}`,
  about: `${capacity} objects in every sheaf of every cache`,
  stage: { sheafCapacity: capacity },
});

export const capacity: Experiment = {
  name: 'capacity',
  question:
    'How large should sheaves be: what do larger ones gain in hits and time, and what do they cost in memory?',
  operation: AN_OPERATION,
  seconds: 60,
  threads: [1, 4],
  variants: [sheavesOf(BASE), ...CAPACITIES.map(sheavesOf)],
  workloads: ['pair', 'batch-10', 'batch-100', 'batch-1000', 'producer-consumer', 'larson', 'mixed'],
  replay: false,
  shows: ['paths', 'memory', 'locks'],
  expectations: CAPACITIES.filter((size) => size < 32).map((size) => ({
    source: 'kernel 7.0, whose rule gives small objects 60',
    text: `batches of 100 take longer with sheaves of ${size}, which barn and slabs must exchange more often`,
    variant: `capacity ${size}`,
    outcome: 'worse' as const,
    where: ({ workload }) => workload === 'batch-100',
  })),
};
