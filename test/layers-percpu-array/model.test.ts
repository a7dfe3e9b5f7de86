/** Any sequence of calls on two CPUs against a set of live objects, with memory that runs out now and then. */
import fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import { GFP_KERNEL, GFP_NOWAIT } from '#src/index.js';
import { expectSound, inside, secondCpu } from '../cache/support/arena.js';
import { expectBalanced, inUse, MODES, setup } from './support.js';

const CPU = fc.integer({ min: 0, max: 1 });
const N = fc.integer({ min: 1, max: 90 });
const STEP = fc.oneof(
  fc.record({ op: fc.constant('alloc' as const), cpu: CPU, n: N, wait: fc.boolean() }),
  fc.record({ op: fc.constant('free' as const), cpu: CPU, n: N }),
  fc.record({ op: fc.constant('allocBulk' as const), cpu: CPU, n: N }),
  fc.record({ op: fc.constant('freeBulk' as const), cpu: CPU, n: N }),
  fc.record({ op: fc.constant('prefill' as const), cpu: CPU, n: N }),
  fc.record({ op: fc.constant('endTurn' as const), cpu: CPU, n: N }),
  fc.record({ op: fc.constant('shrink' as const), cpu: CPU, n: N }),
  fc.record({ op: fc.constant('offline' as const), cpu: fc.constant(1), n: N }),
  fc.record({ op: fc.constant('fail' as const), cpu: CPU, n: fc.integer({ min: 0, max: 3 }) }),
);

const CASES = MODES.flatMap((mode) => [1, 2].map((nodes) => ({ ...mode, nodes })));

describe.each(CASES)('policy $lockPolicy, check $check, $nodes nodes', (mode) => {
  it('nothing is handed out twice, lost, or miscounted', () => {
    const arraySize = fc.constantFrom(1, 2, 9, 33, 70);
    fc.assert(
      fc.property(arraySize, fc.array(STEP, { minLength: 5, maxLength: 40 }), (size, steps) => {
        const { arena, cache } = setup({ ...mode, bytes: 4 << 20, maxCaches: 20 }, size, 512);
        const arenas = [arena, secondCpu(arena)];
        const caches = arenas.map((each) => each.openCache('c'));
        const live = new Set<number>();
        const out = new Int32Array(90);
        let failed = 0;
        const add = (p: number): void => {
          if (p === 0) {
            failed++;
            return;
          }
          expect(live.has(p), 'handed out twice').toBe(false);
          live.add(p);
        };
        const some = (n: number): number[] => [...live].slice(-n);
        for (const { op, cpu, n, ...rest } of steps) {
          const mine = caches[cpu]!;
          const gfp = 'wait' in rest && !rest.wait ? GFP_NOWAIT : GFP_KERNEL;
          if (op === 'alloc') for (let i = 0; i < n; i++) add(mine.alloc(gfp));
          else if (op === 'allocBulk') {
            if (mine.allocBulk(out, n)) for (const p of out.subarray(0, n)) add(p);
          } else if (op === 'free' || op === 'freeBulk') {
            const list = some(n);
            for (const p of list) live.delete(p);
            if (op === 'free') for (const p of list) mine.free(p);
            else mine.freeBulk(Int32Array.from(list), list.length);
          } else if (op === 'prefill') mine.prefillArray(Math.min(n, size));
          else if (op === 'endTurn') arenas[cpu]!.endTurn();
          else if (op === 'fail') arenas[cpu]!.failPageAlloc(n);
          else if (op === 'shrink') {
            // The other CPU is this thread, and could not answer within its turn.
            for (const each of arenas) each.endTurn();
            mine.shrink();
          } else {
            arenas[0]!.endTurn();
            arenas[1]!.offline();
            arenas[1]!.online({ cpu: 1 });
            caches[1] = arenas[1]!.openCache('c');
          }
        }
        for (const each of arenas) {
          each.endTurn();
          each.failPageAlloc(0);
        }
        expectSound(arena);
        // The slow path is counted when it is taken, whether it finds memory or not.
        expectBalanced(cache, live.size + failed);
        expect(inUse(arena, cache)).toBe(live.size);
        for (const p of live) cache.free(p);
        expect(inside(arena).cpu.locks.held).toBe(0);
        arenas[1]!.offline();
        expect(cache.destroy()).toEqual({ cache: 'c', leaked: 0, objects: [] });
        expectSound(arena);
      }),
      { numRuns: 12 },
    );
  });
});
