/** destroy while others read, and while others destroy: slab_mutex is free for everybody in the meantime. */
import { describe, expect, it } from 'vitest';
import {
  type Arena,
  type KmemCache,
  type MergeMode,
  RcuStallError,
  SLAB_TYPESAFE_BY_RCU,
  SlabBugError,
} from '#src/index.js';
import { LockClass } from '#src/sync/index.js';
import { dying } from '../cpu/support/dying.js';
import { cutIn } from '../slab/support.js';
import { allocMany, boot, expectSound, footprint, freeMany, secondCpu } from './support/arena.js';

/** The second time that destroy takes slab_mutex: the barrier for kfree_rcu is over. */
const IN_DESTROY = 2;

interface Race {
  arena: Arena;
  reader: Arena;
  other: Arena;
}

function setup(merge: MergeMode = 'off'): Race {
  const arena = boot({ cpus: 3, merge });
  const [reader, other] = [secondCpu(arena, 1), secondCpu(arena, 2)];
  arena.rcu.stallMs = 1;
  arena.rcu.limitMs = 5000;
  arena.rcu.onStall = () => {};
  other.cpu.locks.limitMs = 20;
  return { arena, reader, other };
}

/** A reader begins when destroy has begun. */
function readFrom({ arena, reader }: Race): void {
  cutIn(arena, LockClass.SlabMutex, 'after lock', IN_DESTROY, () => reader.rcu.readLock());
}

function endReading({ reader }: Race): void {
  reader.rcu.readUnlock();
  reader.endTurn();
}

/** The wait ends in vain after this. */
function giveUp(arena: Arena, after: () => void = () => {}): void {
  arena.rcu.onStall = () => {
    after();
    arena.rcu.limitMs = 0;
  };
}

/** A cache with slabs that nobody needs. */
function used(arena: Arena, flags = 0): KmemCache {
  const cache = arena.createCache('c', { size: 512, flags });
  cache.minPartial = 0;
  freeMany(cache, allocMany(cache, 300));
  return cache;
}

describe.each([
  ['an ordinary cache', 0],
  ['SLAB_TYPESAFE_BY_RCU', SLAB_TYPESAFE_BY_RCU],
])('destroy that waits for a reader, %s', (_name, flags) => {
  it('lets others make and end caches meanwhile', () => {
    const race = setup();
    const { arena, other } = race;
    const before = footprint(arena);
    const cache = used(arena, flags);
    let made = 0;
    arena.rcu.onStall = () => {
      for (const name of ['d', 'c']) {
        const theirs = other.createCache(name, { size: 64 });
        theirs.free(theirs.alloc());
        made++;
      }
      other.endTurn();
      endReading(race);
    };
    readFrom(race);
    expect(cache.destroy().leaked).toBe(0);
    expect(made).toBe(2);
    for (const name of ['d', 'c']) expect(arena.openCache(name).destroy().leaked).toBe(0);
    expect(footprint(arena)).toEqual(before);
    expectSound(arena);
  });

  it('ends when a reader that died is reaped by another thread', () => {
    const race = setup();
    const { arena, other } = race;
    const cache = used(arena, flags);
    arena.rcu.onStall = () => {
      expect(other.cpuDead(1).heldLocks).toEqual([]);
      other.endTurn();
    };
    readFrom(race);
    expect(cache.destroy().leaked).toBe(0);
    expect(arena.onlineThreads).toEqual([0, 2]);
    race.reader.rcu.readUnlock(); // it is not dead, only taken for it
    expectSound(arena);
  });

  it('can be tried again when that takes too long', () => {
    const race = setup();
    const { arena } = race;
    const before = footprint(arena);
    const cache = used(arena, flags);
    giveUp(arena);
    readFrom(race);
    expect(() => cache.destroy()).toThrow(RcuStallError);
    arena.rcu.limitMs = 5000;
    expect(arena.cacheNames()).toContain('c');
    endReading(race);
    freeMany(cache, allocMany(cache, 10));
    expect(cache.destroy().leaked).toBe(0);
    expect(footprint(arena)).toEqual(before);
    expectSound(arena);
  });
});

it('one who dies while he waits is reported, and all others go on', () => {
  const race = setup();
  const { arena, other, reader } = race;
  used(arena);
  arena.endTurn();
  const theirs = other.openCache('c');
  cutIn(other, LockClass.SlabMutex, 'after lock', IN_DESTROY, () => reader.rcu.readLock());
  other.rcu.stallMs = 1;
  dying(arena, (die) => {
    other.rcu.onStall = die;
    theirs.destroy();
  });
  const { heldLocks, notes } = arena.cpuDead(2);
  expect(heldLocks).toEqual([]);
  expect(notes).toEqual([
    expect.stringMatching(/^died while making, shrinking or ending caches, cache slot \d+$/),
  ]);
  endReading(race);
  expect(arena.cacheNames()).not.toContain('c');
  const next = arena.createCache('c', { size: 512 });
  freeMany(next, allocMany(next, 100));
  expect(next.destroy().leaked).toBe(0);
  expectSound(arena);
});

it('a name that somebody takes while destroy waits in vain is his', () => {
  const race = setup();
  const { arena, other } = race;
  const cache = used(arena);
  giveUp(arena, () => {
    other.createCache('c', { size: 64 });
    other.endTurn();
  });
  readFrom(race);
  expect(() => cache.destroy()).toThrow(RcuStallError);
  endReading(race);
  expect(arena.openCache('c').size).toBe(64);
  expect(() => cache.alloc()).toThrow(/destroyed/);
  expectSound(arena);
});

it('the last alias of a cache, too, can be tried again', () => {
  const race = setup('primary');
  const { arena } = race;
  const cache = used(arena);
  const alias = arena.createCache('alias', { size: 512 });
  expect(alias.primary).toBe(cache);
  expect(cache.destroy().users).toBe(1);
  giveUp(arena);
  readFrom(race);
  expect(() => alias.destroy()).toThrow(RcuStallError);
  arena.rcu.limitMs = 5000;
  endReading(race);
  alias.free(alias.alloc());
  expect(arena.cacheNames()).toContain('alias');
  expect(alias.destroy().leaked).toBe(0);
  expectSound(arena);
});

describe('a cache that another thread ends', () => {
  const calls: [string, (cache: KmemCache) => unknown, number][] = [
    ['destroy', (cache) => cache.destroy(), IN_DESTROY],
    ['shrink', (cache) => cache.shrink(), 1],
  ];

  it.each(calls)(
    'while %s waits for slab_mutex is not the one that has its place now',
    (_name, call, nth) => {
      const { arena, other } = setup();
      const cache = used(arena);
      let next: KmemCache | undefined;
      cutIn(arena, LockClass.SlabMutex, 'before lock', nth, () => {
        other.openCache('c').destroy();
        next = other.createCache('next', { size: 512 });
        expect(next.desc.slot).toBe(cache.desc.slot);
        freeMany(next, allocMany(next, 10));
        other.endTurn();
      });
      expect(() => call(cache)).toThrow(SlabBugError);
      expect(next!.isAlive).toBe(true);
      expect(next!.destroy().leaked).toBe(0);
      expectSound(arena);
    },
  );
});
