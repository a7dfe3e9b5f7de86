/** A large block that was put off because its zone's lock was taken, and whose drain finds the lock stuck: it is not lost. */
import { expect, it } from 'vitest';
import { zoneLock, zoneOf } from '#src/page/index.js';
import { LockClass } from '#src/sync/index.js';
import { boot, expectSound, footprint, secondCpu } from '../cache/support/arena.js';

it('waits on, and goes back when the lock is free', () => {
  const arena = boot();
  const other = secondCpu(arena);
  const before = footprint(arena);
  const blocks = [20_000, 40_000].map((size) => arena.kmalloc(size));
  const lock = zoneLock(zoneOf(arena.geometry, 0));
  const { limitMs } = arena.cpu.locks;
  arena.cpu.locks.limitMs = 10;
  other.cpu.locks.lock(lock, LockClass.Zone);
  for (const p of blocks) arena.kfreeNolock(p);
  for (let turn = 0; turn < 3; turn++) arena.endTurn();
  other.cpu.locks.unlock(lock, LockClass.Zone);
  arena.cpu.locks.limitMs = limitMs;
  arena.endTurn();
  expect(footprint(arena)).toEqual(before);
  expectSound(arena);
});
