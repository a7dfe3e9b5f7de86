/** What destructors give to RCU while their thread goes offline runs, or is known to be lost: no barrier waits for it. */
import { describe, expect, it, vi } from 'vitest';
import type { Arena, KmemCache } from '#src/index.js';
import { allocMany, boot, expectSound, freeMany, secondCpu } from '../cache/support/arena.js';
import { type Book, keepBook } from '../ctor/support.js';

describe('RCU in destructors that run in offline()', () => {
  const setup = (): { arena: Arena; book: Book; other: Arena; theirs: KmemCache } => {
    const arena = boot({ maxCaches: 30 });
    const book = keepBook({ size: 512 });
    arena.createCache(book.defined).minPartial = 0;
    arena.rcu.limitMs = 300;
    const other = secondCpu(arena);
    return { arena, book, other, theirs: other.openCache(book.defined) };
  };
  /** Two slabs that only the sheaves of CPU 1 keep alive. */
  const keepInSheaves = (theirs: KmemCache): void =>
    freeMany(theirs, allocMany(theirs, 2 * theirs.objsPerSlab));

  it('a callback runs before the thread is gone', () => {
    const { arena, book, other, theirs } = setup();
    keepInSheaves(theirs);
    let given = 0;
    let ran = 0;
    book.within = (what) => {
      if (what === 'ctor') return;
      given++;
      other.rcu.call(() => ran++);
    };
    other.offline();
    expect(given).toBeGreaterThan(0);
    expect(ran).toBe(given);
    arena.rcu.barrier();
    expectSound(arena);
  });

  it('one that frees what is destructed then, and gives another, too', () => {
    const { arena, book, other, theirs } = setup();
    const kept = allocMany(theirs, 2 * theirs.objsPerSlab);
    keepInSheaves(theirs);
    const order: string[] = [];
    book.within = (what) => {
      if (what === 'ctor' || order.length >= 4) return;
      order.push('given');
      other.rcu.call(() => {
        order.push('ran');
        freeMany(theirs, kept.splice(0));
      });
    };
    other.offline();
    expect(kept).toEqual([]);
    expect(order.filter((what) => what === 'ran').length).toBe(
      order.filter((what) => what === 'given').length,
    );
    arena.rcu.barrier();
    expectSound(arena);
  });

  it('what a destructor gives to kfree_rcu is free', () => {
    const { arena, book, other, theirs } = setup();
    arena.createCache('plain', { size: 64, layer: 'none' });
    const theirPlain = other.openCache('plain');
    const owned = allocMany(theirPlain, 3);
    keepInSheaves(theirs);
    book.within = (what) => {
      const p = what === 'dtor' ? owned.pop() : undefined;
      if (p !== undefined) theirPlain.freeRcuNolock(p, 8);
    };
    other.offline();
    expect(owned).toEqual([]);
    expect(arena.readAttribute('plain', 'objects')).toBe('0');
    expectSound(arena);
  });

  it('one that comes too late is lost, and said to be', () => {
    const { arena, other } = setup();
    const warn = vi.spyOn(console, 'warn').mockReturnValue();
    const callback = vi.fn();
    const { leaveCpu } = other.percpu;
    other.percpu.leaveCpu = () => {
      leaveCpu.call(other.percpu);
      other.rcu.call(callback);
    };
    other.offline();
    expect(warn.mock.calls.join()).toMatch(/^1 RCU callbacks .* lost/);
    warn.mockRestore();
    arena.rcu.barrier();
    expect(callback).not.toHaveBeenCalled();
    secondCpu(arena).offline();
    expectSound(arena);
  });
});
