/** What each hardening option costs, and what the ways to use a hardened arena do. */
import { type HardenedWay, hardenedName } from '../workloads/index.js';
import { AN_OPERATION, type Experiment, type Variant } from './experiment.js';

type Stage = Variant['stage'];

/** As in the examples of the options: 64 KiB wait on each CPU, and one of 1000 objects is guarded. */
const QUARANTINE: Stage = { quarantine: 64 << 10 };
const GUARD: Stage = { guard: { every: 1000, objects: 63 } };
const RARE_GUARD: Stage = { guard: { every: 1_000_000, objects: 63 } };
const COPIES: Stage = { kmalloc: { copies: 15 } };
const LINKS: Stage = { freelistRandom: true, freelistHardened: true };
const ALL: Stage = {
  ...LINKS,
  initOnAlloc: true,
  initOnFree: true,
  ...COPIES,
  hardenedUsercopy: true,
  ...QUARANTINE,
  ...GUARD,
};

/**
 * One entry for each way to harden an arena; the first is none. A new option is a line here, and a part of `all`: what
 * costs little by itself may cost more beside the others.
 */
const HARDENINGS: ReadonlyArray<readonly [name: string, about: string, stage: Stage]> = [
  ['plain', 'objects by address, in an arena without any of it', {}],
  [
    'freelistRandom',
    'the objects of a new slab in random order: nobody can tell which lies beside which',
    { freelistRandom: true },
  ],
  [
    'freelistHardened',
    'links of free objects encoded, and checked when read: finds writes to them',
    { freelistHardened: true },
  ],
  ['both freelists', 'freelistRandom and freelistHardened', LINKS],
  ['initOnAlloc', 'objects are zeroed when they are handed out: no leftovers', { initOnAlloc: true }],
  ['initOnFree', 'objects are zeroed when they are freed: secrets do not wait', { initOnFree: true }],
  ['quarantine', 'freed objects wait, poisoned, in 64 KiB a CPU: finds writes after the free', QUARANTINE],
  ['guard', 'one of 1000 objects in a page of its own: finds writes beyond it and after its free', GUARD],
  ['guard, rare', 'one of a million, with the stacks of who allocated and freed it, as above', RARE_GUARD],
];

/** Those that are a way to use objects, each against the same way without. */
const by = (
  name: string,
  about: string,
  way: HardenedWay,
  stage: Stage = {},
  against: { against?: string } = {},
): Variant => ({ name, about, stage, ...against, workload: (workload) => hardenedName(way, workload) });

const FIELDS = 'fields';
const KMALLOC = 'kmalloc';

const variants: Variant[] = [
  ...HARDENINGS.map(([name, about, stage]): Variant => ({ name, about, stage })),
  by('handles', 'objects by handle, each looked up once: finds uses after the free at the access', 'handle'),
  { name: 'all', about: 'all options of the arena, those of the lines below too', stage: ALL },
  by(FIELDS, 'objects by address, a field written and read through a cursor', 'field'),
  by(
    'usercopy',
    'hardenedUsercopy: a cursor accepts live objects alone, and looks again at each access',
    'field',
    { hardenedUsercopy: true },
    { against: FIELDS },
  ),
  by('all, handles', 'all options, objects by handle, fields through a cursor', 'handle-field', ALL, {
    against: FIELDS,
  }),
  by(KMALLOC, 'kmalloc of 64 bytes and kfree', 'block'),
  by(
    'copies',
    '15 copies of the kmalloc caches, chosen by call site: sites do not get what others freed',
    'site',
    COPIES,
    { against: KMALLOC },
  ),
  by('all, kmalloc', 'all options, kmalloc by call site', 'site', ALL, { against: KMALLOC }),
];

const DOCS = 'docs/hardening.md';
const isPair = ({ workload }: { workload: string }): boolean => workload === 'pair';

export const hardeningCost: Experiment = {
  name: 'hardening-cost',
  question: 'What does each hardening option cost, where sheaves serve and where slabs must?',
  operation: AN_OPERATION,
  seconds: 90,
  threads: [1],
  variants,
  workloads: ['pair', 'batch-10', 'batch-100', 'batch-1000'],
  replay: false,
  shows: ['costs', 'paths', 'memory'],
  expectations: [
    ...['freelistRandom', 'freelistHardened', 'both freelists'].map((variant) => ({
      source: DOCS,
      text: `a pair gets no further than its sheaf, so it takes the same with ${variant}`,
      variant,
      outcome: 'same' as const,
      where: isPair,
    })),
    {
      source: 'kernel 7.1, SLAB_FREELIST_HARDENED',
      text: 'each link is encoded and decoded where objects go to slabs, so batches of 1000 take longer',
      variant: 'freelistHardened',
      outcome: 'worse',
      where: ({ workload }) => workload === 'batch-1000',
    },
    {
      source: 'kernel 7.1, init_on_alloc',
      text: 'zeroing is a step of each allocation, so a pair takes longer',
      variant: 'initOnAlloc',
      outcome: 'worse',
      where: isPair,
    },
    {
      source: 'kernel 7.1, init_on_free',
      text: 'zeroing is a step of each free, so a pair takes longer',
      variant: 'initOnFree',
      outcome: 'worse',
      where: isPair,
    },
    {
      source: DOCS,
      text: 'every free fills an object with poison and checks another, so everything takes longer',
      variant: 'quarantine',
      outcome: 'worse',
    },
    {
      source: 'kernel, KFENCE',
      text: 'what is sampled costs next to nothing, so that it can stay on',
      variant: 'guard, rare',
      outcome: 'same',
    },
    {
      source: DOCS,
      text: 'each access by handle looks two words up, so everything takes longer',
      variant: 'handles',
      outcome: 'worse',
    },
    {
      source: DOCS,
      text: 'each access through a cursor looks at the state of its object, so everything takes longer',
      variant: 'usercopy',
      outcome: 'worse',
    },
    {
      source: DOCS,
      text: 'the copy is chosen where the handle of the site is made, so a pair takes the same',
      variant: 'copies',
      outcome: 'same',
      where: isPair,
    },
  ],
};
