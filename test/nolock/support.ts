/** Restricted calls at every moment of every lock, with a book of what is allocated. */

import { ThreadRecord } from '#src/cpu/index.js';
import type { Arena } from '#src/index.js';
import { isOwnedBy, LOCK_CLASS_NAMES, type LockClassId, LockRecord } from '#src/sync/index.js';
import { interrupt, type LockMoment } from '#workers/litmus/nolock.js';

/** Addresses that somebody has, so that one that is handed out twice is found at once. */
export class Book {
  readonly held = new Map<number, number>();
  readonly faults: string[] = [];
  private readonly arena: Arena;

  constructor(arena: Arena) {
    this.arena = arena;
  }

  /** An address that was handed out; 0 is none. */
  take(p: number, size: number): number {
    if (p === 0) return 0;
    if (this.held.has(p)) this.faults.push(`0x${p.toString(16)} was handed out twice`);
    this.held.set(p, size);
    this.arena.i32[p >> 2] = p ^ size;
    this.arena.i32[(p + size - 4) >> 2] = p ^ size;
    return p;
  }

  give(p: number): number {
    const size = this.held.get(p);
    if (size === undefined) throw new Error(`0x${p.toString(16)} is not in the book`);
    this.held.delete(p);
    for (const at of [p, p + size - 4]) {
      if (this.arena.i32[at >> 2] !== (p ^ size)) this.faults.push(`0x${p.toString(16)} was written to`);
    }
    return p;
  }
}

/** What restricted calls met. */
export interface Injection {
  /** `class, moment` -> how often there. */
  places: Map<string, number>;
  got: number;
  refused: number;
  faults: string[];
  end(): void;
}

const SIZES = [8, 64, 100, 300, 2048, 8192];

export const placeOf = (cls: LockClassId, moment: LockMoment): string =>
  `${LOCK_CLASS_NAMES[cls]}, ${moment}`;

/** Every lock that this CPU owns must be named by its record, or its reaper would not find it. */
function unnamedLocks(arena: Arena, seen: Set<number>): number[] {
  const { i32: m, cpu } = arena;
  const record = cpu.record + ThreadRecord.locks;
  const named = new Set([m[record + LockRecord.pending]!]);
  for (let i = 0; i < cpu.locks.held; i++) named.add(m[record + LockRecord.held + i]!);
  return [...seen].filter((lock) => isOwnedBy(m[lock]!, cpu.locks.owner) && !named.has(lock));
}

/**
 * Allocates and frees without locks whenever this CPU passes a moment for which `when` holds, `depth` calls deep.
 * Objects of `victims` are freed too. At most `budget` times: what is deferred is drained under locks, where more is
 * deferred.
 */
export function inject(
  arena: Arena,
  book: Book,
  when: (cls: LockClassId, moment: LockMoment) => boolean,
  { depth = 1, victims = [] as number[], budget = 200 } = {},
): Injection {
  const injection: Injection = { places: new Map(), got: 0, refused: 0, faults: [], end: () => {} };
  const kept: number[] = [];
  const seen = new Set<number>();
  let inside = 0;
  let left = budget;
  let turn = 0;
  const run = (): void => {
    for (let i = 0; i < 3; i++) {
      const size = SIZES[turn++ % SIZES.length]!;
      const p = book.take(arena.kmallocNolock(size), size);
      if (p === 0) injection.refused++;
      else kept.push(p);
      if (p !== 0) injection.got++;
    }
    while (kept.length > 8) arena.kfreeNolock(book.give(kept.splice(turn % kept.length, 1)[0]!));
    const victim = victims.pop();
    if (victim !== undefined) arena.kfreeNolock(book.give(victim));
  };
  const callOff = interrupt(arena.cpu.locks, (cls, moment, at) => {
    if (moment !== 'after try' || LOCK_CLASS_NAMES[cls] !== 'cpu_sheaves->lock') seen.add(at);
    for (const lock of unnamedLocks(arena, seen))
      injection.faults.push(`${placeOf(cls, moment)}: ${lock} unnamed`);
    if (left === 0 || inside >= depth || !when(cls, moment)) return;
    left--;
    const place = placeOf(cls, moment);
    injection.places.set(place, (injection.places.get(place) ?? 0) + 1);
    inside++;
    try {
      run();
    } finally {
      inside--;
    }
  });
  injection.end = () => {
    callOff();
    for (const p of kept.splice(0)) arena.kfreeNolock(book.give(p));
  };
  return injection;
}
