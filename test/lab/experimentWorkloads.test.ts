import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { experimentNamed } from '#src/lab/experiments/index.js';
import { Cookies, type PrefilledSheaf, VerifiedObjects } from '#src/lab/heaps.js';
import { Stage } from '#src/lab/stage.js';
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
    (name) => !WORKLOADS.some((known) => known.name === name),
  );

  it.each(names.filter((name) => hasPrefill || !name.startsWith('reserve-sheaf')))(
    '%s keeps every cookie and gives everything back',
    async (name) => {
      const figures = await stage.runWorkload(name, 2000, { threads: 2, heap: 'verify' });
      expect(figures.problems).toEqual([]);
      // What comes out of a prefilled sheaf is counted nowhere; the calls that fill its window are.
      if (name.startsWith('percpu-')) return; // no objects at all
      expect(figures.paths.allocs).toBeGreaterThan(name.startsWith('reserve-sheaf') ? 100 : 2000);
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
