/** A cache whose constructors and destructors keep a book, and may be told to fail. */
import { expect } from 'vitest';
import {
  type Arena,
  type CacheDefinition,
  type DefinedCache,
  defineCache,
  type KmemCache,
  type SlabObjects,
} from '#src/index.js';

let names = 0;
/** A name that this thread has not defined yet. */
export const freshName = (): string => `thing-${++names}`;

export const MAGIC = 0x5eed_0001;

export interface Book {
  readonly defined: DefinedCache;
  /** Objects that are constructed now. */
  readonly alive: Set<number>;
  /** In the order in which they were constructed and destructed. */
  readonly constructed: number[];
  readonly destructed: number[];
  /** What the constructors were given. */
  readonly gfps: number[];
  /** Fails the constructor of which this says so; the count starts at 0 with each slab it is asked for. */
  fail: (nth: number, p: number) => unknown;
  /** Runs within each constructor and destructor. */
  within: (what: 'ctor' | 'dtor', p: number, arena: Arena) => void;
  /** Constructors called so far. */
  calls: number;
}

/** How the functions are given: one object a call, or one slab. */
export type Form = 'object' | 'slab';

/** An object is constructed when its first word is MAGIC and its second its own address. */
export function keepBook(options: Partial<CacheDefinition<Arena>> = {}, form: Form = 'object'): Book {
  const construct = (p: number, arena: Arena, gfp: number): number => {
    book.gfps.push(gfp);
    book.within('ctor', p, arena);
    const failed = book.fail(book.calls++, p);
    if (failed !== undefined && failed !== 0) return failed as number;
    if (book.alive.has(p)) expect.fail(`0x${p.toString(16)} is constructed twice`);
    book.alive.add(p);
    book.constructed.push(p);
    arena.i32[p >> 2] = MAGIC;
    arena.i32[(p >> 2) + 1] = p;
    return 0;
  };
  const destruct = (p: number, arena: Arena): void => {
    if (!book.alive.delete(p)) expect.fail(`0x${p.toString(16)} is destructed, and was not constructed`);
    expectConstructed(arena, [p]);
    book.destructed.push(p);
    arena.i32[p >> 2] = 0;
    book.within('dtor', p, arena);
  };
  const functions: Partial<CacheDefinition<Arena>> =
    form === 'object'
      ? { ctor: construct, dtor: destruct }
      : {
          ctorSlab(objects: SlabObjects, arena: Arena, gfp: number) {
            for (let p = objects.next(); p !== 0; p = objects.next()) {
              const failed = construct(p, arena, gfp);
              if (failed !== 0) return failed;
            }
            return 0;
          },
          dtorSlab(objects: SlabObjects, arena: Arena) {
            for (let p = objects.next(); p !== 0; p = objects.next()) destruct(p, arena);
          },
        };
  const book: Book = {
    defined: defineCache(freshName(), { size: 64, ...functions, ...options }),
    alive: new Set(),
    constructed: [],
    destructed: [],
    gfps: [],
    fail: () => 0,
    within: () => {},
    calls: 0,
  };
  return book;
}

/** The state that the constructor left, wherever the objects have been since. */
export function expectConstructed(arena: Arena, objects: Iterable<number>): void {
  for (const p of objects) {
    const [magic, self] = [arena.i32[p >> 2], arena.i32[(p >> 2) + 1]];
    if (magic !== MAGIC || self !== p) expect.fail(`0x${p.toString(16)} has ${magic} and ${self} in it`);
  }
}

/** After destroy: each constructed object was destructed exactly once. */
export function expectSettled(book: Book): void {
  expect([...book.alive]).toEqual([]);
  expect(book.destructed.toSorted((a, b) => a - b)).toEqual(book.constructed.toSorted((a, b) => a - b));
}

/** Pages that the cache has, in slabs. */
export const slabsOf = (arena: Arena, cache: KmemCache): number =>
  arena.cacheInfo().find(({ name }) => name === cache.name)!.slabs;

/** A cache that no worker defines. */
export function defineStranger(): { defined: DefinedCache; destructed: number[] } {
  const destructed: number[] = [];
  const defined = defineCache(freshName(), {
    size: 500,
    ctor: () => 0,
    dtor: (p) => void destructed.push(p),
  });
  return { defined, destructed };
}
