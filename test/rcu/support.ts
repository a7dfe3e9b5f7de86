import { expect } from 'vitest';
import type { Arena } from '#src/index.js';

/** Ends the thread that is in `body` where that calls `die`: memory stays as it is then, whatever unwinding does. */
export function dying(arena: Arena, body: (die: () => never) => void): void {
  let image: Uint8Array | undefined;
  const die = (): never => {
    image ??= arena.u8.slice();
    throw new Error('killed');
  };
  expect(() => body(die)).toThrow('killed');
  arena.u8.set(image!);
}
