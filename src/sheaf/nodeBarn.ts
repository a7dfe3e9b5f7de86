/** The words of a barn, one line of the arena. What is done with them: barn.ts, barnLimit.ts, rcuSheaf.ts. */
import { LINE_WORDS, type Ptr, struct } from '../struct/index.js';
import { Lock } from '../sync/index.js';

export const Barn = struct(
  'node_barn',
  {
    lock: Lock.SIZEOF,
    full: 1,
    empty: 1,
    nrFull: 1,
    nrEmpty: 1,
    /** Sheaves of objects freed by kfree_rcu, first in first out; see rcuSheaf.ts. */
    rcuHead: 1,
    rcuTail: 1,
    /** The limit of full sheaves and what moves it; see barnLimit.ts. */
    growth: 1,
    most: 1,
    spilled: 1,
    regrets: 1,
    low: 1,
    puts: 1,
  },
  { alignWords: LINE_WORDS },
);
export type BarnPtr = Ptr<'node_barn'>;
