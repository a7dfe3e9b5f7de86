/**
 * The words that make a slab's freelist: links in free objects, and the slab's own word.
 *
 * Who forges a link knows the arena's secrets: it is written as the slab layer writes one. With encoded links these are
 * found only where they lead to no other object of the slab. A stray write, which knows none, is always found.
 *
 * With F the number of free objects: what is behind a cut is lost, object by object, and counts as in use from the cut on.
 */
import { Page } from '#src/page/index.js';
import { freelistOf, packSlabWord, readFreePointer, writeFreePointer } from '#src/slab/index.js';
import type { Case, Outcome } from './run.js';
import { isMarked, type Scene } from './scene.js';

/** All objects of the slab go to its freelist but the victim and another one. */
function onFreelist(scene: Scene): void {
  const { cache, objects, p, seen } = scene;
  const kept = objects.find((q) => q !== p && isMarked(scene, q));
  for (const q of seen) if (q !== p && q !== kept && isMarked(scene, q)) cache.free(q);
  cache.shrink();
}

const F = ({ objects }: Scene): number => objects.length - 2;
/** A number of findings or errors that follows from F. */
const less =
  (n: number) =>
  (scene: Scene): number =>
    F(scene) - n;

const word = ({ arena, page }: Scene): number => arena.i32[page + Page.slabWord]!;
const head = (scene: Scene): number => scene.objects[freelistOf(word(scene)) - 1]!;
const next = ({ arena, cache }: Scene, p: number): number => readFreePointer(arena.i32, cache.desc, p);
const forge = ({ arena, cache }: Scene, p: number, to: number): void =>
  writeFreePointer(arena.i32, cache.desc, p, to);
const stored = ({ arena, cache }: Scene, p: number): number => arena.i32[(p + cache.desc.offset) >> 2]!;
/** Over a link, by somebody who does not know what lies there. */
const write = ({ arena, cache }: Scene, p: number, value: number): void => {
  arena.i32[(p + cache.desc.offset) >> 2] = value;
};
const setWord = ({ arena, page }: Scene, value: number): void => {
  arena.i32[page + Page.slabWord] = value;
};

/** The list ends where nobody can follow it: that and the count, and each object that is lost. */
const UNFOLLOWED: Outcome = { findings: less(-1), putBack: true };
const cut = (errors: number): Outcome => ({
  findings: less(-1),
  errors,
  what: 'Freechain corrupt',
  left: less(1),
});
const CUT_BY_DEBUG = cut(3);
/** When it is read: a report, and that the list was cut. */
const CUT_BY_READER = cut(2);
const cleared = (what: string, findings: Outcome['findings']): Outcome => ({
  findings: findings!,
  errors: 2,
  what,
  left: F,
});

function wordCase(name: string, act: (scene: Scene) => void, is: Case['is']): Case {
  return { name, prepare: onFreelist, act, is };
}

const LINK_TO_NOWHERE = { plain: UNFOLLOWED, debug: CUT_BY_DEBUG, hardened: CUT_BY_READER };

export const WORDS: Case[] = [
  wordCase('a link into an object', (s) => forge(s, head(s), next(s, head(s)) + 4), LINK_TO_NOWHERE),
  wordCase('a link out of the slab', (s) => forge(s, head(s), next(s, head(s)) + (1 << 16)), LINK_TO_NOWHERE),
  wordCase('a link before the slab', (s) => forge(s, head(s), s.objects[0]! - s.cache.size), LINK_TO_NOWHERE),
  wordCase('a negative link', (s) => forge(s, head(s), -8), LINK_TO_NOWHERE),
  wordCase('a link in the middle of the list', (s) => forge(s, next(s, head(s)), 12), {
    plain: { findings: F, putBack: true },
    debug: { ...CUT_BY_DEBUG, findings: F, left: less(2) },
    hardened: { ...CUT_BY_READER, findings: F, left: less(2) },
  }),
  // Nothing tells a short list from what it should be but the count: those who take the list take what is there.
  wordCase('a list that ends early', (s) => forge(s, head(s), 0), {
    plain: { findings: F, putBack: true },
    debug: { findings: F, errors: 2, what: 'Wrong object count', left: less(1) },
    hardened: { findings: F, left: less(1) },
  }),
  wordCase('an object that leads to itself', (s) => forge(s, head(s), head(s)), {
    plain: UNFOLLOWED,
    debug: cleared('Freelist cycle detected', less(-1)),
    hardened: CUT_BY_READER,
  }),
  // Each link leads to another object of the slab: a reader cannot tell it from a good one.
  wordCase('a cycle of two', (s) => forge(s, next(s, head(s)), head(s)), {
    plain: { findings: F, putBack: true },
    debug: cleared('Freelist cycle detected', F),
    hardened: { findings: F, putBack: true },
  }),
  wordCase(
    'an allocated object on the list',
    (s) => {
      forge(s, s.p, next(s, head(s)));
      forge(s, head(s), s.p);
      // What the list says counts: it is handed out again, and its owner has it no longer.
      if (s.column === 'debug') s.seen.delete(s.p);
    },
    {
      plain: { findings: 2, putBack: true },
      // The count, and the red zones on both sides of it, which say that it is in use.
      debug: { findings: 2, errors: 6, what: 'Wrong object count', left: 1, leaked: 0 },
      hardened: { findings: 2, putBack: true },
    },
  ),
  wordCase('a head that is no object', (s) => setWord(s, packSlabWord(5000, 2)), {
    plain: { findings: less(-2), putBack: true },
    debug: cleared('Freepointer corrupt', less(-2)),
    hardened: cleared('Freepointer corrupt', less(-2)),
  }),
  wordCase('a head that was lost', (s) => setWord(s, packSlabWord(0, 2)), {
    plain: { findings: less(-2), putBack: true },
    debug: { findings: less(-2), errors: 2, what: 'Wrong object count', left: F },
    hardened: { findings: less(-2), left: F },
  }),
  // The count is the slab's own, and encodes nothing.
  wordCase('inuse too large', (s) => setWord(s, word(s) + packSlabWord(0, 1)), {
    plain: { findings: 1, putBack: true },
    debug: { findings: 1, errors: 2, what: 'Wrong object count' },
    hardened: { findings: 1, putBack: true },
  }),
  wordCase('inuse too small', (s) => setWord(s, word(s) - packSlabWord(0, 1)), {
    plain: { findings: 1, putBack: true },
    debug: { findings: 1, errors: 2, what: 'Wrong object count' },
    hardened: { findings: 1, putBack: true },
  }),
  wordCase('a zero written over a link', (s) => write(s, head(s), 0), {
    plain: { findings: F, putBack: true },
    debug: { findings: F, errors: 2, what: 'Wrong object count', left: less(1) },
    hardened: CUT_BY_READER,
  }),
  // In plain memory that is a link like any other: the objects between are lost.
  wordCase(
    'the address of an object written over a link',
    (s) => write(s, head(s), next(s, next(s, head(s)))),
    {
      plain: { findings: 2, putBack: true },
      debug: { findings: 2, errors: 2, what: 'Wrong object count', left: 1 },
      hardened: CUT_BY_READER,
    },
  ),
  wordCase('a user`s text over a link', (s) => write(s, head(s), 0x41414141), LINK_TO_NOWHERE),
  wordCase('one bit of a link', (s) => write(s, head(s), stored(s, head(s)) ^ 2), LINK_TO_NOWHERE),
];
