/** The lock record within a restricted call: what it interrupts stays noted, and the list never overflows. */

import { describe, expect, it } from 'vitest';
import { ThreadRecord } from '#src/cpu/index.js';
import { HELD_LOCKS_MAX, LockClass, type LockPtr, LockRecord } from '#src/sync/index.js';
import { interrupt } from '#workers/litmus/nolock.js';
import { boot, expectSound } from '../cache/support/arena.js';

const { pending: PENDING, nrHeld: NR_HELD, held: HELD, intentDepth: DEPTH } = LockRecord;

describe('the lock record', () => {
  it('keeps the note of a lock() that waits while others are tried, taken and given up', () => {
    const arena = boot({ lockPolicy: 'op' });
    const record = arena.cpu.record + ThreadRecord.locks;
    const notes: number[][] = [];
    let nested = false;
    const callOff = interrupt(arena.cpu.locks, (_, moment, at) => {
      if (nested || moment !== 'pending') return;
      nested = true;
      const noted = arena.i32[record + PENDING]!;
      const p = arena.kmallocNolock(1024);
      if (p !== 0) arena.kfreeNolock(p);
      notes.push([at, noted, arena.i32[record + PENDING]!]);
      nested = false;
    });
    const list = Array.from({ length: 50 }, () => arena.kmalloc(4096));
    for (const p of list) arena.kfree(p);
    callOff();
    expect(notes.length).toBeGreaterThan(5);
    for (const [at, before, after] of notes) expect([before, after]).toEqual([at, at]);
    expect(arena.i32[record + PENDING]).toBe(0);
    expectSound(arena);
  });

  it('is full at some depth: then a trylock fails and nothing beyond it is written', () => {
    const arena = boot();
    const { locks, record } = arena.cpu;
    const at = record + ThreadRecord.locks;
    const words = arena.allocPages(0) >> 2;
    const lockAt = (i: number): LockPtr => (words + 2 * i) as LockPtr;
    arena.i32.fill(0, words, words + 64);
    for (let i = 0; i < HELD_LOCKS_MAX; i++) expect(locks.tryLock(lockAt(i), LockClass.Barn)).toBe(true);
    const image = arena.i32.slice(at, at + LockRecord.SIZEOF);
    expect(locks.tryLock(lockAt(HELD_LOCKS_MAX), LockClass.Barn)).toBe(false);
    expect(arena.i32[lockAt(HELD_LOCKS_MAX)]).toBe(0);
    expect(arena.i32.slice(at, at + LockRecord.SIZEOF)).toEqual(image);
    expect(arena.i32[at + DEPTH]).toBe(0);
    expect(arena.kmallocNolock(4096)).toBe(0);
    for (let i = HELD_LOCKS_MAX; i-- > 0; ) locks.unlock(lockAt(i), LockClass.Barn);
    expect(arena.i32[at + NR_HELD]).toBe(0);
    expect(arena.kmallocNolock(4096)).not.toBe(0);
    expectSound(arena);
  });

  it('names a lock from before it is tried until after it is given up', () => {
    const arena = boot();
    const { locks, record } = arena.cpu;
    const at = record + ThreadRecord.locks;
    const named = (): number[] => Array.from(arena.i32.subarray(at + HELD, at + HELD + locks.held));
    const lock = ((arena.allocPages(0) >> 2) + 8) as LockPtr;
    arena.i32.fill(0, lock, lock + 8);
    expect(locks.tryLock(lock, LockClass.Zone)).toBe(true);
    expect(named()).toEqual([lock]);
    expect(locks.tryLock(lock, LockClass.Zone)).toBe(false);
    expect(named()).toEqual([lock]);
    locks.unlock(lock, LockClass.Zone);
    expect(named()).toEqual([]);
  });
});
