/** Threads that share the sheaves of one CPU slot. */
import { Arena } from '../../arena.js';
import type { ArenaOptions } from '../../plan.js';
import { AN_OPERATION, type Experiment, type Variant } from './experiment.js';

const sharing = (threadsPerCpu: number): Variant => ({
  name: `${threadsPerCpu} a slot`,
  about:
    threadsPerCpu === 1
      ? 'a CPU slot for each thread'
      : `up to ${threadsPerCpu} threads share a CPU slot and its sheaves`,
  stage: { lockPolicy: 'op' },
  threadsPerCpu,
});

/** Whether an arena of this build takes more threads than it has CPUs. */
function missing(): string | undefined {
  const options = { bytes: 8 << 20, cpus: 2, threads: 4, lockPolicy: 'op' } as ArenaOptions;
  const { geometry } = Arena.create(options);
  return (geometry as { threads?: number }).threads === 4
    ? undefined
    : 'an arena has no more threads than CPUs';
}

export const slots: Experiment = {
  name: 'slots',
  question:
    "What does it cost when threads share a CPU slot, as more threads than CPUs must: how often is its sheaves' lock taken?",
  operation: AN_OPERATION,
  seconds: 45,
  threads: [4],
  variants: [1, 2, 3, 4].map(sharing),
  workloads: [
    'pair',
    'batch-10',
    'batch-100',
    'batch-1000',
    'producer-consumer',
    'larson',
    'xmalloc',
    'mixed',
  ],
  replay: false,
  shows: ['paths', 'bypasses', 'memory', 'locks'],
  expectations: [
    {
      source: 'kernel 7.1, local_trylock',
      text: 'a try for a lock that another thread of the slot holds fails and goes past the sheaves, so pairs take longer',
      variant: '4 a slot',
      outcome: 'worse',
      where: ({ workload }) => workload === 'pair',
    },
  ],
  missing,
};
