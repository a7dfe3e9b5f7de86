/** Percpu memory on real threads: areas that change hands, chunks that come and go, a reclaim worker, and kills. */
import { Worker } from 'node:worker_threads';
import { describe, expect, it } from 'vitest';
import {
  GFP_ATOMIC,
  LockError,
  PERCPU_COUNTER_BYTES,
  type PercpuOptions,
  type ReapReport,
} from '#src/index.js';
import { Control, FREE_WORDS } from '#workers/litmus/control.js';
import { type PercpuChurn, PLACES } from '#workers/litmus/percpu.js';
import { expectSound } from '../cache/support/arena.js';
import { launch, runTeam, until } from '../litmus/support/team.js';
import { bootPercpu, info, KiB } from './support.js';

const MS = Number(process.env.GRANARY_PERCPU_MS ?? 250);
const RECLAIM = new URL('../../dist/workers/reclaim.js', import.meta.url);

const CONFIGS: Array<[string, PercpuOptions]> = [
  ['as the kernel', {}],
  ['with a cache of areas', { areaCache: 8 }],
  ['with areas in batches, two CPUs a cache', { areaCache: 16, areaBatch: 4, cpusPerAreaCache: 2 }],
];

describe.each(CONFIGS)('threads that allocate and free together, %s', (_, percpu) => {
  it('get areas of their own, and everything comes back', async () => {
    const arena = bootPercpu({ cpus: 4, bytes: 32 << 20, percpu });
    const control = new Control();
    arena.endTurn();
    const tasks = [1, 2, 3].map((cpu) => ({ cpu, seed: 31 + cpu, ms: MS }));
    const results = await runTeam<PercpuChurn>('percpu-churn', arena.handle, tasks, control);
    expect(results.flatMap(({ errors }) => errors)).toEqual([]);
    const sum = (of: (result: PercpuChurn) => number): number => results.reduce((n, r) => n + of(r), 0);
    expect(sum((r) => r.allocs)).toBeGreaterThan(300);
    expect(sum((r) => r.balances)).toBeGreaterThan(0);
    expectSound(arena);
    const left = Array.from({ length: PLACES }, (_, i) => control.m[FREE_WORDS + i]!).filter((p) => p !== 0);
    expect(sum((r) => r.allocs) - sum((r) => r.frees)).toBe(left.length);
    for (const p of left) arena.freePercpu(p);
    arena.percpu.drainAreas();
    arena.percpu.balance();
    arena.percpu.balance();
    expect(info(arena).nrAlloc).toBe(0);
    expect(info(arena).nrChunks).toBeLessThanOrEqual(1);
    expectSound(arena);
  });
});

it('a reclaim worker does the balance work', async () => {
  const arena = bootPercpu({ cpus: 2 });
  const worker = new Worker(RECLAIM, { workerData: { arena: arena.handle, cpu: 1 } });
  const exited = new Promise((resolve) => worker.once('exit', resolve));
  await until(() => arena.i32[arena.geometry.pressure] === 1);
  expect(arena.allocPercpu(16, 8, GFP_ATOMIC)).toBe(0);
  await until(() => info(arena).nrEmptyPop >= 4);
  expect(arena.allocPercpu(16, 8, GFP_ATOMIC)).not.toBe(0);
  arena.stopReclaimWorkers();
  await exited;
  expectSound(arena);
});

it('counters are exact, and stay within a limit but for what CPUs add at the same moment', async () => {
  const arena = bootPercpu({ cpus: 4 });
  const fbc = arena.kmalloc(2 * PERCPU_COUNTER_BYTES);
  const limited = fbc + PERCPU_COUNTER_BYTES;
  expect(arena.percpu.counters.initMany(fbc, 0, 2)).toBe(true);
  arena.endTurn();
  const tasks = [1, 2, 3].map((cpu) => ({ cpu, n: 20_000, free: fbc, limited, limit: 30_000 }));
  const added = await runTeam<number>('percpu-count', arena.handle, tasks);
  const total = added.reduce((a, b) => a + b, 0);
  expect(total).toBeGreaterThanOrEqual(30_000);
  expect(total).toBeLessThan(30_000 + 3 * 8);
  expect([arena.percpu.counters.read(fbc), arena.percpu.counters.sum(limited)]).toEqual([60_000, total]);
  expectSound(arena);
});

describe('a thread that is killed', () => {
  it('at any time leaves chunks that are sound when it is reaped', { timeout: 30_000 }, async () => {
    const KILLS = Number(process.env.GRANARY_PERCPU_KILLS ?? 12);
    let repaired = 0;
    for (let kill = 0; kill < KILLS; kill++) {
      const arena = bootPercpu({ cpus: 2, bytes: 12 << 20 });
      arena.endTurn();
      const control = new Control();
      const { worker, exited } = launch('percpu-churn', {
        control,
        handle: arena.handle,
        args: { cpu: 1, seed: kill, ms: 60_000 },
      });
      await until(() => control.arrived === 1);
      control.open();
      await new Promise((resolve) => setTimeout(resolve, 20 + ((kill * 7) % 15)));
      await worker.terminate();
      await exited;
      let report: ReapReport;
      try {
        report = arena.cpuDead(1);
      } catch (error) {
        // A lock of the page layer died: nothing can be given back any more, and it says so.
        expect(error).toBeInstanceOf(LockError);
        continue;
      }
      const { heldLocks, notes } = report;
      if (notes.some((note) => note.includes('rebuilt'))) repaired++;
      const findings = arena.validate().filter(({ invariant }) => invariant === 'PERCPU');
      expect(findings, `kill ${kill}: ${notes.join('; ')}, ${heldLocks.length} locks`).toEqual([]);
      if (heldLocks.some((lock) => arena.i32[lock] !== 0)) continue; // a lock of the page or slab layers
      for (let i = 0; i < 40; i++) arena.freePercpu(arena.allocPercpu(1 + 800 * i));
      expect(arena.validate().filter(({ invariant }) => invariant === 'PERCPU')).toEqual([]);
    }
    console.log(`${KILLS} kills, ${repaired} of them in the percpu locks`);
  });
});

it('areas are large enough for what the kernel asks in one go', () => {
  const arena = bootPercpu({ cpus: 2, bytes: 32 << 20 });
  const areas = Array.from({ length: 60 }, () => arena.allocPercpu(32 * KiB));
  expect(info(arena).nrChunks).toBeGreaterThanOrEqual(60);
  for (const p of areas) arena.freePercpu(p);
  expectSound(arena);
});
