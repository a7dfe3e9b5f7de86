/**
 * Restricted calls in the middle of everything that takes locks, at each moment of each lock class: whom they interrupt
 * must not notice, nothing may be handed out twice, and afterwards nothing is lost.
 */

import { describe, expect, it } from 'vitest';
import type { Arena, LockPolicy, Stats } from '#src/index.js';
import { LockClass, type LockClassId } from '#src/sync/index.js';
import { type LockMoment, MOMENTS } from '#workers/litmus/nolock.js';
import { boot, expectSound, footprint, inside, LONG, secondCpu } from '../cache/support/arena.js';
import { Book, inject, placeOf } from './support.js';

const MiB = 1 << 20;

type Scenario = (arena: Arena, book: Book) => void;

function allocate(arena: Arena, book: Book, size: number, n: number): number[] {
  return Array.from({ length: n }, () => book.take(arena.kmalloc(size), size)).filter((p) => p !== 0);
}

function release(arena: Arena, book: Book, objects: number[]): void {
  for (const p of objects) arena.kfree(book.give(p));
}

const SCENARIOS: Record<string, Scenario> = {
  'single allocations and frees': (arena, book) => {
    release(arena, book, allocate(arena, book, 64, 3));
    release(arena, book, allocate(arena, book, 2048, 3));
  },
  'refill from partial and new slabs': (arena, book) => {
    const held = allocate(arena, book, 2048, 70);
    release(arena, book, held.splice(0, 35));
    arena.openCache('kmalloc-2k').shrink();
    release(arena, book, [...held, ...allocate(arena, book, 2048, 40)]);
  },
  'flush, with the barn full': (arena, book) => {
    release(arena, book, allocate(arena, book, 2048, 320));
  },
  'exchanges with the barn': (arena, book) => {
    for (const size of [2048, 64]) {
      for (const n of [200, 150, 20, 150]) release(arena, book, allocate(arena, book, size, n));
    }
  },
  'bulk calls': (arena, book) => {
    const cache = arena.openCache('kmalloc-64');
    for (const n of [10, 150, 61]) {
      const out = new Int32Array(n);
      expect(cache.allocBulk(out, n)).toBe(true);
      for (const p of out) book.take(p, 64);
      for (const p of out) book.give(p);
      cache.freeBulk(out, n);
    }
  },
  'objects of the other node': (arena, book) => {
    const last = arena.geometry.nodes - 1;
    const held = Array.from({ length: 20 }, () => book.take(arena.kmalloc(300, 0, last), 300));
    release(arena, book, held);
  },
  'making, shrinking and destroying caches': (arena, book) => {
    const cache = arena.createCache('made', { size: 64 });
    const held = Array.from({ length: 70 }, () => book.take(cache.alloc(), 64));
    for (const p of held) cache.free(book.give(p));
    cache.shrink();
    arena.openCache('kmalloc-64').shrink();
    expect(cache.destroy()).toEqual({ cache: 'made', leaked: 0, objects: [] });
  },
  'pages and large blocks': (arena, book) => {
    const page = arena.allocPages(1);
    release(arena, book, allocate(arena, book, 20_000, 2));
    arena.freePages(page, 1);
    for (const p of allocate(arena, book, 20_000, 2)) arena.kfreeRcu(book.give(p));
    arena.kfreeRcuBarrier();
  },
  'the end of another CPU': (arena, book) => {
    const other = secondCpu(arena, 1);
    release(other, book, allocate(other, book, 64, 40));
    other.endTurn();
    arena.cpuDead(1);
  },
};

const CASES = (['turn', 'op'] as LockPolicy[]).flatMap((lockPolicy) =>
  [1, 2].flatMap((nodes) => Object.keys(SCENARIOS).map((name) => ({ lockPolicy, nodes, name }))),
);

/** Allocations minus frees over all kmalloc caches, by the counters. */
function outstanding(arena: Arena): number {
  const sum = (s: Stats): number => s.ALLOC_FASTPATH + s.ALLOC_SLOWPATH - s.FREE_FASTPATH - s.FREE_SLOWPATH;
  return arena
    .cacheNames()
    .filter((name) => name.startsWith('kmalloc-'))
    .reduce((total, name) => total + sum(arena.openCache(name).stats()), 0);
}

/** Restricted tries of the slabs that got nothing. */
function countFailedTries(arena: Arena): () => number {
  const { slabs } = inside(arena);
  const { allocNolock } = slabs;
  let failed = 0;
  slabs.allocNolock = (s) => {
    const p = allocNolock.call(slabs, s);
    if (p === 0) failed++;
    return p;
  };
  return () => failed;
}

interface Run {
  places: Map<string, number>;
  got: number;
  refused: number;
}

/** One scenario in a fresh arena, interrupted where `when` holds. */
function play(
  { lockPolicy, nodes, name }: (typeof CASES)[number],
  when: (cls: LockClassId, moment: LockMoment) => boolean,
  depth = 1,
): Run {
  const arena = boot({ cpus: 2, nodes, lockPolicy, bytes: 8 * MiB, maxCaches: 32 });
  const book = new Book(arena);
  const before = footprint(arena);
  const counted = outstanding(arena);
  const victims = [64, 2048]
    .flatMap((size) => allocate(arena, book, size, 40))
    .sort((a, b) => (a % 7) - (b % 7));
  const failedTries = countFailedTries(arena);
  const injection = inject(arena, book, when, { depth, victims });
  SCENARIOS[name]!(arena, book);
  injection.end();
  release(arena, book, victims);
  expect(injection.faults).toEqual([]);
  expect(book.faults).toEqual([]);
  expect(book.held.size).toBe(0);
  expect(arena.cpu.locks.held).toBe(0);
  expect(arena.cpu.depth).toBe(0);
  expectSound(arena);
  expect(footprint(arena)).toEqual(before);
  // A try that fails counts as a slow allocation too, as in the kernel.
  expect(outstanding(arena) - counted).toBe(failedTries());
  expectSound(arena);
  return injection;
}

/** Those that the workload takes; trees and percpu memory have others. */
const { SlabMutex, CpuSheaves, Barn, ListLock, Zone, Krcp } = LockClass;
const CLASSES: readonly LockClassId[] = [SlabMutex, CpuSheaves, Barn, ListLock, Zone, Krcp];

describe.each(CASES)('$name, policy $lockPolicy, $nodes nodes', (each) => {
  // Two nodes have every place that one has: the second pass over all moments is for the long form.
  it.skipIf(!LONG && each.nodes === 1)('interrupted at one moment of one lock class', () => {
    for (const cls of CLASSES) {
      for (const moment of MOMENTS) {
        const isTry = moment.endsWith('try');
        if (cls === LockClass.CpuSheaves ? moment !== 'after try' : isTry && cls !== LockClass.ListLock)
          continue;
        play(each, (at, when) => at === cls && when === moment);
      }
    }
  });

  it.skipIf(!LONG && each.nodes === 1)('interrupted everywhere, also in the interruption', () => {
    for (const stride of [1, 7]) {
      for (const depth of [1, 6]) {
        let seen = 0;
        play(each, () => seen++ % stride === 0, depth);
      }
    }
  });
});

describe.each(['turn', 'op'] as LockPolicy[])('the places, policy %s', (lockPolicy) => {
  it('are all met, and memory was got and refused there', () => {
    const places = new Map<string, number>();
    let [got, refused] = [0, 0];
    for (const each of CASES.filter((at) => at.lockPolicy === lockPolicy)) {
      // A few times at each place: the budget must do for all of them.
      const seen = new Map<string, number>();
      const isRare = (cls: LockClassId, moment: LockMoment): boolean => {
        const n = seen.get(placeOf(cls, moment)) ?? 0;
        seen.set(placeOf(cls, moment), n + 1);
        return n < 6;
      };
      const run = play(each, isRare, 2);
      for (const [place, n] of run.places) places.set(place, (places.get(place) ?? 0) + n);
      got += run.got;
      refused += run.refused;
    }
    const waited = CLASSES.flatMap((cls) =>
      (['before lock', 'pending', 'after lock', 'before unlock', 'after unlock'] as const).map((moment) =>
        placeOf(cls, moment),
      ),
    ).filter((place) => !place.startsWith('cpu_sheaves'));
    expect(waited.filter((place) => !places.has(place))).toEqual([]);
    expect([...places.keys()]).toContain('cpu_sheaves->lock, after try');
    expect([...places.keys()]).toContain('n->list_lock, after try');
    expect(got).toBeGreaterThan(500);
    expect(refused).toBeGreaterThan(0);
  });
});
