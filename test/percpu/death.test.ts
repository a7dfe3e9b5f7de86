/**
 * Death between any two stores: a second CPU on this thread is stopped at its n-th store into the percpu structures, for
 * every n, as if it had been terminated there: what it would do after that does not happen, its locks stay taken. Then it is
 * reaped.
 */
import { describe, expect, it } from 'vitest';
import { type Arena, GFP_ATOMIC, type PercpuOptions } from '#src/index.js';
import type { Words } from '#src/struct/index.js';
import { secondCpu } from '../cache/support/arena.js';
import { bootPercpu, info, KiB } from './support.js';

class Death extends Error {}

/** Every store with 1; each n-th, from an offset that differs by scenario, with n. */
const STRIDE = Number(process.env.GRANARY_PERCPU_STRIDE ?? 5);

/** Lets `arena` store `left` times into the percpu structures. Returns whether it died. */
function mortal(arena: Arena, left: number): { dead: boolean } {
  const state = { dead: false };
  let stores = left;
  const store = (): void => {
    if (!state.dead && stores-- > 0) return;
    state.dead = true;
    throw new Death();
  };
  const { v, cpu } = arena.percpu;
  const m = v.m;
  const watched = new Proxy(m, {
    get: (_, key) => {
      const value: unknown = Reflect.get(m, key, m);
      if (typeof value !== 'function') return value;
      return (...args: unknown[]) => {
        store();
        return value.apply(m, args) as unknown;
      };
    },
    set: (_, key, value) => {
      store();
      return Reflect.set(m, key, value, m);
    },
  });
  (v as { m: Words }).m = watched;
  const { lock, unlock } = cpu.locks;
  cpu.locks.lock = (at, cls) => {
    if (state.dead) throw new Death();
    lock.call(cpu.locks, at, cls);
  };
  cpu.locks.unlock = (at, cls) => {
    if (!state.dead) unlock.call(cpu.locks, at, cls);
  };
  return state;
}

type Scenario = (arena: Arena, setup: number[]) => void;

const SCENARIOS: Array<[string, PercpuOptions, Scenario]> = [
  ['an allocation that makes a chunk', {}, (arena) => arena.allocPercpu(16)],
  ['an allocation of several pages', {}, (arena) => arena.allocPercpu(9 * KiB)],
  ['an atomic allocation', {}, (arena) => arena.allocPercpu(100, 8, GFP_ATOMIC)],
  ['a free', {}, (arena, setup) => arena.freePercpu(setup[0]!)],
  ['a free of whole pages', {}, (arena, setup) => arena.freePercpu(setup[1]!)],
  ['balance work', {}, (arena) => arena.percpu.balance()],
  ['an allocation in batches', { areaCache: 8, areaBatch: 3 }, (arena) => arena.allocPercpu(16)],
];

describe.each(SCENARIOS)('killed at any store of %s', (name, percpu, scenario) => {
  it('leaves chunks that the reaper makes sound, and nothing allocated that nobody has', () => {
    let moments = 0;
    for (let left = name.length % STRIDE; ; left += STRIDE) {
      const arena = bootPercpu({ cpus: 2, bytes: 2 << 20, lockdep: false, percpu, maxCaches: 16 });
      const setup = name.includes('makes a chunk')
        ? []
        : [16, 9 * KiB, 32 * KiB, 32 * KiB, 64].map((n) => arena.allocPercpu(n));
      if (name.startsWith('balance')) for (const p of setup.splice(1, 3)) arena.freePercpu(p);
      arena.percpu.drainAreas();
      const before = info(arena).nrAlloc;
      const second = secondCpu(arena);
      const state = mortal(second, left);
      try {
        scenario(second, setup);
      } catch (error) {
        if (!(error instanceof Death)) throw error;
      }
      if (!state.dead) break;
      moments++;
      second.endTurn();
      const { notes } = arena.cpuDead(1);
      const findings = arena.validate();
      expect(findings, `store ${left}: ${notes.join('; ')}`).toEqual([]);
      const { nrAlloc } = info(arena);
      const expected = name.startsWith('a free') ? [before, before - 1] : [before];
      expect(expected, `store ${left}: ${notes.join('; ')}`).toContain(nrAlloc);
      for (const size of [4, 4096, 32 * KiB]) arena.freePercpu(arena.allocPercpu(size));
      arena.percpu.balance();
      expect(arena.validate(), `store ${left}, afterwards`).toEqual([]);
    }
    expect(moments).toBeGreaterThan(1);
  });
});
