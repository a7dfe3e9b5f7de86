/** Real threads that run out of memory at once, a reclaim worker beside them, and CPUs that come and go under load. */

import { Worker } from 'node:worker_threads';
import { describe, expect, it } from 'vitest';
import { type Arena, GFP_NOWAIT, type LockPolicy, type ReclaimWorkerReport } from '#src/index.js';
import { barnSlot, nodeSlot } from '#src/slab/index.js';
import { Control } from '#workers/litmus/control.js';
import type { PressureResult } from '#workers/litmus/pressure.js';
import {
  allocMany,
  boot,
  expectSound,
  footprint,
  freeMany,
  inside,
  MiB,
  secondCpu,
} from '../cache/support/arena.js';
import { launch, runTeam, until } from '../litmus/support/team.js';
import { takePages } from './support.js';

const POLICIES: LockPolicy[] = ['turn', 'op'];

describe.each(POLICIES)('threads out of memory, policy %s', (lockPolicy) => {
  it('reclaim from each other at once, and all finish with nothing lost', async () => {
    const arena = boot({ bytes: 4 * MiB, cpus: 4, lockPolicy });
    arena.createCache('c', { size: 512 });
    const before = footprint(arena);
    arena.endTurn();
    const tasks = [1, 2, 3].map((cpu) => ({ cpu, ms: 600 }));
    const results = await runTeam<PressureResult>('exhaust', arena.handle, tasks);
    expect(results.flatMap(({ errors }) => errors)).toEqual([]);
    for (const { rounds } of results) expect(rounds).toBeGreaterThan(0);
    expectSound(arena);
    expect(footprint(arena)).toEqual(before);
  });
});

describe.each(POLICIES)('CPUs that come and go, policy %s', (lockPolicy) => {
  it('under load, while caches are made, shrunk and ended, lose nothing', async () => {
    const arena = boot({ bytes: 16 * MiB, cpus: 6, nodes: 2, lockPolicy });
    const cache = arena.createCache('c', { size: 192 });
    const control = new Control();
    const start = (role: string, args: Record<string, number>) =>
      launch<PressureResult>(role, { control, handle: arena.handle, args: { ...args, ms: 700 } });
    const members = [
      start('caretaker', { cpu: 4 }),
      start('exhaust', { cpu: 5 }),
      ...[1, 2, 3].map((seed) => start('plug', { seed })),
    ];
    await until(() => control.arrived === members.length);
    control.open();
    const results = await Promise.all(members.map(({ result }) => result));
    await Promise.all(members.map(({ exited }) => exited));
    expect(results.flatMap(({ errors }) => errors)).toEqual([]);
    for (const { rounds } of results) expect(rounds).toBeGreaterThan(0);
    expect(arena.onlineCpus).toEqual([0]);
    expectSound(arena);
    expect(cache.destroy()).toEqual({ cache: 'c', leaked: 0, objects: [] });
    expectSound(arena);
  });
});

describe('a node without a thread', () => {
  it('has the structures of every cache from when the cache is made', () => {
    const arena = boot({ nodes: 4, cpus: 4, bytes: 16 * MiB });
    const cache = arena.createCache('c', { size: 64 });
    for (const node of [0, 1, 2, 3]) {
      expect(arena.i32[nodeSlot(cache.desc, node)], `node ${node}`).not.toBe(0);
      expect(arena.i32[barnSlot(cache.desc, node)], `barn of node ${node}`).not.toBe(0);
      freeMany(cache, allocMany(cache, 1));
      const p = cache.allocNode(node);
      expect(inside(arena).slabs.pages.nodeOf(inside(arena).slabs.slabOf(p))).toBe(node);
      cache.free(p);
    }
    // The first thread of a node finds all it needs.
    const late = secondCpu(arena, 3);
    const theirs = late.openCache('c');
    freeMany(theirs, allocMany(theirs, 300));
    late.offline();
    arena.endTurn();
    expectSound(arena);
  });
});

describe('the reclaim worker', () => {
  /** Leaves some hundred pages in sheaves and barns. */
  const cached = (arena: Arena) => {
    for (const name of ['c0', 'c1', 'c2', 'c3']) {
      const cache = arena.createCache(name, { size: 4096 });
      freeMany(cache, allocMany(cache, 60));
    }
    arena.endTurn();
  };

  it('brings every zone to its high mark without asking anybody', () => {
    const arena = boot({ bytes: 32 * MiB });
    cached(arena);
    const { low, high } = arena.meminfo().nodes[0]!.watermarks;
    takePages(arena, GFP_NOWAIT);
    expect(arena.meminfo().freePages).toBeLessThan(low);
    const worker = arena.reclaimWorker();
    expect(worker.step()).toBeGreaterThan(0);
    expect(arena.meminfo().freePages).toBeGreaterThanOrEqual(high);
    expect(worker.report.wakeUps).toBe(1);
    expectSound(arena);
  });

  it('sleeps until a zone goes below low, reclaims, sleeps again, and ends when told', async () => {
    const arena = boot({ bytes: 32 * MiB });
    cached(arena);
    const file = new URL('../../dist/workers/reclaim.js', import.meta.url);
    const worker = new Worker(file, { workerData: { arena: arena.handle, cpu: 1 } });
    const report = new Promise<ReclaimWorkerReport>((resolve) => worker.once('message', resolve));
    const exited = new Promise((resolve) => worker.once('exit', resolve));
    await until(() => arena.onlineCpus.includes(1));
    const { high, low } = arena.meminfo().nodes[0]!.watermarks;
    const { freePages } = arena.meminfo();
    // Just below low: these are the pages that the sheaves, barns and empty slabs keep.
    const taken = Array.from({ length: freePages - low }, () => arena.allocPages(0, GFP_NOWAIT));
    expect(taken.every((p) => p !== 0)).toBe(true);
    arena.allocPages(0, GFP_NOWAIT);
    await until(() => arena.meminfo().freePages >= high);
    expect(arena.reclaimInfo().directReclaims).toBe(0);
    arena.stopReclaimWorkers();
    const { wakeUps, pages } = await report;
    await exited;
    expect(wakeUps).toBeGreaterThan(0);
    expect(pages).toBeGreaterThanOrEqual(high - low);
    expect(arena.onlineCpus).toEqual([0]);
    expectSound(arena);
  });
});
