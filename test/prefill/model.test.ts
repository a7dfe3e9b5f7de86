/** Borrowed sheaves among everything else, against a model of what is whose. */

import fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import type { KmemCache, PrefilledSheaf } from '#src/cache/index.js';
import type { Arena, LockPolicy } from '#src/index.js';
import { boot, expectSound, secondCpu } from '../cache/support/arena.js';

const KINDS = ['prefill', 'pop', 'refill', 'return', 'alloc', 'free', 'bulk', 'shrink', 'endTurn'] as const;
interface Step {
  kind: (typeof KINDS)[number];
  /** Which CPU, and which of its sheaves or objects. */
  cpu: number;
  pick: number;
  n: number;
}

const steps = fc.array(
  fc.record<Step>({
    kind: fc.constantFrom(...KINDS, 'prefill', 'pop', 'pop', 'return'),
    cpu: fc.integer({ min: 0, max: 1 }),
    pick: fc.nat(1000),
    n: fc.oneof(fc.integer({ min: 1, max: 5 }), fc.integer({ min: 1, max: 200 })),
  }),
  { maxLength: 60 },
);

/** Both CPUs of an arena; every object is held by the test, or lies in a sheaf whose promise the model knows. */
class Model {
  readonly held: number[] = [];
  readonly owned = new Set<number>();
  private readonly loans: Array<Array<{ sheaf: PrefilledSheaf; promised: number }>> = [[], []];
  private readonly caches: KmemCache[];
  private readonly arenas: Arena[];

  constructor(lockPolicy: LockPolicy, size: number) {
    const arena = boot({ lockPolicy, bytes: 8 << 20, maxCaches: 24, check: 'full' });
    arena.createCache('c', { size });
    this.arenas = [arena, secondCpu(arena)];
    this.caches = this.arenas.map((each) => each.openCache('c'));
  }

  private own(p: number): void {
    if (p === 0) return;
    expect(this.owned.has(p), 'an object was handed out twice').toBe(false);
    this.owned.add(p);
    this.held.push(p);
  }

  private disown(pick: number): number {
    const at = pick % this.held.length;
    const p = this.held[at]!;
    this.held[at] = this.held.at(-1)!;
    this.held.pop();
    this.owned.delete(p);
    return p;
  }

  run({ kind, cpu, pick, n }: Step): void {
    const cache = this.caches[cpu]!;
    const loans = this.loans[cpu]!;
    const loan = loans[pick % Math.max(1, loans.length)];
    if (kind === 'prefill') {
      const sheaf = cache.prefill(n);
      if (sheaf !== null) loans.push({ sheaf, promised: n });
    } else if (kind === 'alloc') this.own(cache.alloc());
    else if (kind === 'free' && this.held.length > 0) cache.free(this.disown(pick));
    else if (kind === 'bulk') {
      const out = new Int32Array(n);
      if (cache.allocBulk(out, n)) for (const p of out) this.own(p);
    } else if (kind === 'shrink') cache.shrink();
    else if (kind === 'endTurn') this.arenas[cpu]!.endTurn();
    else if (loan !== undefined) this.use(kind, cache, loans, loan, n);
  }

  private use(
    kind: Step['kind'],
    cache: KmemCache,
    loans: Array<{ sheaf: PrefilledSheaf; promised: number }>,
    loan: { sheaf: PrefilledSheaf; promised: number },
    n: number,
  ): void {
    const { sheaf } = loan;
    if (kind === 'refill') {
      const filled = cache.refill(sheaf, n);
      if (filled === null) return;
      loan.sheaf = filled;
      loan.promised = Math.max(n, filled === sheaf ? loan.promised : 0);
    } else if (kind === 'pop') {
      for (let i = 0; i < n; i++) {
        const { size } = sheaf;
        const p = sheaf.alloc();
        expect(p === 0).toBe(size === 0);
        if (loan.promised > 0) expect(p).not.toBe(0);
        loan.promised = Math.max(0, loan.promised - 1);
        this.own(p);
      }
    } else if (kind === 'return') {
      cache.return(sheaf);
      loans.splice(loans.indexOf(loan), 1);
    }
  }

  endTurns(): void {
    for (const arena of this.arenas) arena.endTurn();
  }

  check(): void {
    this.endTurns();
    expectSound(this.arenas[0]!);
  }

  /** Everything goes back: by hand, or with the second CPU. */
  end(offline: boolean): void {
    if (offline) this.arenas[1]!.offline();
    for (const [cpu, loans] of this.loans.entries()) {
      if (cpu === 1 && offline) continue;
      for (const { sheaf } of loans) this.caches[cpu]!.return(sheaf);
    }
    for (const p of this.held) this.caches[0]!.free(p);
    if (!offline) this.endTurns();
    expectSound(this.arenas[0]!);
    expect(this.caches[0]!.destroy()).toEqual({ cache: 'c', leaked: 0, objects: [] });
    expectSound(this.arenas[0]!);
  }
}

const CASES = (['turn', 'op'] as LockPolicy[]).flatMap((policy) =>
  [64, 1024, 4096].map((size) => ({ policy, size })),
);

describe('borrowed sheaves among everything else', () => {
  it.each(CASES)('keep every object in one place, policy $policy, $size bytes', ({ policy, size }) => {
    fc.assert(
      fc.property(steps, fc.boolean(), (list, offline) => {
        const model = new Model(policy, size);
        for (const [i, step] of list.entries()) {
          model.run(step);
          if (i % 10 === 9) model.check();
        }
        model.end(offline);
      }),
      { numRuns: 40 },
    );
  });
});
