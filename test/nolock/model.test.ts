/** Random calls, restricted and not, while locks come and go: against a model of who has which address. */

import fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import type { LockPolicy } from '#src/index.js';
import { zoneLock, zoneOf } from '#src/page/index.js';
import { listLock, nodeOf } from '#src/slab/index.js';
import { LockClass, type LockPtr } from '#src/sync/index.js';
import { boot, expectSound, footprint, secondCpu } from '../cache/support/arena.js';
import { Book } from './support.js';

const size = fc.constantFrom(8, 64, 96, 2048, 8192);
const command = fc.oneof(
  {
    weight: 6,
    arbitrary: fc.record({
      op: fc.constant('allocNolock' as const),
      size,
      n: fc.integer({ min: 1, max: 40 }),
    }),
  },
  {
    weight: 6,
    arbitrary: fc.record({
      op: fc.constant('freeNolock' as const),
      at: fc.nat(),
      n: fc.integer({ min: 1, max: 40 }),
    }),
  },
  {
    weight: 3,
    arbitrary: fc.record({ op: fc.constant('alloc' as const), size, n: fc.integer({ min: 1, max: 20 }) }),
  },
  {
    weight: 3,
    arbitrary: fc.record({
      op: fc.constant('free' as const),
      at: fc.nat(),
      n: fc.integer({ min: 1, max: 20 }),
    }),
  },
  { weight: 1, arbitrary: fc.record({ op: fc.constant('endTurn' as const) }) },
  { weight: 1, arbitrary: fc.record({ op: fc.constant('shrink' as const), size }) },
  {
    weight: 2,
    arbitrary: fc.record({ op: fc.constant('locked' as const), size, zone: fc.boolean(), at: fc.nat() }),
  },
);
type Command = typeof command extends fc.Arbitrary<infer T> ? T : never;

const nameOf = (bytes: number): string => `kmalloc-${bytes < 1024 ? bytes : `${bytes / 1024}k`}`;

function run(lockPolicy: LockPolicy, nodes: number, commands: Command[]): void {
  const arena = boot({ cpus: 2, nodes, lockPolicy, bytes: 8 << 20, maxCaches: 20 });
  const other = secondCpu(arena);
  const before = footprint(arena);
  const book = new Book(arena);
  const pick = (at: number): number => book.give([...book.held.keys()][at % book.held.size]!);
  const lockOf = (bytes: number, zone: boolean): LockPtr =>
    zone
      ? zoneLock(zoneOf(arena.geometry, 0))
      : listLock(nodeOf(arena.i32, arena.openCache(nameOf(bytes)).desc, 0));
  const step = (each: Command): void => {
    if (each.op === 'endTurn') arena.endTurn();
    else if (each.op === 'shrink') arena.openCache(nameOf(each.size)).shrink();
    else if (each.op === 'allocNolock') {
      for (let i = 0; i < each.n; i++) book.take(arena.kmallocNolock(each.size), each.size);
    } else if (each.op === 'alloc') {
      for (let i = 0; i < each.n; i++) book.take(arena.kmalloc(each.size), each.size);
    } else if (each.op === 'locked') {
      const lock = lockOf(each.size, each.zone);
      other.cpu.locks.lock(lock, LockClass.ListLock);
      for (let i = 0; i < 10; i++) book.take(arena.kmallocNolock(each.size), each.size);
      for (let i = 0; i < 10 && book.held.size > 0; i++) arena.kfreeNolock(pick(each.at + i));
      other.cpu.locks.unlock(lock, LockClass.ListLock);
    } else {
      for (let i = 0; i < each.n && book.held.size > 0; i++) {
        const p = pick(each.at + i);
        if (each.op === 'free') arena.kfree(p);
        else arena.kfreeNolock(p);
      }
    }
  };
  for (const each of commands) step(each);
  expectSound(arena);
  while (book.held.size > 0) arena.kfreeNolock(pick(0));
  expect(book.faults).toEqual([]);
  expectSound(arena);
  expect(footprint(arena)).toEqual(before);
}

describe.each(['turn', 'op'] as LockPolicy[])('any sequence of calls, policy %s', (lockPolicy) => {
  it.each([1, 2])('hands out each address once and loses none, %i nodes', (nodes) => {
    fc.assert(
      fc.property(fc.array(command, { maxLength: 40 }), (commands) => run(lockPolicy, nodes, commands)),
      { numRuns: 40 },
    );
  });
});
