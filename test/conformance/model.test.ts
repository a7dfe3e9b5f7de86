/** Random histories of two CPUs against a model, in every layer and policy: fast-check shrinks what it finds. */

import fc from 'fast-check';
import { expect, it } from 'vitest';
import type { Arena } from '#src/index.js';
import { expectSound, secondCpu } from '../cache/support/arena.js';
import { bootVariant, forEachVariant } from './support.js';

type Step =
  | { kind: 'alloc' | 'free' | 'bulkAlloc' | 'bulkFree'; cpu: 0 | 1; n: number }
  | { kind: 'endTurn' | 'shrink' | 'leave' | 'fail'; cpu: 0 | 1; n: number };

const step: fc.Arbitrary<Step> = fc.record({
  kind: fc.constantFrom(
    'alloc',
    'alloc',
    'free',
    'free',
    'bulkAlloc',
    'bulkFree',
    'endTurn',
    'shrink',
    'leave',
    'fail',
  ),
  cpu: fc.constantFrom(0, 1),
  n: fc.integer({ min: 1, max: 150 }),
}) as fc.Arbitrary<Step>;

/** Each object carries its number in its first word; whoever frees it looks. */
class Model {
  private readonly arenas: [Arena, Arena];
  private readonly live: { p: number; cookie: number }[] = [];
  private cookies = 0;

  constructor(arena: Arena) {
    this.arenas = [arena, secondCpu(arena)];
    arena.createCache('c', { size: 264 });
  }

  run({ kind, cpu, n }: Step): void {
    const arena = this.arenas[cpu];
    const cache = arena.openCache('c');
    if (kind === 'alloc') for (let i = 0; i < n; i++) this.own(cache.alloc());
    if (kind === 'free') for (const p of this.disown(n)) cache.free(p);
    if (kind === 'bulkAlloc') {
      const out = new Int32Array(n);
      if (cache.allocBulk(out, n)) for (const p of out) this.own(p);
    }
    if (kind === 'bulkFree') {
      const list = Int32Array.from(this.disown(n));
      if (list.length > 0) cache.freeBulk(list, list.length);
    }
    if (kind === 'endTurn') arena.endTurn();
    if (kind === 'fail') arena.failPageAlloc(n % 4);
    if (kind === 'shrink') {
      for (const each of this.arenas) each.endTurn();
      cache.shrink();
    }
    if (kind === 'leave') {
      const other = this.arenas[1];
      if (n % 2 === 0) other.offline();
      else this.arenas[0].cpuDead(1);
      if (n % 2 !== 0) this.arenas[1] = secondCpu(this.arenas[0]);
      else other.online({ cpu: 1 });
    }
  }

  private own(p: number): void {
    if (p === 0) return;
    if (this.live.some((each) => each.p === p)) expect.fail(`0x${p.toString(16)} was handed out twice`);
    const cookie = ++this.cookies;
    this.arenas[0].i32[p >> 2] = cookie;
    this.live.push({ p, cookie });
  }

  private disown(n: number): number[] {
    return this.live.splice(this.cookies % Math.max(1, this.live.length - n + 1), n).map(({ p, cookie }) => {
      const found = this.arenas[0].i32[p >> 2];
      if (found !== cookie) expect.fail(`0x${p.toString(16)} has ${found} in it, not ${cookie}`);
      return p;
    });
  }

  finish(): void {
    const [arena, other] = this.arenas;
    for (const each of this.arenas) {
      each.failPageAlloc(0);
      each.endTurn();
    }
    expectSound(arena);
    const cache = other.openCache('c');
    for (const p of this.disown(this.live.length)) cache.free(p);
    other.offline();
    expect(arena.openCache('c').destroy().leaked).toBe(0);
    expectSound(arena);
  }
}

forEachVariant((variant) => {
  it('agrees with the model', { timeout: 60_000 }, () => {
    fc.assert(
      fc.property(fc.array(step, { maxLength: 40 }), (steps) => {
        const model = new Model(bootVariant(variant, { bytes: 4 << 20, maxCaches: 24 }));
        for (const each of steps) model.run(each);
        model.finish();
      }),
      { numRuns: 25, seed: 20261121 },
    );
  });
});
