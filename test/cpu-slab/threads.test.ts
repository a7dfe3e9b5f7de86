/** Real threads on one cache of layer 'cpu-slab' or 'none'. Every object carries its owner's cookie. */

import { describe, expect, it } from 'vitest';
import type { Layer } from '#src/struct/index.js';
import { Control } from '#workers/litmus/control.js';
import { MAILBOX_AT, type Traffic } from '#workers/litmus/heap.js';
import { boot, expectSound } from '../cache/support/arena.js';
import { launch, runTeam } from '../litmus/support/team.js';
import { POLICIES } from './support.js';

const SLOTS = 60;
const CASES = (['cpu-slab', 'none'] as Layer[]).flatMap((layer) =>
  POLICIES.map((lockPolicy, i) => ({ layer, lockPolicy, nodes: 1 + i })),
);

describe.each(CASES)('layer $layer, policy $lockPolicy, $nodes nodes', ({ layer, lockPolicy, nodes }) => {
  const begin = (size: number) => {
    const arena = boot({ bytes: 32 << 20, cpus: 5, lockPolicy, nodes });
    const cache = arena.createCache('c', { size, layer });
    cache.minPartial = 0;
    const settle = (results: Traffic[]): void => {
      expect(results.flatMap(({ errors }) => errors)).toEqual([]);
      arena.endTurn();
      expectSound(arena);
      const allocs = results.reduce((sum, each) => sum + each.allocs, 0);
      const { ALLOC_FASTPATH, ALLOC_SLOWPATH, FREE_FASTPATH, FREE_SLOWPATH } = cache.stats();
      expect(ALLOC_FASTPATH + ALLOC_SLOWPATH).toBe(allocs);
      expect(FREE_FASTPATH + FREE_SLOWPATH).toBe(allocs);
      expect(cache.destroy()).toEqual({ cache: 'c', leaked: 0, objects: [] });
      expectSound(arena);
    };
    return { arena, cache, settle };
  };

  it.each([
    ['small objects', 64],
    ['slabs of 2 objects that come and go', 16_000],
  ])('objects are freed by whoever finds them: %s', async (_, size) => {
    const { arena, cache, settle } = begin(size);
    const control = new Control();
    const tasks = [1, 2, 3].map((cpu) => ({ cpu, seed: cpu * 99, slots: SLOTS, node: -1, count: 8000 }));
    const results = await runTeam<Traffic>('mailbox', arena.handle, tasks, control);
    for (let i = 0; i < SLOTS; i++) {
      if (control.m[MAILBOX_AT + i] !== 0) cache.free(control.m[MAILBOX_AT + i]!);
    }
    settle(results);
  });

  it('bursts, while another CPU shrinks', async () => {
    const { arena, settle } = begin(1024);
    const control = new Control();
    const shrinker = launch<{ shrinks: number }>('shrinker', {
      control,
      handle: arena.handle,
      args: { cpu: 4, count: 50 },
    });
    const tasks = [1, 2, 3].map((cpu) => ({ cpu, seed: cpu * 77, burst: 100, count: 8000 }));
    const results = await runTeam<Traffic>('burst', arena.handle, tasks, control);
    expect((await shrinker.result).shrinks).toBe(50);
    await shrinker.exited;
    settle(results);
  });
});
