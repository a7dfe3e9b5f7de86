import { describe, expect, it } from 'vitest';
import { livePeakBytes } from '#src/lab/replayBytes.js';
import { facts } from '#src/lab/study/facts.js';
import { planStudy, SHIPPED_TRACE, traceName } from '#src/lab/study/plan.js';
import { studyReport } from '#src/lab/study/report.js';
import { type RowResult, runStudy } from '#src/lab/study.js';
import { compileTraceText } from '#src/lab/trace/index.js';

describe('a study', () => {
  it('measures every row, soundly, and says so in tables and JSON', async () => {
    const steps: string[] = [];
    const result = await runStudy({
      seconds: 2,
      threads: [2, 1],
      workloads: /^(pair|producer-consumer|replay-git)$/,
      seed: 7,
      progress: { step: (what) => steps.push(what), clear: () => {} },
    });
    expect(result).toMatchObject({ schemaVersion: 1, seed: 7, sound: true, problems: [] });
    expect(result.secondsTaken).toBeGreaterThan(0);
    const keys = result.rows.map(({ workload, threads, policy }) => `${workload} ${threads} ${policy}`);
    expect(keys).toContain('pair 1 turn');
    expect(keys).toContain('producer-consumer 2 op');
    expect(keys).toContain('replay-git 2 turn');
    expect(keys).not.toContain('producer-consumer 1 op');
    expect(keys).toHaveLength(10);
    for (const row of result.rows) {
      expect(row.nsPerOp).toHaveLength(result.rounds);
      expect(row.low).toBeLessThanOrEqual(row.median);
      expect(row.median).toBeLessThanOrEqual(row.high);
      expect(row.fastPathShare).toBeGreaterThan(0.9);
      if (row.highWaterPages !== null) expect(row.highWaterPages).toBeGreaterThan(0);
      if (row.latency !== null) expect(row.latency.samples).toBeGreaterThan(0);
      if (row.threads === 1) expect(row.locks).toBeNull();
    }
    expect(result.rows.some(({ highWaterPages }) => highWaterPages !== null)).toBe(true);
    expect(result.rows.some(({ latency }) => latency !== null)).toBe(true);
    expect(result.rows.some(({ locks }) => locks?.some(({ acquisitions }) => acquisitions > 0))).toBe(true);
    expect(steps.some((step) => step.startsWith('round 1: '))).toBe(true);
    const text = studyReport(result);
    expect(text).toContain('Who waited for whom');
    expect(text).toContain('What to read here');
    expect(text).not.toMatch(/VOID|NaN|undefined|Infinity/);
    expect(JSON.parse(JSON.stringify(result))).toMatchObject({ seed: 7, facts: result.facts });
  });

  it.each([
    [{ seconds: 1 }, /seconds is 1; it must be a number from 2/],
    [{ threads: [] }, /threads is empty/],
    [{ threads: [0] }, /threads is 0; it must be an integer from 1/],
    [{ seed: -1 }, /seed is -1/],
    [{ workloads: /nothing/ }, /matches none of pair, .*replay-git/],
    [{ workloads: /producer/, threads: [1] }, /none of pair, (?!.*producer).*, which can run on 1 thread$/],
    [{ traces: ['/no/such/file'], workloads: /pair/ }, /\/no\/such\/file: no such file/],
  ])('refuses %o', async (options, message) => {
    await expect(planStudy(options)).rejects.toThrow(message);
  });

  it('replays a trace that is given, whatever the filter', async () => {
    const { rows, programs } = await planStudy({
      traces: [SHIPPED_TRACE],
      workloads: /^pair$/,
      threads: [1],
    });
    expect(new Set(rows.map(({ workload }) => workload))).toEqual(new Set(['pair', 'replay-git-2']));
    expect(programs.every(({ caches }) => caches.every(({ name }) => name.startsWith('t1:')))).toBe(true);
  });

  it('names traces by their files', () => {
    expect(traceName('/a/git.ftrace.txt.gz')).toBe('replay-git');
    expect(traceName('my.trace')).toBe('replay-my.trace');
    expect(traceName('x.txt')).toBe('replay-x');
  });
});

const row = (changes: Partial<RowResult>): RowResult => ({
  workload: 'pair',
  threads: 1,
  policy: 'turn',
  oversubscribed: false,
  problems: [],
  opsPerThread: 1000,
  nsPerOp: [10],
  median: 10,
  low: 9,
  high: 11,
  opsPerSecond: 1e8,
  fastPathShare: 1,
  slabShare: 0,
  highWaterPages: 1,
  latency: null,
  locks: null,
  lockRunMs: 0,
  ...changes,
});

const lock = (name: string, waitTotalNs: number) => ({
  name,
  acquisitions: 10,
  contentions: 1,
  bounces: 1,
  contentionBounces: 0,
  tryFailed: 0,
  waitTotalNs,
  waitMinNs: waitTotalNs,
  waitMaxNs: waitTotalNs,
  holdSamples: 0,
  holdTotalNs: 0,
  holdMinNs: 0,
  holdMaxNs: 0,
  contentionPoints: [],
  contendedPoints: [],
});

describe('facts', () => {
  it('are made from the figures', () => {
    const text = facts([
      row({}),
      row({ policy: 'op', median: 40, low: 39, high: 41 }),
      row({
        threads: 2,
        opsPerSecond: 1.9e8,
        locks: [lock('barn->lock', 2e6), lock('n->list_lock', 6e6)],
        lockRunMs: 10,
      }),
      row({ threads: 4, opsPerSecond: 0.95e8, oversubscribed: true }),
      row({ workload: 'larson', median: 90, low: 80, high: 95, highWaterPages: 50, fastPathShare: 0.5 }),
    ]).join('\n');
    expect(text).toContain('cost 10 ns at best (pair on 1) and 90 ns at worst (larson on 1)');
    expect(text).toContain("costs 4.00x a lock kept for the turn ('turn')");
    expect(text).toContain('apart in 1 of 1 rows');
    expect(text).toContain('2 threads do 1.90x the work of one (pair).');
    expect(text).toContain(
      '75.0 % of all waiting was for n->list_lock; pair on 2, turn, waited most: 40.0 %',
    );
    expect(text).toContain('The longest wait was 6.00 ms, for n->list_lock');
    expect(text).toContain('Most memory: 200 KiB above the empty arena, larson on 1');
    expect(text).toContain('after each of 5 timed runs');
  });

  it('warn of other programs', () => {
    expect(facts([row({})], 0.5)[1]).toMatch(/^Other programs used 50\.0 % of the processors/);
    expect(facts([row({})], 0.05).join()).not.toContain('Other programs');
  });

  it('tell which rows were not checked', () => {
    expect(facts([row({ highWaterPages: null }), row({})])[0]).toMatch(
      /no time for the run with cookies in 1 rows/,
    );
  });

  it('leave out what is void, and say that it is', () => {
    const lines = facts([row({}), row({ workload: 'larson', median: 1, problems: ['1 objects lost'] })]);
    expect(lines[0]).toBe('1 of 2 rows are VOID: their figures mean nothing.');
    expect(lines.join('\n')).not.toContain('larson on');
  });
});

describe('the size of an arena for a trace', () => {
  it('is bound by what each CPU holds at its worst moment', () => {
    const event = (cpu: number, text: string) => `a-1 [00${cpu}] ..... 1.000000: ${text}\n`;
    const alloc = (cpu: number, ptr: number, size: number) =>
      event(
        cpu,
        `kmalloc: call_site=f+0x1/0x2 ptr=00000000000000${10 + ptr} bytes_req=${size} bytes_alloc=${size} gfp_flags=GFP_KERNEL node=-1 accounted=false`,
      );
    const free = (cpu: number, ptr: number) =>
      event(cpu, `kfree: call_site=f+0x1/0x2 ptr=00000000000000${10 + ptr}`);
    const text =
      alloc(0, 1, 100) + alloc(0, 2, 1000) + free(0, 1) + alloc(1, 3, 64) + free(0, 3) + alloc(0, 4, 8);
    expect(livePeakBytes(compileTraceText(text, { cpus: 2 }))).toBe(128 + 1024 + 64);
  });
});
