/** What a wait for a grace period leaves when its thread dies in it, or when it takes too long. */
import { expect, it } from 'vitest';
import { RcuState, rcuStateOf } from '#src/rcu/index.js';
import { allocMany, boot, expectSound, secondCpu } from '../cache/support/arena.js';
import { dying } from '../cpu/support/dying.js';

it('a thread that dies asleep is not woken for ever', () => {
  const arena = boot({ cpus: 3 });
  const [other, reader] = [secondCpu(arena, 1), secondCpu(arena, 2)];
  const state = rcuStateOf(arena.geometry);
  reader.rcu.readLock();
  dying(arena, (die) => other.rcu.gracePeriods.sleep(die, 1));
  arena.cpuDead(1);
  reader.rcu.readUnlock();
  reader.endTurn();
  const wakes = (): number => arena.i32[state + RcuState.wake]!;
  const before = wakes();
  for (let turn = 0; turn < 5; turn++) {
    reader.rcu.readLock();
    reader.rcu.readUnlock();
    reader.endTurn();
  }
  expect(wakes() - before, 'nobody sleeps').toBe(0);
  expect(arena.i32[state + RcuState.waiters]).toBe(0);
});

it('one who waits is woken when the reader is done, whoever was woken before', () => {
  const arena = boot({ cpus: 3 });
  const [other, reader] = [secondCpu(arena, 1), secondCpu(arena, 2)];
  reader.rcu.readLock();
  // Between the look of the one and his sleep another sleeps, and both are to be woken.
  let woken = false;
  arena.rcu.gracePeriods.sleep(() => {
    other.rcu.gracePeriods.sleep(() => {
      reader.rcu.readUnlock();
      reader.endTurn();
      return true;
    }, 1);
    woken = true;
    return false;
  }, 10_000);
  expect(woken).toBe(true);
}, 5000);

it('an object of kfree_rcu that no page took is freed when the reader is done, however late', async () => {
  const arena = boot();
  const other = secondCpu(arena);
  const cache = arena.createCache('c', { size: 64, layer: 'none' });
  const objects = allocMany(cache, 3);
  arena.rcu.limitMs = 20;
  arena.failPageAlloc(1);
  other.rcu.readLock();
  for (const p of objects) cache.freeRcu(p);
  expect(arena.failPageAlloc(0).refused).toBeGreaterThan(0);
  expect(
    allocMany(cache, 100).filter((p) => objects.includes(p)),
    'not before',
  ).toEqual([]);
  other.rcu.readUnlock();
  other.endTurn();
  arena.rcu.limitMs = 5000;
  await arena.rcu.barrierAsync();
  expect(
    allocMany(cache, 100)
      .filter((p) => objects.includes(p))
      .sort(),
  ).toEqual(objects.sort());
  arena.endTurn();
  expectSound(arena);
});
