/** Random operations of two CPUs against a model: every object is somebody's once, and nothing is missing in the end. */

import { fc, test } from '@fast-check/vitest';
import { describe, expect } from 'vitest';
import type { KmemCache } from '#src/cache/index.js';
import type { Arena } from '#src/index.js';
import type { Layer } from '#src/struct/index.js';
import { boot, expectSound, LONG, secondCpu } from '../cache/support/arena.js';
import { POLICIES } from './support.js';

const OPS = [
  'alloc',
  'alloc',
  'allocBulk',
  'allocNode',
  'free',
  'free',
  'freeBulk',
  'shrink',
  'endTurn',
  'fail',
] as const;

interface Step {
  cpu: number;
  op: (typeof OPS)[number];
  n: number;
}

const steps = fc.array(
  fc.record({ cpu: fc.nat(1), op: fc.constantFrom(...OPS), n: fc.nat(60) }) as fc.Arbitrary<Step>,
  { maxLength: 120, size: 'max' },
);

class Model {
  readonly held: number[] = [];
  allocs = 0;
  private readonly arenas: Arena[];
  private readonly caches: KmemCache[];
  private readonly nodes: number;

  constructor(arenas: Arena[], nodes: number) {
    this.arenas = arenas;
    this.caches = arenas.map((arena) => arena.openCache('c'));
    this.nodes = nodes;
  }

  private take(objects: Iterable<number>): void {
    for (const p of objects) {
      if (p === 0) continue;
      if (this.held.includes(p)) expect.fail(`0x${p.toString(16)} was handed out twice`);
      this.held.push(p);
      this.allocs++;
    }
  }

  private give(n: number): number[] {
    // From both ends, so that old slabs empty and new ones, too.
    return n % 2 === 0 ? this.held.splice(0, n) : this.held.splice(Math.max(0, this.held.length - n));
  }

  run({ cpu, op, n }: Step): void {
    const cache = this.caches[cpu]!;
    const arena = this.arenas[cpu]!;
    const out = new Int32Array(n + 1);
    if (op === 'alloc') this.take(Array.from({ length: n }, () => cache.alloc()));
    else if (op === 'allocNode') this.take([cache.allocNode(n % this.nodes)]);
    else if (op === 'allocBulk') {
      if (cache.allocBulk(out, n + 1)) this.take(out);
    } else if (op === 'free') for (const p of this.give(n)) cache.free(p);
    else if (op === 'freeBulk') {
      const list = Int32Array.from(this.give(n));
      cache.freeBulk(list, list.length);
    } else if (op === 'fail') arena.failPageAlloc(n % 4);
    else {
      // Both are on this thread: the other CPU cannot answer within its turn.
      for (const each of this.arenas) each.endTurn();
      if (op === 'shrink') expect(cache.shrink().skippedCpus).toEqual([]);
    }
  }

  settle(): void {
    for (const arena of this.arenas) arena.endTurn();
    expectSound(this.arenas[0]!);
  }
}

const CASES = (['cpu-slab', 'none'] as Layer[]).flatMap((layer) =>
  POLICIES.flatMap((lockPolicy) => [1, 2].map((nodes) => ({ layer, lockPolicy, nodes }))),
);

describe.each(CASES)('layer $layer, policy $lockPolicy, $nodes nodes', ({ layer, lockPolicy, nodes }) => {
  test.prop(
    [steps, fc.constantFrom(24, 192, 1024, 4096, 20_000), fc.constantFrom('free' as const, 'full' as const)],
    {
      numRuns: LONG ? 40 : 10,
    },
  )('nothing is lost and nothing is given twice', (list, size, check) => {
    const arena = boot({ lockPolicy, nodes, check, maxCaches: 24 });
    arena.createCache('c', { size, layer });
    const model = new Model([arena, secondCpu(arena)], nodes);
    list.forEach((step, i) => {
      model.run(step);
      if (i % 16 === 0) model.settle();
    });
    model.settle();
    const cache = arena.openCache('c');
    for (const p of model.held) cache.free(p);
    model.settle();
    const { ALLOC_FASTPATH, ALLOC_SLOWPATH, FREE_FASTPATH, FREE_SLOWPATH } = cache.stats();
    // An allocation that failed counts as a slow one, and one of a bulk that failed as a free, too.
    expect(ALLOC_FASTPATH + ALLOC_SLOWPATH).toBeGreaterThanOrEqual(model.allocs);
    expect(FREE_FASTPATH + FREE_SLOWPATH).toBeGreaterThanOrEqual(model.allocs);
    expect(cache.destroy()).toEqual({ cache: 'c', leaked: 0, objects: [] });
    expectSound(arena);
  });
});
