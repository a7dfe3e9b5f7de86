/**
 * The sheaves of one cache that one CPU's thread has borrowed, linked through their `link` words from `prefilled` of
 * its pcs. The thread pops from them without a lock, so nobody else may touch them while it lives; the list is for
 * whoever reaps it, and for validate.
 *
 *  B1  A sheaf is linked after it left the place it was taken from, and unlinked before it gets another: what is on the
 *      list is nowhere else, wherever the thread died. In between it is the CPU's sheaf in hand.
 *  B2  One store links it and one unlinks it, so the list is whole at any moment.
 *  B3  Its size word covers only objects that are nowhere else: it grows after they were taken from the slabs, and a
 *      sheaf is unlinked before its objects are flushed. The reaper may flush what it finds.
 *  B4  An allocation marks the object before it shrinks the size word: a thread that dies between the two leaves an
 *      object that is in a sheaf and marked, which the reaper clears; the other order would lose it.
 */
import { Pcs, type PcsPtr } from '../cpu/index.js';
import type { Words } from '../struct/index.js';
import { Sheaf, type SheafPtr } from './sheaf.js';

const { prefilled: PREFILLED } = Pcs;
const { link: LINK, node: CAPACITY } = Sheaf;

/** How many objects a borrowed sheaf can hold. */
export function prefilledCapacity(m: Words, sheaf: SheafPtr): number {
  return m[sheaf + CAPACITY]!;
}

/** A sheaf that is in hand becomes one that is borrowed. */
export function linkPrefilled(m: Words, pcs: PcsPtr, sheaf: SheafPtr, capacity: number): void {
  m[sheaf + CAPACITY] = capacity;
  m[sheaf + LINK] = m[pcs + PREFILLED]!;
  m[pcs + PREFILLED] = sheaf;
}

/** A borrowed sheaf is in hand again. */
export function unlinkPrefilled(m: Words, pcs: PcsPtr, sheaf: SheafPtr): void {
  let at = pcs + PREFILLED;
  while (m[at] !== sheaf) at = m[at]! + LINK;
  m[at] = m[sheaf + LINK]!;
  m[sheaf + LINK] = 0;
  m[sheaf + CAPACITY] = 0;
}

/** What a CPU's thread has borrowed, the latest first; ends where the list bites its tail. */
export function prefilledSheaves(m: Words, pcs: PcsPtr): SheafPtr[] {
  const found = new Set<SheafPtr>();
  for (
    let sheaf = m[pcs + PREFILLED] as SheafPtr;
    sheaf !== 0 && !found.has(sheaf);
    sheaf = m[sheaf + LINK] as SheafPtr
  ) {
    found.add(sheaf);
  }
  return [...found];
}
