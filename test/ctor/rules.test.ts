/** What destructors and constructors may do, as lockdep sees it; and what RCU readers of their objects rely on. */
import { describe, expect, it } from 'vitest';
import { Arena, ConstructorError, LockdepError, SLAB_TYPESAFE_BY_RCU } from '#src/index.js';
import { listLock, nodeOf } from '#src/slab/index.js';
import { LockClass } from '#src/sync/index.js';
import { allocMany, boot, expectSound, freeMany, MiB, secondCpu } from '../cache/support/arena.js';
import { expectConstructed, expectSettled, type Form, keepBook } from './support.js';

/** An arena that may have reports: boot's may not. */
function checked(): Arena {
  const arena = Arena.create({ bytes: 8 * MiB, cpus: 2, lockdep: true });
  arena.online({ cpu: 0 });
  return arena;
}

const FORMS: Form[] = ['object', 'slab'];

describe.each(FORMS)('lockdep, callbacks by %s', (form) => {
  it('lets a constructor allocate from other caches and a destructor give pages back', () => {
    const arena = boot({ lockdep: true });
    const book = keepBook({}, form);
    const pages = new Map<number, number>();
    book.within = (what, p) => {
      if (what === 'ctor') pages.set(p, arena.allocPages(0));
      else arena.freePages(pages.get(p)!, 0); // zone->lock is a leaf
    };
    const cache = arena.createCache(book.defined);
    freeMany(cache, allocMany(cache, 100));
    cache.destroy();
    expectSettled(book);
    expect(arena.callbackErrors).toEqual([]);
    expectSound(arena);
  });

  it('reports a constructor that allocates from its own cache, which fails', () => {
    const arena = checked();
    const book = keepBook({}, form);
    const cache = arena.createCache(book.defined);
    book.within = () => void cache.alloc();
    let thrown: unknown;
    try {
      cache.alloc();
    } catch (error) {
      thrown = error;
    }
    expect(thrown).toBeInstanceOf(ConstructorError);
    const { cause } = thrown as ConstructorError;
    expect(cause).toBeInstanceOf(LockdepError);
    expect((cause as LockdepError).message).toContain(
      `allocates from ${cache.name} within a ctor of ${cache.name}`,
    );
  });

  it('reports a destructor that frees into a cache, and the slab goes', () => {
    const arena = checked();
    const other = arena.createCache('other', { size: 64 });
    const held = allocMany(other, 2000);
    const book = keepBook({}, form);
    const cache = arena.createCache(book.defined);
    cache.free(cache.alloc());
    book.within = (what) => {
      if (what === 'dtor') other.free(held.pop()!);
    };
    cache.shrink();
    expectSettled(book);
    expect(arena.callbackErrors.length).toBeGreaterThan(0);
    for (const { cause } of arena.callbackErrors) {
      expect(cause).toBeInstanceOf(LockdepError);
      expect(String(cause)).toMatch(/frees into the cache in slot \d+ within the dtor of thing-\d+/);
    }
  });

  it('reports a destructor that takes a lock which is no leaf', () => {
    const arena = checked();
    const book = keepBook({}, form);
    const cache = arena.createCache(book.defined);
    cache.free(cache.alloc());
    const lock = listLock(nodeOf(arena.i32, arena.createCache('other', { size: 8 }).desc, 0));
    book.within = (what) => {
      if (what !== 'dtor') return;
      arena.cpu.locks.lock(lock, LockClass.ListLock);
      arena.cpu.locks.unlock(lock, LockClass.ListLock);
    };
    cache.shrink();
    expectSettled(book);
    expect(arena.callbackErrors.length).toBeGreaterThan(0);
    expect(String(arena.callbackErrors[0]!.cause)).toContain('which is no leaf, within the dtor of');
  });
});

describe.each(FORMS)('SLAB_TYPESAFE_BY_RCU, callbacks by %s', (form) => {
  it('keeps objects constructed until every reader is gone', () => {
    const arena = boot();
    const book = keepBook({ flags: SLAB_TYPESAFE_BY_RCU }, form);
    const cache = arena.createCache(book.defined);
    const reader = secondCpu(arena);
    const p = cache.alloc();
    reader.rcu.readLock();
    cache.free(p);
    cache.shrink();
    arena.endTurn();
    expect(book.destructed).toEqual([]);
    expectConstructed(arena, [p]);
    reader.rcu.readUnlock();
    reader.endTurn();
    arena.rcu.synchronize();
    cache.shrink();
    expectSettled(book);
    cache.destroy();
    reader.offline();
    expectSound(arena);
  });

  it('runs what is left at destroy', () => {
    const arena = boot();
    const book = keepBook({ flags: SLAB_TYPESAFE_BY_RCU }, form);
    const cache = arena.createCache(book.defined);
    freeMany(cache, allocMany(cache, 300));
    expect(cache.destroy().leaked).toBe(0);
    expectSettled(book);
    expectSound(arena);
  });
});

describe.each(FORMS)('a read section, callbacks by %s', (form) => {
  it.each(['turn', 'op'] as const)(
    'stays open while slabs are made and ended in it, policy %s',
    (lockPolicy) => {
      const arena = boot({ lockPolicy });
      const book = keepBook({ size: 500 }, form);
      const cache = arena.createCache(book.defined);
      cache.minPartial = 0;
      const { rcu } = arena;
      let inSection = 0;
      book.within = () => {
        if (rcu.depth > 0) inSection++;
      };
      rcu.readLock();
      for (let round = 0; round < 3; round++) freeMany(cache, allocMany(cache, 400));
      expect(rcu.depth).toBe(1);
      rcu.readUnlock();
      expect(inSection).toBeGreaterThan(400);
      expect(book.destructed.length).toBeGreaterThan(0);
      arena.endTurn();
      cache.destroy();
      expectSettled(book);
      expectSound(arena);
    },
  );
});
