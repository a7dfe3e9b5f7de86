/**
 * BigInts and Symbols where a number belongs. What is not hot names them; a fast path has no room for the question, and V8
 * throws its TypeError at the first operator: in either case nothing has changed, and what was allocated can be freed.
 */
import { describe, expect, it } from 'vitest';
import { type Arena, GranaryError, type KmemCache } from '#src/index.js';
import { CHECK_LEVELS, LAYERS, LOCK_POLICIES } from '#src/struct/index.js';
import { boot, expectSound, expectUnchanged, MiB, secondCpu } from './support/arena.js';

const SHAPES = LAYERS.flatMap((layer) =>
  LOCK_POLICIES.flatMap((lockPolicy) => CHECK_LEVELS.map((check) => ({ layer, lockPolicy, check }))),
);
const VALUES: unknown[] = [1n, -1n, 2n ** 64n, Symbol('p'), Symbol.iterator];

type Call = (v: never, arena: Arena, cache: KmemCache) => unknown;

const HOT: Record<string, Call> = {
  'cache.alloc': (v, _, cache) => cache.alloc(v),
  'cache.free': (v, _, cache) => cache.free(v),
  'cache.freeRcu': (v, _, cache) => cache.freeRcu(v),
  'cache.allocBulk': (v, _, cache) => cache.allocBulk(new Int32Array(4), v),
  'cache.allocBulk, flags': (v, _, cache) => cache.allocBulk(new Int32Array(4), 2, v),
  'cache.freeBulk': (v, _, cache) => cache.freeBulk(new Int32Array(4), v),
  'arena.kmalloc': (v, arena) => arena.kmalloc(v),
  'arena.kmalloc, flags': (v, arena) => arena.kmalloc(64, v),
  'arena.kzalloc': (v, arena) => arena.kzalloc(v),
  'arena.kfree': (v, arena) => arena.kfree(v),
};

/** With the words of the error. */
const COLD: Record<string, [Call, RegExp]> = {
  'arena.ksize': [(v, arena) => arena.ksize(v), /is not an address of the heap$/],
  'arena.krealloc': [(v, arena) => arena.krealloc(v, 10), /is not an address of the heap$/],
  'arena.krealloc, size': [
    (v, arena) => arena.krealloc(arena.kmalloc(64), v),
    /^size is .*; it must be a number$/,
  ],
  'arena.kfreeRcu': [(v, arena) => arena.kfreeRcu(v), /is not an address of the heap$/],
  'arena.kfreeNolock': [(v, arena) => arena.kfreeNolock(v), /is not an address of the heap$/],
  'arena.kmallocNolock': [(v, arena) => arena.kmallocNolock(v), /^size is .*; it must be a number$/],
  'arena.allocPages': [(v, arena) => arena.allocPages(v), /^order is .*; it must be a number$/],
  'arena.freePages': [(v, arena) => arena.freePages(v, 0), /is not an address of the heap$/],
  'cache.prefill': [(v, _, cache) => cache.prefill(v), /^n is .*; it must be a number$/],
  'cache.allocNode': [(v, _, cache) => cache.allocNode(v), /^node is .*; it must be a number$/],
};

function caught(action: () => unknown): Error {
  try {
    action();
  } catch (error) {
    return error as Error;
  }
  throw new Error('it did not throw');
}

describe.each(SHAPES)('layer $layer, policy $lockPolicy, check $check', (shape) => {
  const arena = boot({ bytes: 2 * MiB, maxCaches: 24, ...shape });
  const cache = arena.createCache('victim', { size: 64 });
  const held = [cache.alloc(), arena.kmalloc(100)] as const;

  it('throws a typed error, changes nothing, and lets go of every lock', () => {
    for (const [name, call] of Object.entries(HOT)) {
      for (const value of VALUES) {
        const refused = (): void => {
          const error = caught(() => call(value as never, arena, cache));
          const isTyped = [TypeError, RangeError, GranaryError].some((type) => error instanceof type);
          expect(isTyped, `${name}(${String(value)}): ${error}`).toBe(true);
        };
        // With check 'none' a call may count itself before it looks at what it was given.
        if (shape.check === 'none') refused();
        else expectUnchanged(arena, refused);
      }
    }
    arena.endTurn();
    expectSound(arena);
    const other = secondCpu(arena);
    const p = other.openCache('victim').alloc();
    cache.free(p);
    other.openCache('victim').free(held[0]);
    other.kfree(held[1]);
    other.endTurn();
    arena.endTurn();
    expectSound(arena);
    other.offline();
    expect(cache.destroy()).toMatchObject({ leaked: 0 });
  });
});

describe('what is not hot', () => {
  const arena = boot({ bytes: 4 * MiB });
  const cache = arena.createCache('victim', { size: 64 });

  it.each(Object.entries(COLD))('%s says what it was given', (_, [call, message]) => {
    for (const value of VALUES) {
      const { message: said } = caught(() => call(value as never, arena, cache));
      expect(said).toMatch(message);
      expect(said).toContain(typeof value === 'bigint' ? `${value}n` : String(value));
    }
    arena.endTurn();
    expectSound(arena);
  });
});
