/** Real threads that interrupt themselves, and one that dies in the interruption. */

import { describe, expect, it } from 'vitest';
import type { LockPolicy } from '#src/index.js';
import { Control } from '#workers/litmus/control.js';
import type { Interrupted } from '#workers/litmus/nolock.js';
import { boot, expectSound, footprint } from '../cache/support/arena.js';
import { launch, runTeam, until } from '../litmus/support/team.js';

const CASES = (['turn', 'op'] as LockPolicy[]).flatMap((lockPolicy) =>
  [1, 2].map((nodes) => ({ lockPolicy, nodes })),
);

describe.each(CASES)('four threads, policy $lockPolicy, $nodes nodes', ({ lockPolicy, nodes }) => {
  it('interrupted at every third lock: nobody gets what is not his, nothing is lost', async () => {
    const arena = boot({ cpus: 5, nodes, lockPolicy, bytes: 32 << 20 });
    const before = footprint(arena);
    const tasks = [1, 2, 3, 4].map((cpu) => ({ cpu, seed: cpu * 31 + nodes, ms: 500 }));
    const results = await runTeam<Interrupted>('interrupted', arena.handle, tasks);
    expect(results.flatMap(({ errors }) => errors)).toEqual([]);
    for (const { calls, got, rounds } of results) {
      expect(rounds).toBeGreaterThan(0);
      expect(got).toBeGreaterThan(0);
      expect(calls).toBeGreaterThanOrEqual(got);
    }
    expectSound(arena);
    expect(footprint(arena)).toEqual(before);
    expectSound(arena);
  });
});

describe('a thread that dies in a restricted call', () => {
  it.each(['turn', 'op'] as LockPolicy[])(
    'leaves a record of the lock that it interrupted and of its own, policy %s',
    async (lockPolicy) => {
      const arena = boot({ cpus: 2, lockPolicy });
      arena.createCache('c', { size: 4096 });
      const control = new Control();
      const { worker, exited } = launch('stopNested', { control, handle: arena.handle, args: { cpu: 1 } });
      await until(() => control.get(0) !== 0);
      expect(control.get(0)).toBe(1);
      await worker.terminate();
      await exited;
      const [outer, inner] = [control.get(1), control.get(2)];
      expect(outer).not.toBe(inner);
      let held: number[] = [];
      try {
        held = arena.cpuDead(1).heldLocks;
      } catch {
        // The reaper may need one of them; both are marked by then.
        held = [outer, inner].filter((lock) => (arena.i32[lock]! & (1 << 29)) !== 0);
      }
      expect(held.sort()).toEqual([outer, inner].sort());
    },
  );
});
