import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { Arena } from '#src/index.js';
import { Cookies, VerifiedBlocks, VerifiedObjects } from '#src/lab/heaps.js';
import { Stage } from '#src/lab/stage.js';
import { WORKLOADS, workloadNamed } from '#src/lab/workloads/index.js';
import { drawSizes } from '#src/lab/workloads/mixed.js';
import { seedFor, shuffle } from '#src/lab/workloads/workload.js';

const MIB = 2 ** 20;
const OPS = 3000;

describe.each(['turn', 'op'] as const)("workloads on two threads under '%s'", (lockPolicy) => {
  let stage: Stage;
  beforeAll(() => {
    stage = new Stage({ bytes: 32 * MIB, threads: 2, lockPolicy });
  });
  afterAll(async () => {
    expect(await stage.close()).toEqual([]);
    expect(stage.leaked).toBe(0);
  });

  it.each(WORKLOADS.map(({ name }) => name))(
    '%s keeps every cookie and gives everything back',
    async (name) => {
      const { threadsMultiple = 1 } = workloadNamed(name);
      for (const threads of [1, 2]) {
        if (threads % threadsMultiple !== 0) continue;
        for (const seed of [1, 2]) {
          const figures = await stage.runWorkload(name, OPS, { threads, heap: 'verify', seed });
          expect(figures.problems).toEqual([]);
          expect(figures.paths.allocs).toBeGreaterThan(0);
        }
      }
    },
  );

  it('counts operations and time', async () => {
    const figures = await stage.runWorkload('batch-100', 1050, { threads: 2 });
    expect(figures.totalOps).toBe(2000);
    expect(figures.nsPerOp).toBeCloseTo((figures.wallMs * 1e6) / 1000);
    expect(figures.paths.fast + figures.paths.slow).toBeGreaterThanOrEqual(4000);
  });
});

describe('a stage', () => {
  it('samples every 64th call into one histogram of all threads', async () => {
    const stage = new Stage({ bytes: 16 * MIB, threads: 2 });
    const { histogram } = await stage.runWorkload('pair', 6400, { threads: 2, heap: 'sampled' });
    expect(histogram?.count).toBe((2 * 2 * 6400) / 64);
    expect(histogram?.percentile(50)).toBeLessThanOrEqual(histogram!.max);
    expect(await stage.close()).toEqual([]);
  });

  it('hands out lock statistics of one run at a time', async () => {
    const stage = new Stage({ bytes: 16 * MIB, threads: 2, lockStat: 'contended' });
    await stage.runWorkload('batch-1000', 20_000, { threads: 2 });
    const busy = stage.takeLockStat().find(({ name }) => name === 'n->list_lock');
    expect(busy?.acquisitions).toBeGreaterThan(0);
    expect(stage.takeLockStat().every(({ acquisitions }) => acquisitions === 0)).toBe(true);
    expect(await stage.close()).toEqual([]);
  });

  it('says that the arena is too small', async () => {
    const stage = new Stage({ bytes: 4 * MIB, threads: 1 });
    while (stage.arena.allocPages(0) !== 0);
    await expect(stage.runWorkload('mixed', 100, { threads: 1 })).rejects.toThrow(
      /the arena is out of memory/,
    );
    await stage.close();
  });

  it('notices what a workload did not give back', async () => {
    const stage = new Stage({ bytes: 16 * MIB, threads: 1 });
    await stage.runWorkload('pair', 10, { threads: 1 });
    stage.arena.openCache('lab-pair').alloc();
    expect(await stage.close()).toEqual(['1 objects of lab-pair were never freed']);
  });
});

describe('cookies', () => {
  function setUp() {
    const arena = Arena.create({ bytes: 4 * MIB, cpus: 1 });
    arena.online();
    const cache = arena.createCache('cookies', { size: 64 });
    const cookies = new Cookies(arena.i32);
    return { arena, cache, cookies, objects: new VerifiedObjects(cache, cookies) };
  }

  it('are there from allocation to free, in objects and in blocks', () => {
    const { arena, cookies, objects } = setUp();
    const blocks = new VerifiedBlocks(arena, cookies);
    const kept = [objects.alloc(), objects.alloc(), objects.alloc()];
    const sized = [8, 13, 100, 8192].map((size) => blocks.kmalloc(size));
    for (const p of [...kept, ...sized]) arena.i32[p >> 2] = 7;
    for (const p of kept) objects.free(p);
    for (const p of sized) blocks.kfree(p);
    const list = new Int32Array(20);
    expect(objects.allocBulk(list, 20)).toBe(true);
    objects.freeBulk(list, 20);
    expect(cookies.errors).toBe(0);
  });

  it('show an object that is overwritten', () => {
    const { arena, cookies, objects } = setUp();
    for (const word of [1, 15]) {
      const p = objects.alloc();
      arena.i32[(p >> 2) + word] ^= 1;
      objects.free(p);
    }
    expect(cookies.errors).toBe(2);
  });

  it('show an object that is handed out twice', () => {
    const { cache, cookies, objects } = setUp();
    const p = objects.alloc();
    cache.free(p);
    expect(objects.alloc()).toBe(p);
    expect(cookies.errors).toBe(1);
  });
});

describe('random choices', () => {
  it('are the same for the same seed and differ between threads', () => {
    const order = (rank: number) =>
      shuffle(
        Int32Array.from({ length: 100 }, (_, i) => i),
        seedFor(1, rank),
      );
    expect(order(0)).toEqual(order(0));
    expect(order(0)).not.toEqual(order(1));
    expect([...order(0)].sort((a, b) => a - b)).toEqual(Array.from({ length: 100 }, (_, i) => i));
  });

  it('draw all kmalloc sizes, small ones more often', () => {
    const sizes = [...drawSizes(seedFor(1, 0))];
    expect(Math.min(...sizes)).toBe(1);
    expect(Math.max(...sizes)).toBeGreaterThan(4096);
    expect(Math.max(...sizes)).toBeLessThanOrEqual(8192);
    const share = (from: number, to: number) =>
      sizes.filter((size) => size > from && size <= to).length / sizes.length;
    expect(share(0, 8)).toBeGreaterThan(share(8, 16));
    expect(share(8, 16)).toBeGreaterThan(share(512, 1024));
    for (let top = 8; top <= 8192; top *= 2) expect(share(top === 8 ? 0 : top / 2, top)).toBeGreaterThan(0);
  });

  it('names the workloads there are when one is not known', () => {
    expect(() => workloadNamed('larsen')).toThrow(/workload is "larsen"; it must be one of pair, .*larson/);
  });
});
