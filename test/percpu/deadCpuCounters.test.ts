/** A CPU whose thread is gone has its part of each percpu counter folded, wherever the thread died. */
import { describe, expect, it } from 'vitest';
import { type Arena, PERCPU_COUNTER_BYTES } from '#src/index.js';
import { boot, expectSound, secondCpu } from '../cache/support/arena.js';
import { dying } from '../cpu/support/dying.js';

const OPTIONS = [
  ['a thread per CPU', {}],
  ['threads that share CPUs', { threads: 6, lockPolicy: 'op' }],
] as const;

describe.each(OPTIONS)('percpu counters, %s', (_, options) => {
  const setup = (): { arena: Arena; other: Arena; counter: number } => {
    const arena = boot({ maxCaches: 30, ...options });
    const counter = arena.kzalloc(PERCPU_COUNTER_BYTES);
    arena.percpu.counters.init(counter);
    const other = secondCpu(arena);
    other.percpu.counters.add(counter, 5);
    other.endTurn();
    return { arena, other, counter };
  };
  const expectFolded = (arena: Arena, counter: number): void => {
    const { counters } = arena.percpu;
    expect([counters.read(counter), counters.sum(counter)]).toEqual([5, 5]);
    expectSound(arena);
  };

  it('of a thread that died between leaving its CPU and folding', () => {
    const { arena, other, counter } = setup();
    dying(arena, (die) => {
      Object.assign(other.percpu, { leaveCpu: die });
      other.offline();
    });
    expect(arena.cpuDead(other.cpu.thread)).toEqual({ cpu: 1, heldLocks: [], notes: [] });
    expectFolded(arena, counter);
  });

  it('of a thread whose reaper was stopped by an error first', () => {
    const { arena, other, counter } = setup();
    const { counters } = arena.percpu;
    const { cpuDead } = counters;
    counters.cpuDead = () => {
      counters.cpuDead = cpuDead;
      throw new Error('percpu_counters_lock was not free');
    };
    const thread = other.cpu.thread;
    expect(() => arena.cpuDead(thread)).toThrow(/was not free/);
    expect(arena.cpuDead(thread)).toEqual({ cpu: 1, heldLocks: [], notes: [] });
    expectFolded(arena, counter);
  });
});
