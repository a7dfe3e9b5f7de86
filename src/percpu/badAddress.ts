import { describe, hexAddress, SlabBugError, type SlabBugKind } from '../struct/index.js';

/** What is wrong with a percpu address. */
export function badAddress(kind: SlabBugKind, p: unknown, what: string): SlabBugError {
  const hex = typeof p === 'number' ? hexAddress(p) : describe(p);
  return new SlabBugError(kind, 'percpu', typeof p === 'number' ? p : 0, `${hex} ${what}`);
}
