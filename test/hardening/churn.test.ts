/** What every arena does, with both options: all layers and policies against a model, and two threads that vanish. */
import { describe, expect, it } from 'vitest';

import { stressName, stressRound } from '#src/lab/stress/stress.js';
import { LAYERS, LOCK_POLICIES } from '#src/struct/index.js';
import { expectSound, LONG, secondCpu } from '../cache/support/arena.js';
import { BOTH, setup } from './support.js';

/** A pseudo-random number below `n`, the same in each run. */
function dice(seed: number): (n: number) => number {
  let state = seed;
  return (n) => {
    state = (Math.imul(state, 1103515245) + 12345) & 0x7fffffff;
    return (state >> 8) % n;
  };
}

const STEPS = LONG ? 20_000 : 300;

const VARIANTS = [
  {},
  { initOnFree: true, initOnAlloc: true },
  { refinements: { lazyFreelist: false, returnFreelist: false } },
];

const CASES = LOCK_POLICIES.flatMap((lockPolicy) => [
  ...LAYERS.flatMap((layer) => VARIANTS.map((more) => ({ layer, lockPolicy, ...more }))),
  ...(LONG || lockPolicy === 'op' ? [{ layer: 'none' as const, lockPolicy, slabDebug: 'FZPU' }] : []),
]);

describe.each([...CASES, { layer: 'none', lockPolicy: 'op', tiny: true } as const])('%o', (options) => {
  it('hands nothing out twice, keeps what is written, and loses nothing', () => {
    const { arena, cache } = setup({ ...BOTH, ...options }, { size: 72 });
    const other = secondCpu(arena);
    const caches = [cache, other.openCache('c')];
    const random = dice(42);
    const held: number[] = [];
    const known = new Set<number>();
    const out = new Int32Array(64);
    const take = (p: number): void => {
      if (p === 0 || known.has(p)) expect.fail(`0x${p.toString(16)} was handed out already`);
      known.add(p);
      arena.i32.fill(p, p >> 2, (p + 72) >> 2);
      held.push(p);
    };
    const give = (): number => {
      const at = random(held.length);
      const p = held[at]!;
      held[at] = held.at(-1)!;
      held.pop();
      known.delete(p);
      const [first, last] = [arena.i32[p >> 2], arena.i32[(p + 68) >> 2]];
      if (first !== p || last !== p) expect.fail(`0x${p.toString(16)} has ${first} and ${last} in it`);
      return p;
    };
    for (let step = 0; step < STEPS; step++) {
      const one = caches[random(2)]!;
      const n = 1 + random(64);
      switch (random(6)) {
        case 0:
        case 1:
          for (let i = 0; i < n; i++) take(one.alloc());
          break;
        case 2:
          expect(one.allocBulk(out, n)).toBe(true);
          for (const p of out.subarray(0, n)) take(p);
          break;
        case 3:
          for (let i = 0; i < n && held.length > 0; i++) one.free(give());
          break;
        default: {
          const frees = Int32Array.from({ length: Math.min(n, held.length) }, give);
          if (frees.length > 0) one.freeBulk(frees, frees.length);
        }
      }
      if (step % 100 === 0) cache.shrink();
      if (step % 50 === 0) for (const each of [arena, other]) each.endTurn();
    }
    for (const each of [arena, other]) each.endTurn();
    expectSound(arena);
    while (held.length > 0) cache.free(give());
    for (const each of [arena, other]) each.endTurn();
    expect(cache.destroy()).toMatchObject({ leaked: 0 });
    expectSound(arena);
  });
});

describe('on threads', () => {
  for (const [i, layer] of (['sheaves', 'cpu-slab'] as const).entries()) {
    const shape = { lockPolicy: 'op', nodes: 1, check: 'free', bytes: 16 << 20, threadsPerCpu: 1 } as const;
    const config = { layer, ...shape, freelistRandom: true, freelistHardened: true };
    it(`loses nothing: ${stressName(config)}`, async () => {
      const result = await stressRound(config, 2, 11 + i, LONG ? 20 : 1.5);
      expect(result.problems).toEqual([]);
      expect(result.counts.allocs).toBeGreaterThan(100);
    }, 90_000);
  }
});
