/** Who reaps a thread may die in doing so, or fail: the thread can be reaped again, from the beginning. */
import { describe, expect, it } from 'vitest';
import type { Arena } from '#src/index.js';
import { allocMany, boot, expectSound, inside, secondCpu } from '../cache/support/arena.js';
import { dying } from './support/dying.js';

const VICTIM = 2;
const REAPER = 1;

/** CPU 2 has died in a turn in which it read, and CPU 1 in reaping it, where it was to call what `stop` replaces. */
function reaperDies(stop: (reaper: Arena, die: () => never) => void): Arena {
  const arena = boot({ bytes: 8 << 20, cpus: 3, maxCaches: 30, lockdep: false });
  arena.createCache('c', { size: 64 });
  const [victim, reaper] = [secondCpu(arena, VICTIM), secondCpu(arena, REAPER)];
  allocMany(victim.openCache('c'), 5);
  victim.rcu.readLock();
  victim.rcu.readUnlock(); // what others know of it ends with its turn
  victim.rcu.call(() => {});
  dying(arena, (die) => {
    stop(reaper, die);
    reaper.cpuDead(VICTIM);
  });
  arena.rcu.limitMs = 200;
  arena.rcu.stallMs = 1e9;
  return arena;
}

describe('a thread that dies while it reaps another', () => {
  it.each<[string, (reaper: Arena, die: () => never) => void]>([
    ['before anything was given back', (reaper, die) => Object.assign(reaper.percpu, { reap: die })],
    ['after the caches were', (reaper, die) => Object.assign(inside(reaper).guards, { reap: die })],
    [
      'when all was done but to free the slot',
      (reaper, die) => Object.assign(inside(reaper).rcu.gracePeriods, { forget: die }),
    ],
  ])('%s: when it is reaped, its victim can be', (_, stop) => {
    const arena = reaperDies(stop);
    expect(() => arena.cpuDead(VICTIM)).toThrow(
      /CPU 2 is being reaped by another thread, CPU 1; .*cpuDead\(1\)/,
    );
    expect(arena.cpuDead(REAPER).notes).toEqual(['died while it reaped CPU 2; call arena.cpuDead(2) again']);
    expect(arena.onlineCpus).toContain(0);
    expect(arena.cpuDead(VICTIM)).toMatchObject({
      cpu: VICTIM,
      heldLocks: [],
      notes: ['1 RCU callbacks died with their thread'],
    });
    arena.rcu.synchronize();
    arena.rcu.barrier();
    expectSound(arena);
    expect(arena.openCache('c').destroy().leaked).toBe(5);
    for (const cpu of [REAPER, VICTIM]) secondCpu(arena, cpu).offline();
    expectSound(arena);
  });

  it('and when who reaps the reaper dies, too: one after the other', () => {
    const arena = boot({ bytes: 8 << 20, cpus: 4, maxCaches: 30, lockdep: false });
    const [third, reaper] = [secondCpu(arena, 3), secondCpu(arena, REAPER)];
    secondCpu(arena, VICTIM);
    dying(arena, (die) => {
      Object.assign(reaper.percpu, { reap: die });
      reaper.cpuDead(VICTIM);
    });
    dying(arena, (die) => {
      Object.assign(third.percpu, { reap: die });
      third.cpuDead(REAPER);
    });
    expect(arena.cpuDead(3).notes.join()).toMatch(/it reaped CPU 1/);
    // The victim was given back when the reaper was reaped for the first time.
    expect(arena.cpuDead(REAPER).notes).toEqual([]);
    expect(arena.cpuDead(VICTIM).notes).toEqual([]);
    expect(arena.onlineCpus).toEqual([0]);
    expectSound(arena);
  });

  it('under slab_mutex: nothing can be reaped then, and nobody waits for who is dead', () => {
    const arena = reaperDies((reaper, die) => Object.assign(inside(reaper).kfreeRcu, { inherit: die }));
    for (const cpu of [REAPER, VICTIM, VICTIM]) {
      expect(() => arena.cpuDead(cpu)).toThrow(/slab_mutex .* died/);
    }
    arena.rcu.synchronize();
    arena.rcu.barrier();
  });
});
