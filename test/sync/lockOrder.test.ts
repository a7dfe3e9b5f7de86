/** The order of locks, seen while everything that takes locks runs: a class is taken only under lower levels. */

import { readFileSync } from 'node:fs';
import { describe, expect, it } from 'vitest';
import { Pcs, pcsOf } from '#src/cpu/index.js';
import type { Arena, LockPolicy } from '#src/index.js';
import { listLock, nodeOf } from '#src/slab/index.js';
import type { LockPtr } from '#src/sync/index.js';
import {
  LEAF_LOCK_CLASSES,
  LOCK_CLASS_LEVEL,
  LOCK_CLASS_NAMES,
  LOCK_CLASS_TAKES,
  LockClass,
  type LockClassId,
  NESTED_LOCK_CLASSES,
  SLEEPING_LOCK_CLASSES,
} from '#src/sync/lockClass.js';
import { allocMany, boot, expectSound, freeMany, pagesOf, secondCpu } from '../cache/support/arena.js';

interface Watch {
  /** `held -> taken` pairs, by name. */
  edges: Set<string>;
  /** Each lock that was taken out of order. */
  faults: string[];
}

/** Records the nesting of this CPU's locks. Cpu_sheaves locks are read from their words, where they live. */
function watch(arena: Arena): Watch {
  const { locks } = arena.cpu;
  const { lock, tryLock, unlock } = locks;
  const stack: LockClassId[] = [];
  const found: Watch = { edges: new Set(), faults: [] };
  const taken = (cls: LockClassId): void => {
    for (const held of stack) {
      found.edges.add(`${LOCK_CLASS_NAMES[held]} -> ${LOCK_CLASS_NAMES[cls]}`);
      if (LOCK_CLASS_LEVEL[held]! >= LOCK_CLASS_LEVEL[cls]!) {
        found.faults.push(`${LOCK_CLASS_NAMES[cls]} under ${LOCK_CLASS_NAMES[held]}`);
      }
    }
    stack.push(cls);
  };
  locks.lock = (at: LockPtr, cls: LockClassId) => {
    taken(cls);
    lock.call(locks, at, cls);
  };
  locks.tryLock = (at: LockPtr, cls: LockClassId) => {
    const got = tryLock.call(locks, at, cls);
    if (got) taken(cls);
    return got;
  };
  locks.unlock = (at: LockPtr, cls: LockClassId) => {
    unlock.call(locks, at, cls);
    if (stack.pop() !== cls) found.faults.push(`${LOCK_CLASS_NAMES[cls]} given up out of turn`);
  };
  return found;
}

function everything(arena: Arena): void {
  const other = secondCpu(arena, 1);
  for (const options of [{ size: 64 }, { size: 4096 }, { size: 20_000 }, { size: 300, sheafCapacity: 100 }]) {
    const cache = arena.createCache(`c${options.size}`, options);
    const theirs = other.openCache(cache.name);
    freeMany(cache, allocMany(cache, 300));
    freeMany(cache, allocMany(theirs, 100));
    other.endTurn();
    const out = new Int32Array(200);
    cache.allocBulk(out, 200);
    cache.freeBulk(out, 200);
    freeMany(cache, [cache.allocNode(0), cache.allocNode(arena.geometry.nodes - 1)]);
    arena.kfree(arena.krealloc(arena.kmalloc(100), 60_000));
    cache.shrink();
    cache.destroy();
  }
  treesAndSpaces(arena);
  other.offline();
}

function treesAndSpaces(arena: Arena): void {
  const tree = arena.maple.create()!;
  for (let i = 0; i < 600; i++) tree.store(i * 10, i * 10 + 5, i + 1);
  for (let i = 0; i < 100; i++) tree.erase(i * 100, i * 100 + 150);
  arena.maple.destroy(tree);
  const mm = arena.mms.create()!;
  for (let i = 0; i < 200; i++) mm.map(4096, { at: 0x100000 + i * 8192 });
  mm.fault(0x100000);
  mm.unmap(0x100000, 100 * 8192);
  arena.mms.destroy(arena.mms.fork(mm)!);
  arena.mms.destroy(mm);
}

describe.each(['turn', 'op'] as LockPolicy[])('the lock order, policy %s', (lockPolicy) => {
  it.each([1, 2])('holds in everything that takes locks, with %i nodes', (nodes) => {
    const arena = boot({ cpus: 2, nodes, lockPolicy, bytes: 24 << 20 });
    const { edges, faults } = watch(arena);
    everything(arena);
    expect(faults).toEqual([]);
    expect([...edges].sort()).toEqual([
      'ma_lock -> n->list_lock',
      'ma_lock -> zone->lock',
      'mmap_lock -> barn->lock',
      'mmap_lock -> n->list_lock',
      'mmap_lock -> zone->lock',
      'slab_mutex -> barn->lock',
      'slab_mutex -> n->list_lock',
      'slab_mutex -> zone->lock',
    ]);
    expectSound(arena);
  });

  it("takes barn, list and zone locks under this CPU's sheaves, and never waits for memory under them", () => {
    const arena = boot({ cpus: 2, lockPolicy, bytes: 24 << 20 });
    const cache = arena.createCache('c', { size: 4096 });
    const lockAt = pcsOf(arena.geometry, 0, cache.desc.slot) + Pcs.lock;
    const { locks } = arena.cpu;
    const { lock } = locks;
    const pages = pagesOf(arena);
    const { alloc } = pages;
    const under = new Set<string>();
    let seen = 0;
    locks.lock = (at: LockPtr, cls: LockClassId) => {
      seen++;
      if (arena.i32[lockAt] !== 0) under.add(LOCK_CLASS_NAMES[cls]!);
      lock.call(locks, at, cls);
    };
    let allocated = 0;
    let waited = 0;
    pages.alloc = (...args) => {
      allocated++;
      if (arena.i32[lockAt] !== 0) waited++;
      return alloc.apply(pages, args);
    };
    for (let i = 0; i < 5; i++) {
      freeMany(cache, allocMany(cache, 100));
      arena.endTurn();
    }
    expect(seen).toBeGreaterThan(50);
    // A refill from partial slabs, the flush of the spare, and the pages of slabs that it empties.
    expect([...under].sort()).toEqual(['barn->lock', 'n->list_lock', 'zone->lock']);
    expect(allocated).toBeGreaterThan(0);
    expect(waited, 'page allocations under the pcs lock').toBe(0);
    under.clear();
    cache.shrink();
    // shrink and flushDetached give it back first; this CPU's own is taken as if it were another's.
    expect([...under]).toEqual([]);
  });

  it('takes a remote list_lock by trylock only', () => {
    const arena = boot({ cpus: 2, nodes: 2, lockPolicy, bytes: 24 << 20 });
    const cache = arena.createCache('c', { size: 4096 });
    cache.minPartial = 1;
    const remote = Array.from({ length: 40 }, () => cache.allocNode(1));
    for (const p of remote.filter((_, i) => i % 4 === 0)) cache.free(p);
    arena.endTurn();
    const remoteLock = listLock(nodeOf(arena.i32, cache.desc, 1));
    const { locks } = arena.cpu;
    const tried: number[] = [];
    const waited: number[] = [];
    const { lock, tryLock } = locks;
    locks.tryLock = (at: LockPtr, cls: LockClassId) => {
      tried.push(at);
      return tryLock.call(locks, at, cls);
    };
    locks.lock = (at: LockPtr, cls: LockClassId) => {
      waited.push(at);
      lock.call(locks, at, cls);
    };
    allocMany(cache, 8);
    expect(tried).toContain(remoteLock);
    expect(waited).not.toContain(remoteLock);
    expectSound(arena);
  });
});

describe('docs/locking.md', () => {
  /** Classes from the first to the last that a CPU acquires; those of one level in the order of their ids. */
  const inOrder = Object.values(LockClass).sort(
    (a, b) => LOCK_CLASS_LEVEL[a]! - LOCK_CLASS_LEVEL[b]! || a - b,
  );
  const nameOf = (cls: LockClassId): string => LOCK_CLASS_NAMES[cls]!;
  const sections = readFileSync(new URL('../../docs/locking.md', import.meta.url), 'utf8').split('\n## ');

  /** Cells of the table of a section whose first column is called `first`. */
  function rowsOf(section: string, first: string): string[][] {
    const lines = sections.find((each) => each.startsWith(`${section}\n`))!.split('\n');
    const from = lines.findIndex((line) => line.startsWith(`| ${first} |`)) + 2;
    const rows = lines.slice(from);
    const end = rows.findIndex((line) => !line.startsWith('|'));
    return rows.slice(0, end).map((line) => line.split(' | ').map((cell) => cell.replace(/^\| | \|$/g, '')));
  }

  const named = (cell: string): string[] => [...cell.matchAll(/`([^`]+)`/g)].map((match) => match[1]!);

  it('lists the classes in the order in which they are acquired', () => {
    const rows = rowsOf('Lock order', 'level');
    expect(rows.flatMap((row) => named(row[1]!))).toEqual(inOrder.map(nameOf));
    // 6a and 6b have levels of their own in the program, and are never waited for under one another.
    const numbers = rows.map((row) => Number.parseInt(row[0]!, 10));
    expect(numbers).toEqual([...numbers].sort((a, b) => a - b));
    expect(new Set(numbers).size).toBe(numbers.at(-1));
  });

  it('says of each class what lockdep lets be waited for under it', () => {
    const rows = rowsOf('Lockdep', 'class').map(([cls, takes, nested, sleeps]) => ({
      cls: named(cls!),
      takes: named(takes!),
      leaf: takes!.includes('a leaf'),
      nested: nested!.startsWith('yes'),
      sleeps: sleeps === 'yes',
    }));
    expect(rows).toEqual(
      inOrder.map((cls) => ({
        cls: [nameOf(cls)],
        takes: inOrder.filter((each) => LOCK_CLASS_TAKES[cls].includes(each)).map(nameOf),
        leaf: LEAF_LOCK_CLASSES.includes(cls),
        nested: NESTED_LOCK_CLASSES.includes(cls),
        sleeps: SLEEPING_LOCK_CLASSES.includes(cls),
      })),
    );
  });

  it('has no class that is waited for under one of its own level or below', () => {
    const upwards = inOrder.flatMap((cls) =>
      LOCK_CLASS_TAKES[cls]
        .filter((each) => LOCK_CLASS_LEVEL[each]! <= LOCK_CLASS_LEVEL[cls]!)
        .map((each) => `${nameOf(each)} under ${nameOf(cls)}`),
    );
    expect(upwards).toEqual([]);
  });
});
