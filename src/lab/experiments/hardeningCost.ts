/** What each hardening option costs. */
import { AN_OPERATION, type Experiment, type Variant } from './experiment.js';

/**
 * One entry for each way to harden an arena; the first is none. A new option is a line here, and a part of `all`: what
 * costs little by itself may cost more beside the others.
 */
const HARDENINGS: ReadonlyArray<readonly [name: string, about: string, stage: Variant['stage']]> = [
  ['plain', 'an arena without any of it', {}],
  ['random', 'freelistRandom: the objects of a new slab in random order', { freelistRandom: true }],
  ['hardened', 'freelistHardened: links encoded, and checked when read', { freelistHardened: true }],
  ['both', 'freelistRandom and freelistHardened', { freelistRandom: true, freelistHardened: true }],
  ['initOnAlloc', 'objects are zeroed when they are handed out', { initOnAlloc: true }],
  ['initOnFree', 'objects are zeroed when they are freed', { initOnFree: true }],
  ['copies', '15 copies of the kmalloc caches, chosen by call site', { kmalloc: { copies: 15 } }],
  [
    'all',
    'all of these',
    {
      freelistRandom: true,
      freelistHardened: true,
      initOnAlloc: true,
      initOnFree: true,
      kmalloc: { copies: 15 },
    },
  ],
];

const variants = HARDENINGS.map(([name, about, stage]): Variant => ({ name, about, stage }));

export const hardeningCost: Experiment = {
  name: 'hardening-cost',
  question: 'What does each hardening option cost, where sheaves serve and where slabs must?',
  operation: AN_OPERATION,
  seconds: 45,
  threads: [1],
  variants,
  workloads: ['pair', 'batch-1', 'batch-10', 'batch-100', 'batch-1000', 'shuffled-1000', 'bulk-16'],
  replay: false,
  shows: ['paths', 'memory'],
  expectations: [
    {
      source: 'kernel reference 2.3',
      text: 'zeroing is a step of each allocation, so a pair takes longer',
      variant: 'initOnAlloc',
      outcome: 'worse',
      where: ({ workload }) => workload === 'pair',
    },
    {
      source: 'kernel reference 7.5',
      text: 'each link is encoded and decoded where objects go to slabs, so batches of 1000 take longer',
      variant: 'hardened',
      outcome: 'worse',
      where: ({ workload }) => /1000$/.test(workload),
    },
  ],
};
