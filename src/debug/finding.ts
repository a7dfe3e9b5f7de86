/** What validate() found, by invariant. Names and numbers are those of docs/invariants.md. */
export const INVARIANTS = {
  I1: 'main is never NULL while its lock is free, nor is an array',
  I2: 'a sheaf, or an array, holds between 0 and capacity objects',
  I3: 'a sheaf is in exactly one place',
  I4: 'a full sheaf is not empty, an empty one has size 0',
  I5: 'nr_full and nr_empty are the lengths of their lists',
  I6: 'a barn exceeds its limits by no more than the CPUs there are',
  I7: 'SL_partial is set exactly on slabs that are on the partial list',
  I8: 'a slab on the partial list has a free object',
  I9: 'inuse is objects minus the length of the freelist',
  I10: 'an object is on a freelist, in a sheaf or an array, or allocated',
  I11: 'nr_partial, nr_slabs and total_objects agree with the slabs',
  I12: 'no more than min_partial empty slabs stay on a partial list',
  I13: 'no object is free in two places',
  I14: 'a slab whose pages wait for a grace period is empty, and on that list alone',
  I17: 'every slab belongs to a cache of the registry',
  I20: 'no lock is held by a CPU that is not in the middle of something',
  I21: 'sheaf allocation nests at most once',
  I22: 'a slab with free objects is on the partial list, or a CPU has it',
  I23: 'a frozen slab is the cpu slab of one CPU or on one cpu partial list, and no other slab is',
  I25: 'no object of a slab of the reserve is in a sheaf',
  I24: 'a slab that awaits callbacks is on one list, of its cache or of a thread',
  PERCPU: 'hints, counts, lists and pages of a percpu chunk agree with its maps',
  COUNTERS: 'what is on the list of percpu counters is a percpu counter',
  PAGES: 'pages are free in exactly one block, and the counts agree',
} as const;
/** The name of a rule of {@link INVARIANTS}. */
export type Invariant = keyof typeof INVARIANTS;

/** One violated invariant at one place. */
export interface Finding {
  invariant: Invariant;
  /** What it is about: a cache's name, `zone 0`, `CPU 3`. */
  where: string;
  what: string;
}

/** Collects findings, up to a limit: a broken list may otherwise produce millions. */
export class Findings {
  readonly list: Finding[] = [];
  private readonly limit: number;

  constructor(limit = 1000) {
    this.limit = limit;
  }

  add(invariant: Invariant, where: string, what: string): void {
    if (this.list.length < this.limit) this.list.push({ invariant, where, what });
  }

  /** Adds a finding unless `ok`. */
  expect(ok: boolean, invariant: Invariant, where: string, what: () => string): void {
    if (!ok) this.add(invariant, where, what());
  }
}
