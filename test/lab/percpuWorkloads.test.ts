/** Objects that own percpu memory: where their fields lie, what constructors save, and replays with and without. */
import { fileURLToPath } from 'node:url';
import { describe, expect, it } from 'vitest';
import {
  EXPERIMENTS,
  type ExperimentResult,
  experimentNamed,
  runExperiment,
} from '#src/lab/experiments/index.js';
import { experimentReport } from '#src/lab/experiments/report.js';
import { Stage } from '#src/lab/stage.js';
import { compileTrace, OP_WORDS, withoutPercpu } from '#src/lab/trace/index.js';
import {
  CTOR_FIELDS_OFFSET,
  checkMm,
  MM_BYTES,
  mmStructCache,
  PCPU_CID,
  RSS_STAT,
  tracedMmCache,
} from '#src/lab/workloads/mmStruct.js';
import { bootPercpu, info } from '../percpu/support.js';

const shipped = fileURLToPath(new URL('../../bench/traces/exec.ftrace.txt.gz', import.meta.url));

describe('mm_struct', () => {
  it('keeps at its end what its constructor owns: counters, cid and, cleared by others, the CPU bitmap', () => {
    expect([CTOR_FIELDS_OFFSET, RSS_STAT, PCPU_CID, MM_BYTES]).toEqual([1448, 1448, 1576, 1600]);
    expect(RSS_STAT % 8).toBe(0);
  });

  it('has its percpu memory after free, allocation and memset up to the stop offset', () => {
    const arena = bootPercpu();
    const cache = arena.createCache(mmStructCache);
    const mm = cache.alloc();
    const { nrAlloc } = info(arena);
    // Two areas for each object of the slab, the one that is used as well as the others.
    expect(nrAlloc).toBe(2 * cache.objsPerSlab);
    const cid = arena.i32[(mm + PCPU_CID) >> 2]!;
    for (let life = 0; life < 3; life++) {
      arena.i32.fill(0, mm >> 2, (mm + CTOR_FIELDS_OFFSET) >> 2);
      arena.percpu.counters.add(mm + RSS_STAT, 7);
      expect(checkMm(arena, mm)).toMatch(/^BUG: Bad rss-counter state mm:0x\w+ type:0 val:7$/);
      arena.percpu.counters.add(mm + RSS_STAT, -7);
      expect(checkMm(arena, mm)).toBeUndefined();
      expect(arena.i32[(mm + PCPU_CID) >> 2]).toBe(cid);
      cache.free(mm);
      expect(cache.alloc()).toBe(mm);
    }
    cache.free(mm);
    expect(info(arena).nrAlloc).toBe(nrAlloc);
    cache.shrink();
    arena.endTurn();
    expect(info(arena).nrAlloc).toBe(0);
    expect(cache.destroy().leaked).toBe(0);
    expect(arena.validate()).toEqual([]);
  });

  it('is not made when its second area cannot be had, and the first goes back', () => {
    const arena = bootPercpu();
    const cache = arena.createCache(mmStructCache);
    const { alloc } = arena.percpu;
    let left = 5;
    arena.percpu.alloc = function (...args) {
      return left-- > 0 ? alloc.apply(this, args) : 0;
    };
    expect(cache.alloc()).toBe(0);
    arena.percpu.alloc = alloc;
    arena.endTurn();
    expect(info(arena).nrAlloc).toBe(0);
    expect(arena.validate()).toEqual([]);
  });
});

describe('constructors', () => {
  it.each([
    ['mm', 2],
    ['tc', 3],
  ])(
    'take pcpu_alloc_mutex once per object of a slab where %s takes it %i times each',
    async (kind, areas) => {
      const stage = new Stage({ threads: 1, bytes: 32 << 20, lockStat: 'contended' });
      const perOp = async (workload: string): Promise<number> => {
        await stage.runWorkload(workload, 500, { threads: 1 });
        stage.takeLockStat();
        expect((await stage.runWorkload(workload, 2000, { threads: 1 })).problems).toEqual([]);
        return stage.takeLockStat().find(({ name }) => name === 'pcpu_alloc_mutex')!.acquisitions / 2000;
      };
      const plain = await perOp(`${kind}-plain`);
      expect(plain).toBeGreaterThanOrEqual(areas);
      expect(plain).toBeLessThan(areas * 1.1);
      expect(await perOp(`${kind}-ctor`)).toBeLessThan(0.1);
      expect(await stage.close()).toEqual([]);
    },
  );
});

describe('a trace without its percpu memory', () => {
  it('is the same but for that, and as sound', async () => {
    const program = await compileTrace(shipped, { cpus: 2 });
    const { percpuAllocs, percpuFrees, percpuImplicitFrees } = program.summary;
    const less = withoutPercpu(program, 'mm_struct', tracedMmCache.name);
    const opsOf = ({ ops }: typeof program): number => ops.reduce((n, each) => n + each.length / OP_WORDS, 0);
    expect(percpuAllocs).toBeGreaterThan(300);
    expect(opsOf(program) - opsOf(less)).toBe(percpuAllocs + percpuFrees + percpuImplicitFrees);
    expect(less.summary).toEqual(program.summary);
    const stage = new Stage({ threads: 2, bytes: 96 << 20, maxCaches: 120, lockStat: 'contended' });
    const mutex = (): number =>
      stage.takeLockStat().find(({ name }) => name === 'pcpu_alloc_mutex')!.acquisitions;
    stage.addTrace(less);
    expect((await stage.runReplay(less, 2)).problems).toEqual([]);
    expect(mutex()).toBeLessThan(percpuAllocs / 2);
    expect(await stage.close()).toEqual([]);
  });
});

it('the report of tc ends with the columns of perf lock report, ours and the published ones', async () => {
  const result: ExperimentResult = await runExperiment(experimentNamed('tc'), {
    quick: true,
    threads: [2],
    rounds: 1,
    seconds: 0.5,
  });
  const text = experimentReport(result);
  expect(text).toMatch(/Name +acquired +contended +avg wait +total wait +max wait +min wait/);
  expect(text).toMatch(/^tc_action on 2 threads, plain: \d+ operations$/m);
  expect(text).toMatch(/^ +pcpu_alloc_mutex +7695276 +7695276 +3\.39 us +26\.07 s/m);
  expect(text).toMatch(/pcpu_alloc_mutex acquired \d\.\d+ times per\s+operation/);
  expect(result.sound).toBe(true);
  expect(EXPERIMENTS.map(({ name }) => name)).toEqual(
    expect.arrayContaining(['exec', 'tc', 'percpu-alternatives']),
  );
});
