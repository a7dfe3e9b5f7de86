/** Grace periods whose numbers run far ahead of a reader, or of who looks at them, up to where they wrap. */
import { describe, expect, it } from 'vitest';
import type { Arena } from '#src/index.js';
import { RcuState, rcuStateOf } from '#src/rcu/index.js';
import { allocMany, boot, expectSound, secondCpu } from '../cache/support/arena.js';

/** As far apart as numbers can be before the older one looks younger. */
const FAR = 2 ** 31;
const STARTS = [1, 0x7fffffff, -3, 0x40000001];

/** Grace periods up to `number` have been asked for, and the last that somebody has seen to be over is `completed`. */
function preset(arena: Arena, number: number, completed = number): void {
  const state = rcuStateOf(arena.geometry);
  arena.i32[state + RcuState.current] = number | 0;
  arena.i32[state + RcuState.completed] = completed | 0;
}

describe.each(STARTS)('from number %i', (start) => {
  it('a reader holds up whatever is asked for, however often', () => {
    const arena = boot();
    const other = secondCpu(arena);
    preset(arena, start);
    other.rcu.readLock();
    preset(arena, start + FAR - 10, start);
    const numbers = Array.from({ length: 20 }, () => arena.rcu.request());
    for (const number of numbers) {
      expect(arena.rcu.poll(number)).toBe(false);
      expect(arena.rcu.gracePeriods.holdouts(number)).toEqual([1]);
    }
    other.rcu.readUnlock();
    other.endTurn();
    for (const number of numbers) expect(arena.rcu.poll(number)).toBe(true);
    const next = arena.rcu.request();
    expect(arena.rcu.poll(next)).toBe(true);
    expect(arena.rcu.gracePeriods.current, 'numbers go on').toBe(next);
  });

  it('one who asks again and again and never looks gets no number that is over already', () => {
    const arena = boot();
    const other = secondCpu(arena);
    preset(arena, start + FAR - 10, start);
    other.rcu.readLock();
    const numbers = Array.from({ length: 20 }, () => arena.rcu.request());
    for (const number of numbers.toReversed()) expect(arena.rcu.poll(number)).toBe(false);
    other.rcu.readUnlock();
    other.endTurn();
    for (const number of numbers) expect(arena.rcu.poll(number)).toBe(true);
  });

  it('a reader that begins when numbers are put off holds up those alone that are asked for later', () => {
    const arena = boot({ cpus: 3 });
    const [old, young] = [secondCpu(arena, 1), secondCpu(arena, 2)];
    preset(arena, start);
    old.rcu.readLock();
    preset(arena, start + FAR - 10, start);
    const first = arena.rcu.request();
    young.rcu.readLock();
    old.rcu.readUnlock();
    old.endTurn();
    expect(arena.rcu.poll(first), 'it may have begun before the number was told').toBe(false);
    young.rcu.readUnlock();
    young.rcu.quiescent();
    young.rcu.readLock();
    expect(arena.rcu.poll(first)).toBe(true);
    expect(arena.rcu.poll(arena.rcu.request())).toBe(false);
    young.rcu.readUnlock();
    young.endTurn();
  });

  it('kfree_rcu, slabs that wait and barriers go on', () => {
    const arena = boot();
    const other = secondCpu(arena);
    const cache = arena.createCache('c', { size: 64 });
    preset(arena, start);
    other.rcu.readLock();
    preset(arena, start + FAR - 10, start);
    const objects = allocMany(cache, 300);
    for (const p of objects) cache.freeRcu(p);
    expect(allocMany(cache, 300).filter((p) => objects.includes(p))).toEqual([]);
    other.rcu.readUnlock();
    other.endTurn();
    cache.rcuBarrier();
    expect(allocMany(cache, 300).filter((p) => objects.includes(p)).length).toBeGreaterThan(0);
    arena.endTurn();
    expectSound(arena);
  });
});
