/** Grace periods with two CPUs on this thread, step by step; test/rcu/torture.test.ts has the real threads. */

import { describe, expect, it, vi } from 'vitest';
import type { Arena } from '#src/index.js';
import { CpuError, RcuStallError } from '#src/index.js';
import { isSince, RcuState, rcuStateOf } from '#src/rcu/index.js';
import { boot, expectSound, secondCpu } from '../cache/support/arena.js';

function setup(): { arena: Arena; other: Arena } {
  const arena = boot({ cpus: 4 });
  return { arena, other: secondCpu(arena) };
}

describe('a grace period', () => {
  it('is over at once when nobody reads', () => {
    const { arena } = setup();
    expect(arena.rcu.poll(arena.rcu.request())).toBe(true);
  });

  it('waits for a section that was open when it began, to the end of its turn', () => {
    const { arena, other } = setup();
    other.rcu.readLock();
    const number = arena.rcu.request();
    expect(arena.rcu.poll(number)).toBe(false);
    other.rcu.readUnlock();
    expect(arena.rcu.poll(number), 'the turn has not ended').toBe(false);
    expect(arena.rcu.gracePeriods.holdouts(number)).toEqual([1]);
    other.endTurn();
    expect(arena.rcu.poll(number)).toBe(true);
  });

  it('does not wait for a section that began after it', () => {
    const { arena, other } = setup();
    const number = arena.rcu.request();
    other.rcu.readLock();
    expect(arena.rcu.poll(number)).toBe(true);
    expect(arena.rcu.poll(arena.rcu.request()), 'the next one does').toBe(false);
    other.rcu.readUnlock();
    other.endTurn();
  });

  it('ends at quiescent(), which allows later sections of the same turn', () => {
    const { arena, other } = setup();
    other.rcu.readLock();
    other.rcu.readUnlock();
    const number = arena.rcu.request();
    other.rcu.quiescent();
    other.rcu.readLock();
    expect(arena.rcu.poll(number)).toBe(true);
    expect(arena.rcu.poll(arena.rcu.request())).toBe(false);
    other.rcu.readUnlock();
    other.endTurn();
  });

  it('waits for the outermost of nested sections, not for the inner ones', () => {
    const { arena, other } = setup();
    other.rcu.readLock();
    other.rcu.readLock();
    const number = arena.rcu.request();
    other.rcu.readUnlock();
    expect(() => other.rcu.quiescent()).toThrow(/read section open/);
    expect(arena.rcu.poll(number)).toBe(false);
    other.rcu.readUnlock();
    other.rcu.quiescent();
    expect(arena.rcu.poll(number)).toBe(true);
    other.endTurn();
  });

  it('goes on when numbers wrap', () => {
    const { arena, other } = setup();
    const state = rcuStateOf(arena.geometry);
    arena.i32[state + RcuState.current] = 0x7fffffff;
    arena.i32[state + RcuState.completed] = 0x7fffffff;
    other.rcu.readLock();
    const number = arena.rcu.request();
    expect(number).toBe(-0x7fffffff);
    expect(isSince(number, 0x7fffffff)).toBe(true);
    expect(arena.rcu.poll(number)).toBe(false);
    other.rcu.readUnlock();
    other.endTurn();
    expect(arena.rcu.poll(number)).toBe(true);
  });

  it('is not held up by a CPU that left, or was reaped', () => {
    const { arena, other } = setup();
    other.rcu.readLock();
    const number = arena.rcu.request();
    expect(arena.rcu.poll(number)).toBe(false);
    arena.cpuDead(1);
    expect(arena.rcu.poll(number)).toBe(true);
    other.rcu.readUnlock(); // it is not dead, only taken for it
    expectSound(arena);
  });
});

describe('a read section', () => {
  it('left open at the end of the turn throws, and holds nobody up', () => {
    const { arena, other } = setup();
    const cache = other.createCache('c', { size: 64 });
    const p = cache.alloc();
    other.rcu.debug = true;
    other.rcu.readLock();
    const number = arena.rcu.request();
    let thrown: unknown;
    try {
      other.endTurn();
    } catch (error) {
      thrown = error;
    }
    expect(thrown).toBeInstanceOf(CpuError);
    expect(String(thrown)).toMatch(/the turn ended with a read section open/);
    expect(String((thrown as Error).cause && ((thrown as Error).cause as Error).stack)).toContain(
      'rcu.test.ts',
    );
    expect(arena.rcu.poll(number)).toBe(true);
    expect(other.rcu.depth).toBe(0);
    // What the turn held besides is given up: another CPU can shrink the cache at once.
    expect(arena.openCache('c').shrink().skippedCpus).toEqual([]);
    cache.free(p);
    other.endTurn();
    expectSound(arena);
  });

  it('must be closed as often as opened, and no more', () => {
    const { arena } = setup();
    expect(() => arena.rcu.readUnlock()).toThrow(/no read section is open/);
    arena.rcu.readLock();
    arena.rcu.readUnlock();
    expect(() => arena.rcu.readUnlock()).toThrow(CpuError);
    arena.endTurn();
  });

  it('may not wait for a grace period', async () => {
    const { arena } = setup();
    arena.rcu.readLock();
    expect(() => arena.rcu.synchronize()).toThrow(/synchronize\(\) was called with a read section open/);
    expect(() => arena.rcu.barrier()).toThrow(CpuError);
    const refused = arena.rcu.synchronizeAsync();
    arena.rcu.readUnlock();
    await expect(refused).rejects.toThrow(CpuError);
    arena.rcu.synchronize();
  });

  it('publishes and finds pointers', () => {
    const { arena, other } = setup();
    const slot = arena.kmalloc(8) >> 2;
    arena.rcu.assignPointer(slot, 4711);
    other.rcu.readLock();
    expect(other.rcu.dereference(slot)).toBe(4711);
    other.rcu.readUnlock();
    other.endTurn();
  });
});

describe('callbacks', () => {
  it('run after the sections that were open, in order, and may add more', () => {
    const { arena, other } = setup();
    const ran: string[] = [];
    other.rcu.readLock();
    arena.rcu.call(() => {
      ran.push('a');
      arena.rcu.call(() => ran.push('c'));
    });
    arena.rcu.call(() => ran.push('b'));
    arena.rcu.quiescent();
    expect(ran).toEqual([]);
    other.rcu.readUnlock();
    other.endTurn();
    arena.rcu.quiescent();
    expect(ran).toEqual(['a', 'b', 'c']);
  });

  it('run by themselves, from a timer', async () => {
    const { arena } = setup();
    await new Promise<void>((resolve) => arena.rcu.call(resolve));
  });

  it('are waited for by barrier(), by barrierAsync() and by offline()', async () => {
    const { arena, other } = setup();
    let ran = 0;
    arena.rcu.call(() => ran++);
    arena.rcu.barrier();
    expect(ran).toBe(1);
    other.rcu.call(() => ran++);
    arena.rcu.call(() => ran++);
    await arena.rcu.barrierAsync();
    expect(ran, 'those of another CPU run in its turns').toBe(3);
    other.rcu.call(() => ran++);
    other.offline();
    expect(ran).toBe(4);
  });

  it('of a thread that died are counted as lost', () => {
    const { arena, other } = setup();
    other.rcu.call(() => expect.unreachable());
    const { rcu } = other;
    expect(arena.cpuDead(1).notes).toContain('1 RCU callbacks died with their thread');
    (rcu as unknown as { disarmTimer(): void }).disarmTimer();
    arena.rcu.barrier();
  });

  it('that are no functions are refused', () => {
    const { arena } = setup();
    expect(() => arena.rcu.call(1 as never)).toThrow(TypeError);
  });
});

describe('a stall', () => {
  it('names the CPU, and a blocking wait gives up after its limit', () => {
    const { arena, other } = setup();
    other.rcu.readLock();
    const onStall = vi.fn();
    Object.assign(arena.rcu, { stallMs: 10, limitMs: 60, onStall });
    let thrown: unknown;
    try {
      arena.rcu.synchronize();
    } catch (error) {
      thrown = error;
    }
    expect(thrown).toBeInstanceOf(RcuStallError);
    expect((thrown as RcuStallError).cpus).toEqual([1]);
    expect(onStall).toHaveBeenCalledTimes(1);
    expect(onStall.mock.calls[0]![0]).toMatchObject({ cpus: [1] });
    other.rcu.readUnlock();
    other.endTurn();
    arena.rcu.synchronize();
  });

  it('of a barrier names the CPU whose callbacks did not run', () => {
    const { arena, other } = setup();
    other.rcu.call(() => {});
    arena.rcu.limitMs = 30;
    expect(() => arena.rcu.barrier()).toThrow(/CPU 1 did not run their callbacks/);
    other.rcu.barrier();
  });
});

describe('an allocation in a read section', () => {
  it('does not reclaim, which would end the turn; outside it does', () => {
    const arena = boot({ cpus: 2, bytes: 2 << 20, maxCaches: 24 });
    const cache = arena.createCache('c', { size: 2048 });
    const other = secondCpu(arena);
    const theirs = other.openCache('c');
    const cached = Array.from({ length: 60 }, () => theirs.alloc());
    const held: number[] = [];
    for (let p = cache.alloc(); p !== 0; p = cache.alloc()) held.push(p);
    for (const p of cached) theirs.free(p); // memory that only reclaim can get at
    other.endTurn();
    arena.rcu.readLock();
    const number = other.rcu.request();
    for (let p = cache.alloc(); p !== 0; p = cache.alloc()) held.push(p);
    expect(arena.rcu.depth).toBe(1);
    expect(other.rcu.poll(number), 'the section has not ended').toBe(false);
    arena.rcu.readUnlock();
    const p = cache.alloc();
    expect(p).not.toBe(0);
    for (const q of [...held, p]) cache.free(q);
    arena.endTurn();
    expectSound(arena);
  });
});
