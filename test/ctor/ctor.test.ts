/** Constructors and destructors: when they run, on what, and that their state lasts. */
import { describe, expect, it } from 'vitest';
import {
  __GFP_NOWARN,
  __GFP_ZERO,
  CacheDefinitionError,
  defineCache,
  GFP_KERNEL,
  GFP_NOWAIT,
  type Layer,
  type LockPolicy,
} from '#src/index.js';
import { allocMany, boot, expectSound, freeMany, inside, secondCpu } from '../cache/support/arena.js';
import { expectConstructed, expectSettled, type Form, freshName, keepBook, slabsOf } from './support.js';

const LAYERS: Layer[] = ['sheaves', 'percpu-array', 'cpu-slab', 'none'];
const POLICIES: LockPolicy[] = ['turn', 'op'];
const FORMS: Form[] = ['object', 'slab'];
const MATRIX = LAYERS.flatMap((layer) =>
  POLICIES.flatMap((lockPolicy) => FORMS.map((form) => ({ layer, lockPolicy, form }))),
);

describe.each(MATRIX)(
  'a cache with callbacks: $layer, $lockPolicy, by $form',
  ({ layer, lockPolicy, form }) => {
    it('constructs whole slabs before it hands out an object, with the gfp of the allocation', () => {
      const arena = boot({ lockPolicy });
      const book = keepBook({ layer }, form);
      const cache = arena.createCache(book.defined);
      const p = cache.alloc(GFP_NOWAIT | __GFP_NOWARN);
      expectConstructed(arena, [p]);
      expect(book.alive.size).toBe(slabsOf(arena, cache) * cache.objsPerSlab);
      expect(new Set(book.gfps.map((gfp) => gfp & GFP_KERNEL & ~GFP_NOWAIT))).toEqual(new Set([0]));
      cache.free(p);
      cache.destroy();
      expectSettled(book);
      expectSound(arena);
    });

    it('keeps what was constructed over free and allocation, single and in bulk', () => {
      const arena = boot({ lockPolicy });
      const book = keepBook({ layer }, form);
      const cache = arena.createCache(book.defined);
      for (let round = 0; round < 4; round++) {
        const some = allocMany(cache, 150);
        const out = new Int32Array(90);
        expect(cache.allocBulk(out, 90)).toBe(true);
        const sheaf = cache.prefill(10)!;
        const borrowed = [sheaf.alloc(), sheaf.alloc()];
        expectConstructed(arena, [...some, ...out, ...borrowed]);
        for (const p of some) arena.i32.fill(-1, (p + 8) >> 2, (p + 64) >> 2); // the rest is the user's
        cache.return(sheaf);
        freeMany(cache, [...some, ...borrowed]);
        cache.freeBulk(out, 90);
        if (round === 1) cache.shrink();
        expectConstructed(arena, book.alive);
      }
      cache.destroy();
      expectSettled(book);
      expectSound(arena);
    });

    it('destructs every object of a slab once when its pages go, and no other', () => {
      const arena = boot({ lockPolicy });
      const book = keepBook({ layer }, form);
      const cache = arena.createCache(book.defined);
      cache.minPartial = 0;
      const objects = allocMany(cache, 10 * cache.objsPerSlab);
      const kept = objects.filter((_, i) => i % (4 * cache.objsPerSlab) === 0);
      freeMany(
        cache,
        objects.filter((p) => !kept.includes(p)),
      );
      cache.shrink();
      expect(book.alive.size).toBe(slabsOf(arena, cache) * cache.objsPerSlab);
      expect(book.destructed.length).toBeGreaterThan(0);
      expectConstructed(arena, kept);
      freeMany(cache, kept);
      cache.shrink();
      expectSettled(book);
      cache.destroy();
      expectSound(arena);
    });
  },
);

describe.each(FORMS)('callbacks by %s', (form) => {
  it.each([{}, { lazyFreelist: false }, { lazyFreelist: false, batchDetach: false, returnFreelist: false }])(
    'see the objects in the order of addresses, whatever the order of the freelist is: %o',
    (refinements) => {
      const arena = boot({ refinements });
      const book = keepBook({}, form);
      const cache = arena.createCache(book.defined);
      allocMany(cache, 3 * cache.objsPerSlab);
      const { constructed } = book;
      for (let at = 0; at < constructed.length; at += cache.objsPerSlab) {
        const slab = constructed.slice(at, at + cache.objsPerSlab);
        expect(slab).toEqual(slab.map((_, i) => slab[0]! + i * cache.size));
      }
    },
  );
});

describe('callbacks', () => {
  it('may use the arena, this cache too, with nothing of this thread held', () => {
    const arena = boot({ lockdep: false });
    const other = arena.createCache('other', { size: 128 });
    const book = keepBook();
    const mine = new Map<number, number>();
    book.within = (what, p) => {
      expect(arena.cpu.locks.held).toBe(0);
      if (what === 'ctor') {
        const q = other.alloc();
        mine.set(p, q);
        const spare = cache.alloc(GFP_NOWAIT | __GFP_NOWARN); // has none but those that are constructed
        if (spare !== 0) cache.free(spare);
      } else {
        other.free(mine.get(p)!);
        mine.delete(p);
      }
    };
    const cache = arena.createCache(book.defined);
    freeMany(cache, allocMany(cache, 400));
    expect(mine.size).toBe(book.alive.size);
    cache.destroy();
    expectSettled(book);
    expect(mine.size).toBe(0);
    expect(other.destroy().leaked).toBe(0);
    expectSound(arena);
  });

  it('run with no pcs lock of this thread held', () => {
    const arena = boot({ lockdep: false }); // with it, idle sheaves are given up before each callback
    const one = arena.createCache('one', { size: 64 });
    const book = keepBook();
    const cache = arena.createCache(book.defined);
    const other = secondCpu(arena);
    let looked = 0;
    book.within = () => {
      looked++;
      // Another CPU gets every sheaf of ours by trylock, without asking.
      for (const each of [one, cache]) {
        const pcs = (each as unknown as { pcs: number }).pcs;
        expect(arena.i32[pcs], `${each.name} is locked`).toBe(0);
      }
      book.within = () => {};
    };
    const held = one.alloc();
    const p = cache.alloc();
    expect(looked).toBe(1);
    const rest = allocMany(cache, 300);
    one.free(held);
    cache.minPartial = 0;
    freeMany(cache, [p, ...rest]);
    book.within = () => {
      looked++;
      const pcs = (one as unknown as { pcs: number }).pcs;
      expect(arena.i32[pcs]).toBe(0);
      book.within = () => {};
    };
    one.free(one.alloc());
    cache.shrink();
    expect(looked).toBe(2);
    other.offline();
    expectSound(arena);
  });

  it('of a flush that keeps the pcs lock wait until the thread holds nothing', () => {
    const arena = boot({ barnFull: 1 });
    const book = keepBook({ size: 512 });
    const cache = arena.createCache(book.defined);
    cache.minPartial = 0;
    const objects = allocMany(cache, 400);
    let slabsFreedInTurn = 0;
    const before = book.destructed.length;
    for (const p of objects) {
      cache.free(p);
      slabsFreedInTurn +=
        cache.desc.objects > 0 && inside(arena).slabs.callbacks.hasWaiting(cache.desc) ? 1 : 0;
    }
    expect(slabsFreedInTurn).toBeGreaterThan(0);
    arena.endTurn();
    expect(inside(arena).slabs.callbacks.hasWaiting(cache.desc)).toBe(false);
    expect(book.destructed.length).toBeGreaterThan(before);
    expectSound(arena);
    cache.destroy();
    expectSettled(book);
  });

  it('of the constructor alone, or of the destructor alone, are enough', () => {
    const arena = boot();
    const counts = { ctor: 0, dtor: 0 };
    const made = defineCache(freshName(), { size: 32, ctor: () => void counts.ctor++ });
    const ended = defineCache(freshName(), { size: 32, dtor: () => void counts.dtor++ });
    for (const defined of [made, ended]) {
      const cache = arena.createCache(defined);
      cache.free(cache.alloc());
      counts.ctor -= slabsOf(arena, cache) * cache.objsPerSlab * (defined === made ? 1 : 0);
      counts.dtor -= slabsOf(arena, cache) * cache.objsPerSlab * (defined === ended ? 1 : 0);
      cache.destroy();
    }
    expect(counts).toEqual({ ctor: 0, dtor: 0 });
    expectSound(arena);
  });

  it('run when the last thread of a CPU leaves, and in the next thread that knows them if they could not', () => {
    const arena = boot();
    const book = keepBook();
    const cache = arena.createCache(book.defined);
    cache.minPartial = 0;
    const objects = allocMany(cache, 200);
    const other = secondCpu(arena);
    other.openCache(book.defined).freeBulk(Int32Array.from(objects), objects.length);
    other.offline();
    expect(book.destructed.length).toBeGreaterThan(0);
    cache.shrink();
    expectSettled(book);
    expectSound(arena);
  });

  it.each(['kernel', 'primary'] as const)('keep the cache out of merging, merge %s', (merge) => {
    const arena = boot({ merge });
    const shape = { size: 64 };
    const [first, second] = [keepBook(shape), keepBook(shape)].map(({ defined }) =>
      arena.createCache(defined),
    );
    const plain = arena.createCache('plain', { size: 72 });
    expect(new Set([first!, second!, plain].map(({ desc }) => desc.ptr)).size).toBe(3);
    arena.createCache('like-plain', { size: 72 });
    const aliases = arena.cacheInfo().map((info) => [info.name, info.aliases]);
    expect(aliases).toContainEqual(['plain', 1]);
    for (const { name } of [first!, second!]) expect(aliases).toContainEqual([name, 0]);
  });

  it('keep the free pointer out of the object', () => {
    const arena = boot();
    const cache = arena.createCache(keepBook().defined);
    expect(cache.desc.offset).toBeGreaterThanOrEqual(cache.objectSize);
    expect(cache.size).toBe(72);
  });

  it('leave the free pointer where freeptrOffset puts it, in a word of the object that they do not use', () => {
    const arena = boot();
    const book = keepBook({ freeptrOffset: 56 });
    const cache = arena.createCache(book.defined);
    expect({ size: cache.size, offset: cache.desc.offset }).toEqual({ size: 64, offset: 56 });
    freeMany(cache, allocMany(cache, 300));
    expectConstructed(arena, book.alive);
    cache.destroy();
    expectSettled(book);
    expect(() => arena.createCache('plain', { size: 64, freeptrOffset: 56 })).toThrow(
      /without SLAB_TYPESAFE_BY_RCU or a constructor/,
    );
  });
});

describe('cacheInfo', () => {
  it('names constructor and destructor, as sysfs does, and nothing where there are none', () => {
    const arena = boot();
    const makeIt = (): void => {};
    const endIt = (): void => {};
    const single = arena.createCache(defineCache(freshName(), { size: 8, ctor: makeIt, dtor: endIt }));
    const batch = arena.createCache(keepBook({}, 'slab').defined);
    const plain = arena.createCache('plain', { size: 8 });
    const of = (cache: { name: string }) => arena.cacheInfo().find(({ name }) => name === cache.name);
    expect(of(single)).toMatchObject({ ctor: 'makeIt', dtor: 'endIt' });
    expect(of(batch)).toMatchObject({ ctor: 'ctorSlab [slab]', dtor: 'dtorSlab [slab]' });
    expect(of(plain)).toMatchObject({ ctor: '', dtor: '' });
  });
});

describe('__GFP_ZERO on a cache with a constructor', () => {
  it.each(LAYERS)('is refused, and what was constructed stays: %s', (layer) => {
    const arena = boot();
    const book = keepBook({ layer });
    const cache = arena.createCache(book.defined);
    const zeroing = GFP_KERNEL | __GFP_ZERO;
    const out = new Int32Array(20);
    const calls = [
      () => cache.alloc(zeroing),
      () => cache.allocNode(0, zeroing),
      () => cache.allocBulk(out, 20, zeroing),
      () => cache.allocOrThrow(zeroing),
      () => sheaf.alloc(zeroing),
    ];
    cache.free(cache.alloc());
    const sheaf = cache.prefill(4)!;
    for (const call of [...calls, ...calls]) expect(call).toThrow(/__GFP_ZERO; cache .* has a constructor/);
    cache.return(sheaf);
    expectConstructed(arena, book.alive);
    expect(cache.destroy().leaked).toBe(0);
    expectSettled(book);
    expectSound(arena);
  });
});

describe('a definition', () => {
  it('says what is wrong with it', () => {
    const name = freshName();
    expect(() => defineCache(name, undefined as never)).toThrow(/definition is undefined/);
    expect(() => defineCache(name, { size: 8, ctor: 5 as never })).toThrow(
      /ctor of .* is 5; it must be a function/,
    );
    const both = { size: 8, ctor: () => 0, ctorSlab: () => 0 };
    expect(() => defineCache(name, both)).toThrow(/both ctor and ctorSlab/);
    defineCache(name, { size: 8 });
    expect(() => defineCache(name, { size: 8 })).toThrow(
      /is defined already on this thread, in .*ctor\.test\.ts/,
    );
    expect(() => defineCache('no spaces please', { size: 8 })).toThrow(/white space/);
  });

  it('is what a cache of its name is made of, and not options besides', () => {
    const arena = boot();
    const { defined } = keepBook();
    expect(() => arena.createCache(defined.name, { size: 64 })).toThrow(
      /it is defined in .*: pass what defineCache/,
    );
    const twice = arena.createCache as (d: typeof defined, o: object) => unknown;
    expect(() => twice.call(arena, defined, { size: 8 })).toThrow(/has them already/);
    const cache = arena.createCache(defined);
    expect(arena.openCache(defined)).toBe(cache);
    expect(arena.openCache(defined.name)).toBe(cache);
  });

  it('that this thread has not imported is asked for by name and module', () => {
    const arena = boot();
    const { defined } = keepBook();
    const cache = arena.createCache(defined);
    cache.desc satisfies object;
    const stranger = secondCpu(arena);
    const words = arena.i32;
    // As if another thread, with other modules, had made it: its name here is one that nobody defined.
    const at = cache.desc.ptr;
    const name = Buffer.from(words.buffer, at * 4, 400).indexOf(defined.name);
    Buffer.from(words.buffer).write('strange', at * 4 + name);
    const strange = `strange${defined.name.slice(7)}`;
    expect(() => stranger.openCache(strange)).toThrow(CacheDefinitionError);
    expect(() => stranger.openCache(strange)).toThrow(
      new RegExp(
        `cache ${strange}: its functions are not on this thread; import the module that calls defineCache.*ctor/support`,
      ),
    );
    stranger.offline();
  });
});
