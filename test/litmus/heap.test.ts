/** Several real threads on one cache. Every object carries its owner's cookie; afterwards nothing may be missing. */

import { describe, expect, it } from 'vitest';
import type { KmemCache } from '#src/cache/index.js';
import type { Arena, ArenaOptions, CacheOptions, LockPolicy } from '#src/index.js';
import { Control } from '#workers/litmus/control.js';
import { MAILBOX_AT, type Traffic } from '#workers/litmus/heap.js';
import { barnSizes, boot, expectSound, inside, LONG, nodeCounts } from '../cache/support/arena.js';
import { launch, runTeam, until } from './support/team.js';

const steps = (n: number): number => (LONG ? n : 2 * Math.floor(n / 32));

const POLICIES: LockPolicy[] = ['turn', 'op'];

function setup(options: Partial<ArenaOptions>, cache: CacheOptions): { arena: Arena; cache: KmemCache } {
  const arena = boot({ bytes: 16 << 20, cpus: 4, ...options });
  return { arena, cache: arena.createCache('c', cache) };
}

/** All that is said to be freed is free, and the counters agree with what the threads did. */
function settle(arena: Arena, cache: KmemCache, results: Traffic[]): void {
  expect(results.flatMap(({ errors }) => errors)).toEqual([]);
  expectSound(arena);
  const allocs = results.reduce((sum, each) => sum + each.allocs, 0);
  const { ALLOC_FASTPATH, ALLOC_SLOWPATH, FREE_FASTPATH, FREE_SLOWPATH } = cache.stats();
  expect(ALLOC_FASTPATH + ALLOC_SLOWPATH).toBeGreaterThanOrEqual(allocs);
  expect(FREE_FASTPATH + FREE_SLOWPATH).toBe(allocs);
  const report = cache.destroy();
  expect(report).toEqual({ cache: 'c', leaked: 0, objects: [] });
  expectSound(arena);
}

/** Frees what the threads left in the mailbox. */
function emptyMailbox({ m }: Control, slots: number, cache: KmemCache): void {
  for (let i = 0; i < slots; i++) if (m[MAILBOX_AT + i] !== 0) cache.free(m[MAILBOX_AT + i]!);
}

describe.each(POLICIES)('policy %s', (lockPolicy) => {
  it.each([
    ['small objects', { size: 64 }, 200],
    ['sheaves of 4', { size: 4096 }, 12],
    ['one object per slab', { size: 20_000 }, 10],
  ] as Array<[string, CacheOptions, number]>)(
    'full sheaves pass from CPU to CPU: %s',
    async (_, options, burst) => {
      const barnFull = 10;
      const { arena, cache } = setup({ lockPolicy, bytes: 32 << 20, barnFull }, options);
      cache.minPartial = 1;
      const tasks = [1, 2, 3].map((cpu) => ({ cpu, seed: cpu * 77, burst, count: steps(30_000) }));
      const results = await runTeam<Traffic>('burst', arena.handle, tasks);
      expect(barnSizes(arena, cache).full.length, 'barn put at the limit').toBeLessThanOrEqual(barnFull + 3);
      settle(arena, cache, results);
    },
  );

  it.each([
    ['one node', { nodes: 1 }, { size: 64 }, 0],
    ['two nodes, every other free remote', { nodes: 2 }, { size: 256 }, 0],
    ['two nodes, slabs of 2 objects that come and go', { nodes: 2 }, { size: 16_000 }, 0],
  ] as Array<[string, Partial<ArenaOptions>, CacheOptions, number]>)(
    'objects are freed by whoever finds them, while their slabs are refilled from: %s',
    async (_, options, cacheOptions, minPartial) => {
      const { arena, cache } = setup({ lockPolicy, bytes: 32 << 20, ...options }, cacheOptions);
      cache.minPartial = minPartial;
      const control = new Control();
      const slots = 60;
      const tasks = [1, 2, 3].map((cpu) => ({ cpu, seed: cpu * 99, slots, node: -1, count: steps(60_000) }));
      const results = await runTeam<Traffic>('mailbox', arena.handle, tasks, control);
      emptyMailbox(control, slots, cache);
      settle(arena, cache, results);
    },
  );

  it('the last free of a slab races an allocation from it, past the sheaves', async () => {
    // Two CPUs of node 0 use node 1 alone: no sheaf takes part, and no slab is kept.
    const { arena, cache } = setup(
      { lockPolicy, nodes: 2, bytes: 32 << 20, lockStat: 'contended' },
      { size: 16_000 },
    );
    expect(cache.objsPerSlab).toBe(2);
    cache.minPartial = 0;
    const control = new Control();
    const slots = 2;
    const tasks = [0, 1].map((cpu) => ({ cpu, seed: cpu + 5, slots, node: 1, count: steps(50_000) }));
    arena.offline();
    const results = await runTeam<Traffic>('mailbox', arena.handle, tasks, control);
    arena.online({ cpu: 0 });
    const mine = arena.openCache('c');
    emptyMailbox(control, slots, mine);
    const { ALLOC_NODE_MISMATCH, ALLOC_SLAB, FREE_SLAB } = mine.stats();
    expect(ALLOC_NODE_MISMATCH).toBe(steps(50_000));
    expect(FREE_SLAB).toBe(ALLOC_SLAB);
    expect(FREE_SLAB).toBeGreaterThan(steps(1000));
    settle(arena, mine, results);
  });

  it('two CPUs free into the same full slabs at once', async () => {
    const { arena, cache } = setup({ lockPolicy, nodes: 2, bytes: 32 << 20 }, { size: 64 });
    // The objects lie on node 0; CPU 2 and 3 are of node 1, and free each straight to its slab.
    const control = new Control();
    const slots = 200;
    const tasks = [1, 2, 3].map((cpu) => ({ cpu, seed: cpu * 3, slots, node: 0, count: steps(60_000) }));
    const results = await runTeam<Traffic>('mailbox', arena.handle, tasks, control);
    emptyMailbox(control, slots, cache);
    expect(nodeCounts(arena, cache, 1).slabs).toBe(0);
    settle(arena, cache, results);
  });

  it('three threads come and go, and find their slots sound', async () => {
    const { arena, cache } = setup({ lockPolicy }, { size: 192 });
    const tasks = [1, 2, 3].map((seed) => ({ seed, count: steps(400) }));
    const results = await runTeam<Traffic>('comeAndGo', arena.handle, tasks);
    expect(arena.onlineCpus).toEqual([0]);
    settle(arena, cache, results);
  });

  it('two threads create the same caches at once: exactly one of them each', async () => {
    const arena = boot({ cpus: 3, lockPolicy });
    const count = 100;
    const tasks = [1, 2].map((cpu) => ({ cpu, count, threads: 2 }));
    const won = await runTeam<number[]>('createSame', arena.handle, tasks);
    const all = won.flat().sort((a, b) => a - b);
    expect(all).toEqual(Array.from({ length: count }, (_, i) => i));
    for (let i = 0; i < count; i++) {
      const cache = arena.openCache(`same-${i}`);
      expect(cache.objectSize).toBe(64 + 8 * i);
      expect(cache.destroy().leaked).toBe(0);
    }
    expectSound(arena);
  });

  it('caches are looked up while others come and go: found as they are, or not at all', async () => {
    const { arena, cache } = setup({ lockPolicy }, { size: 64 });
    const control = new Control();
    const members = [1, 2].map((cpu) =>
      launch<{ opened: number; errors: string[] }>('lookUp', {
        control,
        handle: arena.handle,
        args: { cpu },
      }),
    );
    const maker = launch('comeAndGoCaches', {
      control,
      handle: arena.handle,
      args: { cpu: 3, count: steps(1200) },
    });
    await until(() => control.arrived === 3);
    control.open();
    await maker.result;
    const found = await Promise.all(members.map(({ result }) => result));
    expect(found.flatMap(({ errors }) => errors)).toEqual([]);
    expect(found.every(({ opened }) => opened > 0)).toBe(true);
    settle(arena, cache, []);
  });

  it('shrinking while others allocate and free loses nothing', async () => {
    const { arena, cache } = setup({ lockPolicy }, { size: 256 });
    const control = new Control();
    const shrinker = launch<{ shrinks: number; skipped: number }>('shrinker', {
      control,
      handle: arena.handle,
      args: { cpu: 3, count: 150 },
    });
    await until(() => control.arrived === 1);
    const tasks = [1, 2].map((cpu) => ({ cpu, seed: cpu * 13, burst: 200, count: steps(60_000) }));
    const members = tasks.map((args) => launch<Traffic>('burst', { control, handle: arena.handle, args }));
    await until(() => control.arrived === 3);
    control.open();
    const results = await Promise.all(members.map(({ result }) => result));
    expect(await shrinker.result).toEqual({ shrinks: 150, skipped: 0 });
    settle(arena, cache, results);
  });
});

describe('the free slow path of the others', () => {
  it('was taken in these tests: a compare-exchange on a slab word failed at least once in a while', async () => {
    const { arena, cache } = setup({ nodes: 2, bytes: 32 << 20 }, { size: 64 });
    const control = new Control();
    const tasks = [2, 3].map((cpu) => ({ cpu, seed: cpu, slots: 2000, node: 0, count: steps(100_000) }));
    const results = await runTeam<Traffic>('mailbox', arena.handle, tasks, control);
    emptyMailbox(control, 2000, cache);
    console.log(`compare-exchanges that lost: ${cache.stat('CMPXCHG_DOUBLE_FAIL')}`);
    expect(inside(arena).cpu.locks.held).toBe(0);
    settle(arena, cache, results);
  });
});
