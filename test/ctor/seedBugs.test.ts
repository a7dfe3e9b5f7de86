/**
 * The mistakes that can be read in the patches of seed 001, made on purpose: what each does to objects that a constructor
 * owns a part of, who notices, and the form without the mistake.
 */
import { describe, expect, it } from 'vitest';
import { __GFP_ZERO, type Arena, defineCache, GFP_KERNEL, type KmemCache, SlabBugError } from '#src/index.js';
import { Page, virtToPage } from '#src/page/index.js';
import { allocMany, boot, expectSound, freeMany } from '../cache/support/arena.js';
import { expectSettled, freshName, keepBook } from './support.js';

/** Like mm_struct: what the user sets comes first, what the constructor owns from here on. */
const CTOR_FIELDS = 48;
const CID = (p: number): number => (p + CTOR_FIELDS) >> 2;

/** An object that owns a page for life, as mm_struct owns its percpu areas. */
function mmCache(arena: Arena): { cache: KmemCache; pages: Set<number> } {
  const pages = new Set<number>();
  const defined = defineCache(freshName(), {
    size: 64,
    ctor(p, { i32 }, gfp) {
      const cid = arena.allocPages(0, gfp);
      if (cid === 0) return 12;
      pages.add(cid);
      i32[CID(p)] = cid;
      return 0;
    },
    dtor(p, { i32 }) {
      const cid = i32[CID(p)]!;
      arena.freePages(cid, 0);
      pages.delete(cid);
    },
  });
  return { cache: arena.createCache(defined), pages };
}

/** mm_init: charges what the object owns, which may fail. */
function mmInit(cache: KmemCache, charge: () => boolean, onFailure: (p: number) => void): number {
  const p = cache.alloc();
  if (charge()) return p;
  onFailure(p);
  cache.free(p);
  return 0;
}

describe('a failed initialisation', () => {
  it('that gives up what the constructor owns makes the destructor free it twice, which is refused and reported', () => {
    const arena = boot();
    const { cache } = mmCache(arena);
    const failed = mmInit(
      cache,
      () => false,
      (p) => arena.freePages(arena.i32[CID(p)]!, 0),
    );
    expect(failed).toBe(0);
    cache.shrink();
    expect(arena.callbackErrors).toHaveLength(1);
    expect(arena.callbackErrors[0]!.cause).toBeInstanceOf(SlabBugError);
    expect(String(arena.callbackErrors[0]!.cause)).toMatch(
      /no block starts at 0x[0-9a-f]+: it was freed already/,
    );
    expect(cache.destroy().leaked).toBe(0);
    expectSound(arena);
  });

  it('that leaves it alone loses nothing: the object goes back as the constructor made it', () => {
    const arena = boot();
    const { cache, pages } = mmCache(arena);
    const before = arena.meminfo().usedPages;
    for (let i = 0; i < 200; i++)
      mmInit(
        cache,
        () => false,
        () => {},
      );
    const mm = mmInit(
      cache,
      () => true,
      () => {},
    );
    expect(pages.has(arena.i32[CID(mm)]!)).toBe(true);
    cache.free(mm);
    cache.shrink();
    expect(pages.size).toBe(0);
    expect(arena.callbackErrors).toEqual([]);
    expect(arena.meminfo().usedPages).toBeLessThanOrEqual(before);
    cache.destroy();
    expectSound(arena);
  });
});

describe('a copy of an object, as dup_mm makes one', () => {
  const dup = (arena: Arena, from: number, to: number, bytes: number): void => {
    arena.u8.copyWithin(to, from, from + bytes);
  };

  it('as a whole has two objects own the same page, which the second destructor is refused', () => {
    const arena = boot();
    const { cache } = mmCache(arena);
    const [parent, child] = allocMany(cache, 2) as [number, number];
    dup(arena, parent, child, 64);
    freeMany(cache, [parent, child]);
    cache.shrink();
    expect(arena.callbackErrors).toHaveLength(1);
    expect(String(arena.callbackErrors[0]!.cause)).toMatch(/was freed already/);
    cache.destroy();
    expectSound(arena);
  });

  it('up to the fields of the constructor does not', () => {
    const arena = boot();
    const { cache, pages } = mmCache(arena);
    const [parent, child] = allocMany(cache, 2) as [number, number];
    arena.i32[parent >> 2] = 7;
    dup(arena, parent, child, CTOR_FIELDS);
    expect(arena.i32[child >> 2]).toBe(7);
    expect(arena.i32[CID(child)]).not.toBe(arena.i32[CID(parent)]);
    freeMany(cache, [parent, child]);
    cache.destroy();
    expect(pages.size).toBe(0);
    expect(arena.callbackErrors).toEqual([]);
    expectSound(arena);
  });
});

describe('an object that was zeroed memory before it came from a cache with a constructor, as tc_action was', () => {
  it('has what its last user left there, and cannot be zeroed by the allocation', () => {
    const arena = boot();
    const { cache, pages } = mmCache(arena);
    const p = cache.alloc();
    arena.i32[p >> 2] = 0xbad;
    cache.free(p);
    expect(() => cache.alloc(GFP_KERNEL | __GFP_ZERO)).toThrow(RangeError);
    const again = cache.alloc();
    expect(again).toBe(p);
    expect(arena.i32[again >> 2]).toBe(0xbad); // whoever relied on kzalloc must set every field
    arena.u8.fill(0, again, again + CTOR_FIELDS);
    expect(pages.has(arena.i32[CID(again)]!)).toBe(true);
    cache.free(again);
    cache.destroy();
    expect(pages.size).toBe(0);
  });

  it('and is smaller than its user thinks damages what the constructor of its neighbour made', () => {
    const arena = boot();
    const book = keepBook({ size: 64 }); // sizeof(tc_action), where ops->size was asked for
    const cache = arena.createCache(book.defined);
    const objects = allocMany(cache, cache.objsPerSlab).sort((a, b) => a - b);
    const p = objects.find((at) => objects.includes(at + cache.size))!;
    arena.u8.fill(0xee, p + 16, p + 80);
    freeMany(cache, objects);
    cache.shrink();
    // The book's destructor looks at what it destructs, as a destructor that frees a pointer would follow it.
    expect(arena.callbackErrors.map(({ address }) => address)).toEqual([p + cache.size]);
    expectSettledBut(book, p + cache.size);
  });
});

function expectSettledBut(book: ReturnType<typeof keepBook>, damaged: number): void {
  book.destructed.push(damaged);
  expectSettled(book);
}

describe('an object whose constructor failed', () => {
  it('leaves no trace: its pages are as free as before, and its address is refused', () => {
    const arena = boot();
    const book = keepBook();
    const cache = arena.createCache(book.defined);
    const tried: number[] = [];
    book.fail = (_, p) => {
      tried.push(p);
      return tried.length % 9 === 0 ? 12 : 0;
    };
    const used = arena.meminfo().usedPages;
    expect(cache.alloc()).toBe(0);
    cache.shrink();
    expect(arena.meminfo().usedPages).toBeLessThanOrEqual(used + 2); // sheaves
    for (const p of tried) {
      expect(arena.u8[arena.geometry.shadow + (p >> 3)]).toBe(0);
      const page = virtToPage(arena.geometry, p);
      if (arena.i32[page + Page.cache] === cache.desc.ptr) throw new Error('a page still names the cache');
      expect(() => cache.free(p)).toThrow(SlabBugError);
    }
    expectSound(arena);
  });
});
