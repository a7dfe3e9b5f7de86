import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { experimentNamed } from '#src/lab/experiments/index.js';
import { Cookies, type PrefilledSheaf, VerifiedObjects } from '#src/lab/heaps.js';
import { Stage } from '#src/lab/stage.js';
import { byPage, PAGE_RUNS } from '#src/lab/workloads/byPage.js';
import {
  EXPERIMENT_WORKLOADS,
  WORKLOADS,
  type WorkloadContext,
  workloadNamed,
} from '#src/lab/workloads/index.js';
import { BOUND, reserve } from '#src/lab/workloads/reserve.js';
import { slubBulk } from '#src/lab/workloads/slubBulk.js';

const MIB = 2 ** 20;
const hasPrefill = experimentNamed('prefill').missing?.() === undefined;

describe('workloads that only experiments run', () => {
  let stage: Stage;
  beforeAll(() => {
    stage = new Stage({ bytes: 64 * MIB, threads: 2 });
  });
  afterAll(async () => {
    expect(await stage.close()).toEqual([]);
    expect(stage.leaked).toBe(0);
  });

  const names = [...new Set(EXPERIMENT_WORKLOADS.map(({ name }) => name))].filter(
    (name) => !WORKLOADS.some((known) => known.name === name) && name !== 'exhaust',
  );

  it.each(names.filter((name) => hasPrefill || !name.startsWith('reserve-sheaf')))(
    '%s keeps every cookie and gives everything back',
    async (name) => {
      const figures = await stage.runWorkload(name, 2000, { threads: 2, heap: 'verify' });
      expect(figures.problems).toEqual([]);
      if (name.startsWith('percpu-')) return; // no objects at all
      if (name.startsWith('faults-')) return; // all threads but one only look
      // Whole pages are counted nowhere. Nor is what comes out of a prefilled sheaf, but the calls that fill its window.
      if (/^kmalloc-.*-16384$/.test(name)) expect(figures.totalOps).toBeGreaterThanOrEqual(2000);
      else expect(figures.paths.allocs).toBeGreaterThan(name.startsWith('reserve-sheaf') ? 100 : 2000);
    },
  );

  it('slub-bulk has no more objects alive than fit', async () => {
    const { opsMax } = slubBulk(512);
    expect(opsMax).toBe((8 * MIB) / 512);
    const figures = await stage.runWorkload('slub-bulk-512', 1e9, { threads: 1 });
    expect(figures.totalOps).toBe(opsMax);
    expect(figures.paths.fromSlabs).toBeGreaterThan(opsMax! / 2);
  });
});

/** Prefilled sheaves as a stack of numbers; tells how many objects are out. */
class FakeHeap {
  readonly objsPerSlab = 16;
  readonly out = new Set<number>();
  readonly calls: string[] = [];
  #next = 8;

  alloc(): number {
    const p = this.#next;
    this.#next += 8;
    this.out.add(p);
    return p;
  }
  free(p: number): void {
    if (!this.out.delete(p)) throw new Error(`${p} is not out`);
  }
  allocBulk(list: Int32Array, n: number): boolean {
    for (let i = 0; i < n; i++) list[i] = this.alloc();
    return true;
  }
  freeBulk(list: Int32Array, n: number): void {
    for (let i = 0; i < n; i++) this.free(list[i]!);
  }
  prefill(n: number): PrefilledSheaf {
    this.calls.push(`prefill ${n}`);
    return { alloc: () => this.alloc() };
  }
  return(): void {
    this.calls.push('return');
  }
}

describe('providing for the worst case', () => {
  it.each(['sheaf', 'bulk', 'plain'] as const)('by %s uses k objects an operation and loses none', (way) => {
    for (const used of [1, 2, 3]) {
      const objects = new FakeHeap();
      const context = { objects, i32: new Int32Array(1 << 16) } as unknown as WorkloadContext;
      const run = reserve(way, used).prepare(context, 100);
      run.fill!();
      const live = objects.out.size;
      run.run();
      expect(objects.out.size).toBe(live);
      expect(run.allocs).toBe(live + 100 * used);
      const borrowed = Array(100)
        .fill([`prefill ${BOUND}`, 'return'])
        .flat();
      expect(objects.calls).toEqual(way === 'sheaf' ? borrowed : []);
      run.drain!();
      expect(objects.out.size).toBe(0);
      expect(run.allocs).toBe(run.frees);
    }
  });

  it('checks cookies of objects from a prefilled sheaf', () => {
    const m = new Int32Array(1024);
    const cookies = new Cookies(m);
    const cache = Object.assign(new FakeHeap(), { objectSize: 32 });
    const objects = new VerifiedObjects(cache as never, cookies);
    const sheaf = objects.prefill(BOUND)!;
    const p = sheaf.alloc();
    objects.free(p);
    expect(cookies.errors).toBe(0);
    const q = sheaf.alloc();
    m[(q >> 2) + 1] = 0;
    objects.free(q);
    expect(cookies.errors).toBe(1);
    objects.return(sheaf);
    expect(cache.calls).toEqual([`prefill ${BOUND}`, 'return']);
  });

  it('is found by name', () => {
    expect(workloadNamed('reserve-sheaf-3').objectSize).toBe(256);
  });
});

describe('exhaust', () => {
  it('runs out of memory, loses nothing and gives everything back', async () => {
    const stage = new Stage({ bytes: 8 * MIB, threads: 1 });
    const { problems, totalOps } = await stage.runWorkload('exhaust', 20_000, { threads: 1, heap: 'verify' });
    expect({ problems, totalOps }).toEqual({ problems: [], totalOps: 16_384 });
    expect(stage.arena.meminfo().highWaterPages).toBeGreaterThan(1700);
    expect(await stage.close()).toEqual([]);
    expect(stage.leaked).toBe(0);
  });

  it('says so where memory does not run out, and gives back what it has', async () => {
    const stage = new Stage({ bytes: 32 * MIB, threads: 1 });
    await expect(stage.runWorkload('exhaust', 1, { threads: 1 })).rejects.toThrow(
      /had more: run the workload/,
    );
    expect(await stage.close()).toEqual([]);
    expect(stage.leaked).toBe(0);
  });
});

describe('objects by page', () => {
  it.each(PAGE_RUNS)('come %i in a row from a page', (run) => {
    const heap = new FakeHeap();
    const batches: number[][] = [];
    heap.allocBulk = (list, n) => {
      for (let i = 0; i < n; i++) list[i] = nextOnPage();
      return true;
    };
    heap.freeBulk = (list, n) => void batches.push([...list.subarray(0, n)]);
    // 4096 objects, 16 on each page, so that each of the 16 lists has 256.
    let made = 0;
    const nextOnPage = (): number => {
      const p = ((made >> 4) << 12) + (made & 15) * 64;
      made++;
      return p;
    };
    const { fill, run: loop, allocs, frees } = byPage(run).prepare({ objects: heap } as never, 128);
    fill!();
    loop();
    expect(made).toBe(allocs);
    expect(frees).toBe(allocs);
    const lists = batches[0]!.map((p) => (p >> 12) & 15);
    const runs = [1];
    for (let i = 1; i < lists.length; i++) {
      if (lists[i] === lists[i - 1]) runs[runs.length - 1]!++;
      else runs.push(1);
    }
    const whole = Math.floor(64 / run);
    expect(runs).toEqual([...Array(whole).fill(run), ...(64 % run > 0 ? [64 % run] : [])]);
  });
});

describe('one that allocates for all others', () => {
  it.each([2, 4])('deals everything out, %i threads', async (threads) => {
    const stage = new Stage({ bytes: 64 * MIB, threads: 4 });
    const { problems, totalOps } = await stage.runWorkload('kmalloc-one-256', 3200, {
      threads,
      heap: 'verify',
    });
    expect({ problems, totalOps }).toEqual({ problems: [], totalOps: 3200 * threads });
    expect(await stage.close()).toEqual([]);
  });
});
