/** Constructors that fail and destructors that throw: what is undone, and who is told. */
import { afterEach, describe, expect, it, vi } from 'vitest';
import {
  __GFP_NOFAIL,
  __GFP_NOWARN,
  type Arena,
  ConstructorError,
  defineCache,
  GFP_KERNEL,
  type KmemCache,
  type Layer,
  type LockPolicy,
  OutOfMemoryError,
} from '#src/index.js';
import { boot, expectSound, footprint, freeMany, pagesOf } from '../cache/support/arena.js';
import {
  type Book,
  expectConstructed,
  expectSettled,
  type Form,
  freshName,
  keepBook,
  slabsOf,
} from './support.js';

afterEach(() => void vi.restoreAllMocks());

const LAYERS: Layer[] = ['sheaves', 'percpu-array', 'cpu-slab', 'none'];
const FORMS: Form[] = ['object', 'slab'];
/** With either way to build a freelist, objects are constructed in the order of their addresses. */
const WAYS: { lockPolicy: LockPolicy; form: Form; refinements: object }[] = [
  { lockPolicy: 'turn', form: 'object', refinements: {} },
  { lockPolicy: 'op', form: 'object', refinements: { lazyFreelist: false, returnFreelist: false } },
  { lockPolicy: 'turn', form: 'slab', refinements: { lazyFreelist: false, batchDetach: false } },
];
const MATRIX = LAYERS.flatMap((layer) => WAYS.map((way) => ({ layer, ...way })));

/** Fails the constructor of object `at` of each slab. */
function failAt(book: Book, cache: KmemCache, at: number, how: () => unknown = () => 12): void {
  const bytes = 4096 << cache.order; // as aligned as it is large
  book.fail = (_nth, p) => ((p % bytes) / cache.size === at ? how() : 0);
}

function usedAfter(arena: Arena, cache: KmemCache, action: () => void): void {
  action();
  cache.shrink();
  expect(slabsOf(arena, cache)).toBe(0);
}

describe.each(MATRIX)(
  'a constructor that fails: $layer, $lockPolicy, by $form, $refinements',
  ({ layer, lockPolicy, form, refinements }) => {
    it('at any object of a slab has the objects before it destructed, once each, and the pages given back', () => {
      const arena = boot({ lockPolicy, refinements, lockdep: false });
      const book = keepBook({ layer, size: 500 }, form);
      const cache = arena.createCache(book.defined);
      const before = footprint(arena);
      for (let at = 0; at < cache.objsPerSlab; at++) {
        failAt(book, cache, at);
        book.constructed.length = book.destructed.length = 0;
        usedAfter(arena, cache, () => {
          expect(cache.alloc(GFP_KERNEL | __GFP_NOWARN)).toBe(0);
          expect(cache.allocBulk(new Int32Array(5), 5, GFP_KERNEL | __GFP_NOWARN)).toBe(false);
          expect(cache.prefill(3, GFP_KERNEL | __GFP_NOWARN)).toBeNull();
        });
        expectSettled(book);
        expect(book.constructed.length % Math.max(at, 1)).toBe(0);
      }
      expect(footprint(arena)).toEqual(before);
      expectSound(arena);
      book.fail = () => 0;
      cache.free(cache.alloc());
      cache.destroy();
      expectSettled(book);
    });

    it('leaves objects that were handed out before as they are', () => {
      const arena = boot({ lockPolicy, refinements, lockdep: false });
      const book = keepBook({ layer, size: 500 }, form);
      const cache = arena.createCache(book.defined);
      const held: number[] = [];
      for (let round = 0; round < 600; round++) {
        // Every third slab fails at its fourth object.
        book.fail = (nth) =>
          Math.floor(nth / cache.objsPerSlab) % 3 === 2 && nth % cache.objsPerSlab === 3 ? 5 : 0;
        const p = cache.alloc(GFP_KERNEL | __GFP_NOWARN);
        if (p !== 0) held.push(p);
        else book.calls += cache.objsPerSlab;
      }
      expect(held.length).toBeGreaterThan(300);
      expect(book.destructed.length).toBeGreaterThan(0);
      expectConstructed(arena, held);
      expect(held.every((p) => book.alive.has(p))).toBe(true);
      expect(new Set(held).size).toBe(held.length);
      book.fail = () => 0;
      freeMany(cache, held);
      cache.destroy();
      expectSettled(book);
      expectSound(arena);
    });

    it('by throwing makes every way to allocate throw, with the cause', () => {
      const arena = boot({ lockPolicy, refinements, lockdep: false });
      const book = keepBook({ layer }, form);
      const cache = arena.createCache(book.defined);
      const before = footprint(arena);
      const cause = new Error('the pool is empty');
      failAt(book, cache, 2, () => {
        throw cause;
      });
      const ways = [
        () => cache.alloc(),
        () => cache.allocNode(0),
        () => cache.allocOrThrow(),
        () => cache.allocBulk(new Int32Array(3), 3),
        () => cache.prefill(2),
        () => cache.alloc(GFP_KERNEL | __GFP_NOFAIL),
      ];
      for (const way of ways) {
        const thrown = caught(way);
        expect(thrown).toBeInstanceOf(ConstructorError);
        expect(thrown.cause).toBe(cause);
        expect(thrown.message).toMatch(
          /the constructor of thing-\d+ failed at 0x[0-9a-f]+: it threw Error: the pool is empty/,
        );
      }
      expectSettled(book);
      expect(footprint(arena)).toEqual(before);
      book.fail = () => 0;
      cache.free(cache.alloc());
      expect(cache.destroy().leaked).toBe(0);
      expectSound(arena);
    });
  },
);

function caught(action: () => unknown): ConstructorError {
  try {
    action();
  } catch (error) {
    return error as ConstructorError;
  }
  throw new Error('nothing was thrown');
}

describe('a constructor', () => {
  it('that returns a number fails as out of memory, and the report says that it was the constructor', () => {
    const arena = boot();
    const book = keepBook();
    const cache = arena.createCache(book.defined);
    book.fail = () => 28;
    expect(cache.alloc()).toBe(0);
    expect(arena.lastOom).toMatch(/the constructor of thing-\d+ failed at 0x[0-9a-f]+: it returned 28/);
    expect(() => cache.allocOrThrow()).toThrow(OutOfMemoryError);
  });

  it('that fails once costs its caller nothing but the second try', () => {
    const arena = boot();
    const book = keepBook();
    const cache = arena.createCache(book.defined);
    book.fail = (nth) => (nth === 5 ? 1 : 0);
    const p = cache.alloc();
    expect(p).not.toBe(0);
    expect(book.destructed).toHaveLength(5);
    cache.free(p);
    cache.destroy();
    expectSettled(book);
  });

  it('is asked again under __GFP_NOFAIL until it succeeds', () => {
    const arena = boot();
    const book = keepBook();
    const cache = arena.createCache(book.defined);
    book.fail = (nth) => (nth < 20 ? 1 : 0);
    expect(cache.alloc(GFP_KERNEL | __GFP_NOFAIL)).not.toBe(0);
    expect(book.calls).toBeGreaterThan(20);
    expectSound(arena);
  });

  it('does not take the blame when there are no pages', () => {
    const arena = boot();
    const book = keepBook();
    const cache = arena.createCache(book.defined);
    book.fail = () => {
      throw new Error('once');
    };
    expect(() => cache.alloc()).toThrow(ConstructorError);
    pagesOf(arena).failEvery = 1;
    expect(cache.alloc()).toBe(0);
    pagesOf(arena).failEvery = 0;
  });

  it('that returns anything but a number has failed: a promise, for one', () => {
    const arena = boot();
    const cache = arena.createCache(defineCache(freshName(), { size: 8, ctor: (async () => {}) as never }));
    const thrown = caught(() => cache.alloc());
    expect((thrown.cause as Error).message).toMatch(/returned a Promise; it must return 0 or nothing/);
    expectSound(arena);
  });

  it('that needs a new slab of its own cache gets none, instead of going on for ever', () => {
    const arena = boot({ lockdep: false });
    const book = keepBook({ layer: 'none' });
    const cache = arena.createCache(book.defined);
    const got: number[] = [];
    book.within = (what) => {
      if (what === 'ctor') got.push(cache.alloc(GFP_KERNEL | __GFP_NOWARN));
    };
    const p = cache.alloc();
    expect(p).not.toBe(0);
    expect(got).toEqual(got.map(() => 0));
    expectSound(arena);
  });

  it('by slab that leaves objects out has failed, and those it took are destructed', () => {
    const arena = boot();
    const seen: number[] = [];
    const ended: number[] = [];
    const lazy = defineCache(freshName(), {
      size: 64,
      ctorSlab(objects) {
        while (objects.count > 10) seen.push(objects.next());
      },
      dtor: (p) => void ended.push(p),
    });
    const cache = arena.createCache(lazy);
    expect(cache.alloc()).toBe(0);
    expect(arena.lastOom).toMatch(/it left 10 objects of a slab/);
    // The last that it took may not be whole.
    const perSlab = cache.objsPerSlab - 10;
    expect(ended).toEqual(seen.filter((_, i) => i % perSlab !== perSlab - 1));
    expectSound(arena);
  });

  it('by slab that fails before it takes an object has nothing to undo', () => {
    const arena = boot();
    const dtor = vi.fn();
    const cache = arena.createCache(defineCache(freshName(), { size: 64, ctorSlab: () => 12, dtor }));
    expect(cache.alloc()).toBe(0);
    expect(dtor).not.toHaveBeenCalled();
    expectSound(arena);
  });
});

describe('a destructor that throws', () => {
  it.each(FORMS)('is reported, the other objects follow, and the pages go: by %s', (form) => {
    const arena = boot();
    const book = keepBook({}, form);
    const cache = arena.createCache(book.defined);
    const before = footprint(arena);
    cache.free(cache.alloc());
    const cause = new Error('no');
    let nth = 0;
    book.within = (what) => {
      if (what === 'dtor' && nth++ % 7 === 3) throw cause;
    };
    cache.shrink();
    expectSettled(book);
    expect(arena.callbackErrors.length).toBeGreaterThan(0);
    for (const { cache: name, address, what, cause: why } of arena.callbackErrors) {
      expect(name).toBe(cache.name);
      expect(book.constructed).toContain(address);
      expect(what).toMatch(/its destructor threw Error: no/);
      expect(why).toBe(cause);
    }
    expect(footprint(arena)).toEqual(before);
    expectSound(arena);
  });

  it('before it takes an object is not called for ever', () => {
    const arena = boot();
    const dtorSlab = vi.fn(() => {
      throw new Error('no');
    });
    const cache = arena.createCache(defineCache(freshName(), { size: 64, dtorSlab }));
    const before = footprint(arena);
    cache.free(cache.alloc());
    const slabs = slabsOf(arena, cache);
    cache.shrink();
    expect(dtorSlab).toHaveBeenCalledTimes(slabs);
    expect(footprint(arena)).toEqual(before);
  });
});
