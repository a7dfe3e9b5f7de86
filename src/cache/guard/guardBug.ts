/** What can be wrong with a guarded object, and the search for bytes that are not what they must be. */
import type { Views } from '../../cpu/index.js';

/** Who allocated or freed a guarded object, as words of its slot. */
export interface GuardTrack {
  stack: number;
  cpu: number;
  thread: number;
  tid: number;
  age: number;
}

/** One thing that is wrong with a guarded object, for a report. */
export interface GuardBug {
  /** As KFENCE names it. */
  what: 'out-of-bounds write' | 'use-after-free write' | 'memory corruption' | 'invalid free';
  object: number;
  bytes: number;
  allocated?: GuardTrack;
  freed?: GuardTrack;
  damage?: { area: string; from: number; to: number; expected: number; found: number };
}

export interface Damage {
  what: GuardBug['what'];
  from: number;
  to: number;
  expected: number;
  found: number;
}

/** From the first byte of `start` to `end` that is another to behind the last; undefined when all are as expected. */
export function damageIn(
  { m, u8 }: Views,
  what: GuardBug['what'],
  start: number,
  end: number,
  expected: number,
): Damage | undefined {
  const word = Math.imul(expected, 0x01010101);
  let from = start;
  while (from < end) {
    if ((from & 3) === 0 && from + 4 <= end && m[from >> 2] === word) from += 4;
    else if (u8[from] === expected) from++;
    else break;
  }
  if (from === end) return undefined;
  let to = end;
  while (u8[to - 1] === expected) to--;
  return { what, from, to, expected, found: u8[from]! };
}
