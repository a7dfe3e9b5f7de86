/** A thread that dies at a known moment, in the thread of the test: the arena stays as that moment left it. */
import { expect } from 'vitest';
import type { Arena } from '#src/index.js';

class Killed extends Error {}

/** Runs `body`, which calls `die` where the thread is to end; what unwinding changes in the arena is taken back. */
export function dying(arena: Arena, body: (die: () => never) => void): void {
  let left: Uint8Array | undefined;
  const die = (): never => {
    left = arena.u8.slice();
    throw new Killed('the thread is gone');
  };
  try {
    body(die);
  } catch (error) {
    if (left === undefined) throw error;
  }
  expect(left, 'nobody died').toBeDefined();
  arena.u8.set(left!);
}
