/** Real threads on one cache with arrays, with cookies in the objects; and threads that die at work on theirs. */
import { describe, expect, it } from 'vitest';
import type { KmemCache } from '#src/cache/index.js';
import { type Arena, LockError, type LockPolicy, type ReapReport, STAT_ITEMS } from '#src/index.js';
import { Control } from '#workers/litmus/control.js';
import { MAILBOX_AT, type Traffic } from '#workers/litmus/heap.js';
import { boot, expectSound, LONG, secondCpu } from '../cache/support/arena.js';
import { launch, runTeam, until } from '../litmus/support/team.js';
import { POLICIES, usedOf } from './support.js';

const WORKERS = [1, 2, 3, 4];

/** Every counter but those that stay 0 in this layer. */
function settle(arena: Arena, cache: KmemCache, results: Traffic[]): void {
  expect(results.flatMap(({ errors }) => errors)).toEqual([]);
  expectSound(arena);
  const allocs = results.reduce((sum, each) => sum + each.allocs, 0);
  const { ALLOC_SLOWPATH, FREE_SLOWPATH, ...rest } = cache.stats();
  const { ALLOC_PCA, FREE_PCA, PCA_REFILL } = cache.layerStats();
  expect(ALLOC_PCA! + ALLOC_SLOWPATH).toBe(allocs);
  expect(FREE_PCA! + FREE_SLOWPATH).toBe(allocs);
  expect(PCA_REFILL).toBeGreaterThan(0);
  expect(STAT_ITEMS.filter((item) => /SHEAF|BARN|FASTPATH/.test(item) && rest[item as never] !== 0)).toEqual(
    [],
  );
  expect(cache.destroy()).toEqual({ cache: 'c', leaked: 0, objects: [] });
  expectSound(arena);
}

const nodesFor = (lockPolicy: LockPolicy): number[] => (LONG ? [1, 2] : [lockPolicy === 'op' ? 1 : 2]);

describe.each(POLICIES)('four threads, policy %s', (lockPolicy) => {
  it.each(nodesFor(lockPolicy))('allocate and free their own objects, %i nodes', async (nodes) => {
    const arena = boot({ lockPolicy, cpus: 5, nodes, bytes: 32 << 20, layer: 'percpu-array' });
    const cache = arena.createCache('c', { size: 64 });
    const tasks = WORKERS.map((cpu) => ({ cpu, seed: cpu * 77, burst: 300, count: 30_000 }));
    settle(arena, cache, await runTeam<Traffic>('burst', arena.handle, tasks));
  });

  it.each(nodesFor(lockPolicy))(
    'free what others allocated, while somebody shrinks, %i nodes',
    async (nodes) => {
      const arena = boot({
        lockPolicy,
        cpus: 5,
        nodes,
        bytes: 32 << 20,
        layer: 'percpu-array',
        check: 'full',
      });
      const cache = arena.createCache('c', { size: 200, arraySize: 40 });
      const control = new Control();
      const tasks = WORKERS.map((cpu) => ({ cpu, seed: cpu * 91, slots: 500, node: -1, count: 20_000 }));
      const shrinking = setInterval(() => {
        cache.shrink();
        arena.endTurn();
      }, 5);
      const results = await runTeam<Traffic>('mailbox', arena.handle, tasks, control);
      clearInterval(shrinking);
      let left = 0;
      for (let i = 0; i < 500; i++) {
        const p = control.m[MAILBOX_AT + i]!;
        if (p === 0) continue;
        left++;
        cache.free(p);
      }
      arena.endTurn();
      expect(results.reduce((sum, { allocs, frees }) => sum + allocs - frees, 0)).toBe(left);
      settle(arena, cache, results);
    },
  );
});

describe.each(POLICIES)('a thread that ends without offline, policy %s', (lockPolicy) => {
  it('has its array drained by a survivor, and its counters folded', async () => {
    const arena = boot({ lockPolicy, layer: 'percpu-array' });
    const cache = arena.createCache('c', { size: 192 });
    const args = { cpu: 1, n: 50, freed: 20, how: 'exit' };
    const member = launch<number[]>('leave', { control: new Control(), handle: arena.handle, args });
    expect(await member.exited).toBe(7);
    expect(usedOf(arena, cache, 1)).toBeGreaterThan(0);
    expect(arena.cpuDead(1)).toEqual({ cpu: 1, heldLocks: [], notes: [] });
    expect(usedOf(arena, cache, 1)).toBe(0);
    expect(cache.layerStats()).toMatchObject({ ALLOC_PCA: 50, FREE_PCA: 20 });
    expectSound(arena);
    expect(cache.destroy().leaked).toBe(30);
  });
});

/** Stops a thread at its `at`-th moment of a lock in a phase of workers/litmus/kill.ts, kills it, and reaps it. */
async function killAt(lockPolicy: LockPolicy, phase: number, at: number): Promise<string | undefined> {
  const arena = boot({ cpus: 2, lockPolicy, bytes: 4 << 20, maxCaches: 24, layer: 'percpu-array' });
  const cache = arena.createCache('c', { size: 4096, arraySize: 8 });
  const control = new Control();
  const { worker, exited } = launch('stopAt', { control, handle: arena.handle, args: { cpu: 1, phase, at } });
  await until(() => control.get(0) !== 0);
  const stopped = control.get(0) === 1;
  await worker.terminate();
  await exited;
  if (!stopped) return undefined;
  let report: ReapReport;
  try {
    report = arena.cpuDead(1);
  } catch (error) {
    // The flush needs a lock that died with the thread, and says so.
    expect(error).toBeInstanceOf(LockError);
    return '';
  }
  if (report.heldLocks.length > 0) return '';
  // What was in hand may be lost, with a note; but nothing is in two places, and an array is never half done.
  const meant = (invariant: string) => report.notes.length > 0 && !['I1', 'I2', 'I13'].includes(invariant);
  const wrong = () => arena.validate().filter(({ invariant }) => !meant(invariant));
  const problems = [
    ...wrong().map(({ what }) => what),
    ...report.notes.filter((note) => /given up/.test(note)),
  ];
  const heir = secondCpu(arena, 1);
  const caches = [cache, heir.openCache('c')];
  const held = caches.flatMap((each) => Array.from({ length: 20 }, () => each.alloc()));
  if (new Set(held).size !== held.length) problems.push('an object was handed out twice');
  for (const [i, p] of held.entries()) caches[i % 2]!.free(p);
  heir.offline();
  cache.shrink();
  return [...problems, ...wrong().map(({ what }) => what)].join(' ');
}

describe.each(POLICIES)('a thread that dies in an operation, policy %s', (lockPolicy) => {
  it.each([
    ['allocating', 0],
    ['freeing', 1],
    ['allocating in bulk', 2],
    ['freeing in bulk', 3],
  ])('%s: its array is drained, nothing is in two places', async (_, phase) => {
    let reached = 0;
    for (let at = 1; at <= (LONG ? 12 : 3); at += 3) {
      const found = await Promise.all([at, at + 1, at + 2].map((each) => killAt(lockPolicy, phase, each)));
      const stopped = found.filter((wrong) => wrong !== undefined);
      reached += stopped.length;
      expect(stopped.filter((wrong) => wrong !== '')).toEqual([]);
      if (stopped.length < 3) break;
    }
    expect(reached).toBeGreaterThan(0);
  });
});
