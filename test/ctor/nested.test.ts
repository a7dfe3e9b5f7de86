/** Constructors within constructors: each of their caches is kept from ending meanwhile, not the innermost alone. */
import { afterEach, beforeEach, describe, expect, it, vi } from 'vitest';
import { type Arena, CpuError, defineCache, GFP_NOWAIT, type KmemCache } from '#src/index.js';
import { boot, expectSound, secondCpu } from '../cache/support/arena.js';
import { dying } from '../cpu/support/dying.js';
import { freshName, keepBook } from './support.js';

interface Nest {
  arena: Arena;
  other: Arena;
  outer: KmemCache;
  inner: KmemCache;
  /** Runs in the first of the inner constructors. */
  within: (action: () => void) => void;
}

/** A cache whose constructor allocates from another cache with a constructor. */
function nest(hasDtor: boolean): Nest {
  const arena = boot();
  const book = keepBook();
  let action = (): void => {};
  const taken: number[] = [];
  book.within = (what) => {
    if (what !== 'ctor') return;
    const once = action;
    action = () => {};
    once();
  };
  const defined = defineCache(freshName(), {
    size: 2048,
    ctor: (_p: number, there: Arena) => {
      taken.push(there.openCache(book.defined).alloc(GFP_NOWAIT));
      return 0;
    },
    ...(hasDtor ? { dtor: (_p: number, there: Arena) => there.kfreeNolock(taken.pop()!) } : {}),
  });
  const outer = arena.createCache(defined);
  const inner = arena.createCache(book.defined);
  return {
    arena,
    other: secondCpu(arena),
    outer,
    inner,
    within: (next) => {
      action = next;
    },
  };
}

/** How long destroy waits: time passes faster than it does. */
beforeEach(() => {
  let now = performance.now();
  vi.spyOn(performance, 'now').mockImplementation(() => (now += 100));
});
afterEach(() => void vi.restoreAllMocks());

describe.each([
  ['with a destructor', true],
  ['without one', false],
])('the outer cache, %s', (_name, hasDtor) => {
  it('is not ended while its constructor waits for the inner one', () => {
    const { arena, other, outer, inner, within } = nest(hasDtor);
    const theirs = other.openCache(outer.name);
    let refused: unknown;
    within(() => {
      try {
        arena.openCache(outer.name).destroy();
      } catch (error) {
        refused = error;
      }
    });
    const p = theirs.alloc();
    expect(refused).toBeInstanceOf(CpuError);
    expect(String(refused)).toMatch(/thread slot 1 has been in a constructor or destructor of/);
    theirs.free(p);
    other.endTurn();
    expect(outer.destroy().leaked).toBe(0);
    inner.destroy();
    expectSound(arena);
  });

  it('is not ended before a thread that died in the inner one is reaped', () => {
    const { arena, other, outer, within } = nest(hasDtor);
    const theirs = other.openCache(outer.name);
    dying(arena, (die) => {
      within(die);
      theirs.alloc();
    });
    expect(() => outer.destroy()).toThrow(/thread slot 1 has been in a constructor or destructor of/);
    arena.cpuDead(1);
    expect(outer.destroy().leaked).toBe(0);
    expectSound(arena);
  });
});
