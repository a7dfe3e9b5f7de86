/** validate sees slabs whose callbacks are under way or due, and what is wrong with them. */
import { describe, expect, it } from 'vitest';
import { Page } from '#src/page/index.js';
import { KmemCacheStruct } from '#src/slab/index.js';
import { boot, expectSound, inside, secondCpu } from '../cache/support/arena.js';
import { keepBook } from './support.js';

/** A cache with slabs on its list: whoever put them there has left before it could run the destructors. */
function withSlabsDue() {
  const arena = boot();
  const book = keepBook({ size: 500 });
  const cache = arena.createCache(book.defined);
  cache.minPartial = 0;
  const objects = Array.from({ length: 100 }, () => cache.alloc());
  arena.endTurn();
  const stranger = secondCpu(arena);
  inside(stranger).slabs.callbacks.closed = true;
  for (const p of objects) stranger.kfree(p);
  stranger.offline();
  const list = cache.desc.ptr + KmemCacheStruct.dtorSlabs;
  return { arena, cache, book, list, first: arena.i32[list]! };
}

describe('slabs that wait for destructors', () => {
  it('are sound', () => {
    const { arena, cache, book, first } = withSlabsDue();
    expect(first).not.toBe(0);
    expectSound(arena);
    cache.destroy();
    expect(book.alive.size).toBe(0);
    expectSound(arena);
  });

  /** The word to spoil, relative to the page unless it is the list's head; its value; what is said then. */
  it.each([
    ['is on no list', 'list', 0, /awaits callbacks and is on no list/],
    ['leads nowhere', Page.next, 7, /out of the memmap/],
    ['is of another cache', Page.cache, 99, /is of the cache/],
    ['is at no object', Page.slabWord, 9 | (3 << 15), /are at 9 of 3/],
    ['has no mark', Page.flags, 2, /has flags/],
  ] as const)('are found when one %s', (_what, at, value, found) => {
    const { arena, list, first } = withSlabsDue();
    arena.i32[at === 'list' ? list : first + at] = value;
    const findings = arena.validate().filter(({ invariant }) => invariant === 'I24');
    expect(findings.map(({ what }) => what).join('\n')).toMatch(found);
  });

  it('are found when their list is a cycle', () => {
    const { arena, first } = withSlabsDue();
    arena.i32[first + Page.next] = first;
    const findings = arena.validate().filter(({ invariant }) => invariant === 'I24');
    expect(findings.map(({ what }) => what).join('\n')).toMatch(/is also on the list of/);
  });
});
