import { spawnSync } from 'node:child_process';
import { fileURLToPath } from 'node:url';
import { describe, expect, it } from 'vitest';
import type { Experiment } from '#src/lab/experiments/experiment.js';
import {
  EXPERIMENTS,
  type ExperimentRow,
  experimentNamed,
  NotInThisBuildError,
  runExperiment,
} from '#src/lab/experiments/index.js';
import { judge, noiseLimit, ROUNDS_MIN, roundRatio } from '#src/lab/experiments/judge.js';
import { experimentReport } from '#src/lab/experiments/report.js';
import { Row } from '#src/lab/experiments/row.js';
import { expectationVerdict, verdicts } from '#src/lab/experiments/verdict.js';
import type { Stage } from '#src/lab/stage.js';
import { SHIPPED_TRACE } from '#src/lab/study/plan.js';
import { workloadNamed } from '#src/lab/workloads/index.js';
import { LONG } from '../cache/support/arena.js';

/** Those that are compared with the first; severalBaselines.test.ts has the others. */
function ofFirst({ variants }: Experiment): Experiment['variants'] {
  const others = new Set(variants.slice(1).flatMap(({ against = [] }) => against));
  return variants.filter(({ name, against }) => against === undefined && !others.has(name));
}

const ends = <T>(all: readonly T[]): T[] => (all.length < 3 ? [...all] : [all[0]!, all.at(-1)!]);

/** The least that an experiment can be run with. */
const least = (experiment: Experiment) => {
  const workload = experiment.workloads[0]!;
  return { quick: true, rounds: 2, seconds: 0.2, threads: [1], workloads: new RegExp(`^${workload}$`) };
};

/** Each starts several threads: a quarter of them in a run, by the seed; all with GRANARY_LONG=1. */
const SEED = Number(process.env.GRANARY_SEED ?? Math.floor(Math.random() * 2 ** 31));
const isTurnOf = (i: number): boolean => LONG || i % 4 === SEED % 4;

describe.each(EXPERIMENTS.map((experiment, i) => [experiment.name, experiment, i] as const))(
  `%s, seed ${SEED}`,
  (_, experiment, i) => {
    // Each variant has threads of its own to start: what is between the first and the last is for the long form.
    const comparable = ofFirst(experiment);
    const asked = { ...experiment, variants: LONG ? comparable : ends(comparable) };
    const missing = experiment.missing?.();

    it.skipIf(missing !== undefined || !isTurnOf(i))('runs, soundly, and says what it found', async () => {
      const result = await runExperiment(asked, least(asked));
      const { schemaVersion, question, rows, verdict, sound, rounds, variants, baseline } = JSON.parse(
        JSON.stringify(result),
      ) as typeof result;
      expect({ schemaVersion, question, sound, rounds }).toEqual({
        schemaVersion: 1,
        question: experiment.question,
        sound: true,
        rounds: 2,
      });
      expect(question).toMatch(/\?/);
      const names = asked.variants.map(({ name }) => name);
      const baselines = new Set([baseline, ...asked.variants.flatMap(({ against = [] }) => against)]);
      expect(rows.map(({ variant }) => variant)).toEqual(
        names.flatMap((name) => (baselines.has(name) ? [name, `${name} again`] : [name])),
      );
      expect(variants.map(({ name }) => name)).toEqual(names);
      for (const row of rows) {
        expect(row).toMatchObject({ workload: experiment.workloads[0], threads: 1, problems: [] });
        expect(row.nsPerOp).toHaveLength(2);
        expect(row.nsPerOp.every((ns) => ns > 0)).toBe(true);
        expect(row.low).toBeLessThanOrEqual(row.median);
        expect(row.median).toBeLessThanOrEqual(row.high);
        expect(row.paths.fast + row.paths.barn + row.paths.slab).toBeCloseTo(1);
        expect(row.movedShare).toBeGreaterThanOrEqual(0);
        expect(row.highWaterPages).toBeGreaterThanOrEqual(0);
        if (row.outcome === 'baseline') expect(row.ratio).toBeNull();
        else expect(row.ratio!.low).toBeLessThanOrEqual(row.ratio!.high);
      }
      expect(rows[0]!.outcome).toBe('baseline');
      expect(rows[1]!.outcome).toBe('control');
      const judged = rows.filter(({ outcome }) => outcome !== 'baseline' && outcome !== 'control');
      expect(new Set(judged.map(({ outcome }) => outcome))).toEqual(new Set(['no difference shown']));
      const compared = variants.filter(({ against }) => against !== null);
      expect(variants.length - compared.length).toBe(baselines.size);
      for (const { name, against } of compared) {
        expect(verdict.some((line) => line.startsWith(`${name} against ${against}: `))).toBe(true);
      }
      expect(verdict).toContain('2 rounds are too few to show a difference; it takes at least 6.');
      const text = experimentReport(result);
      expect(text).toContain('QUESTION');
      expect(text).toContain('VERDICT');
      expect(text).not.toMatch(/NaN|undefined|Infinity|VOID/);
    });

    it.skipIf(missing === undefined)('is refused, since this build has not what it needs', async () => {
      await expect(runExperiment(experiment, least(experiment))).rejects.toThrow(NotInThisBuildError);
      await expect(runExperiment(experiment, least(experiment))).rejects.toThrow(/not in this build: \w+/);
    });

    it('asks for workloads and expects of variants that exist', () => {
      const names = experiment.variants.map(({ name }) => name);
      expect(new Set(names).size).toBe(names.length);
      for (const name of experiment.workloads) {
        for (const { workload } of experiment.variants)
          expect(workloadNamed(workload?.(name) ?? name)).toBeDefined();
      }
      for (const [i, { against }] of experiment.variants.entries())
        if (against !== undefined) expect(names.indexOf(against)).toBeLessThan(i);
      for (const { variant, where } of experiment.expectations) {
        expect(names.slice(1)).toContain(variant);
        const cases = experiment.workloads.flatMap((workload) =>
          experiment.threads.map((threads) => ({ workload, threads })),
        );
        expect(cases.some((one) => where?.(one) ?? true)).toBe(true);
      }
    });
  },
);

describe('an experiment on two threads', () => {
  it('tells who waited for which lock', async () => {
    const steps: string[] = [];
    const result = await runExperiment(experimentNamed('sheaf-lock'), {
      quick: true,
      rounds: 1,
      seconds: 0.5,
      threads: [2],
      workloads: /^batch-1000$/,
      seed: 5,
      progress: { step: (what) => steps.push(what), clear: () => {} },
    });
    expect(result).toMatchObject({ sound: true, seed: 5, secondsAllowed: 0.5 });
    expect(result.rows).toHaveLength(3);
    for (const { locks } of result.rows) {
      expect(locks!.runs).toBeGreaterThan(0);
      expect(locks!.waitNsPerOp.low).toBeGreaterThanOrEqual(0);
      expect(locks!.tryFailedShare).toBeGreaterThanOrEqual(0);
      expect(locks!.mostWaitedFor).not.toBe('slab_mutex');
    }
    expect(experimentReport(result)).toContain('lock wait ns');
    for (const start of ['starting', 'warming up', 'round 1', 'checking', 'locks of']) {
      expect(steps.some((step) => step.startsWith(start))).toBe(true);
    }
  });
});

describe('an experiment with a trace', () => {
  it('replays what it is given, whatever the filter', async () => {
    const { rows, sound } = await runExperiment(experimentNamed('bulk'), {
      ...least(experimentNamed('bulk')),
      rounds: 1,
      traces: [SHIPPED_TRACE],
    });
    expect(sound).toBe(true);
    expect(rows.map(({ workload }) => workload)).toEqual([
      ...Array(3).fill('1-at-once'),
      ...Array(3).fill('replay-git-2'),
    ]);
    for (const { nsPerOp } of rows) expect(nsPerOp).toHaveLength(1);
  });
});

describe('a row of an experiment', () => {
  const [variant] = experimentNamed('layers').variants;

  it('is void after one unsound run, and runs no more', async () => {
    let runs = 0;
    const stage = {
      runWorkload: () => {
        runs++;
        return Promise.resolve({
          problems: ['1 objects lost'],
          wallMs: 1,
          totalOps: 1,
          nsPerOp: 1,
          paths: {},
        });
      },
    } as unknown as Stage;
    const row = new Row('pair', 1, variant!, undefined);
    await row.run(stage, 100, 'plain', 1);
    expect(await row.run(stage, 100, 'plain', 1)).toBeUndefined();
    expect(runs).toBe(1);
    expect(row.result(100, null, 'void', null, 1)).toMatchObject({
      outcome: 'void',
      problems: ['1 objects lost'],
    });
  });

  it('is void when a run fails', async () => {
    const stage = { runWorkload: () => Promise.reject(new Error('a thread died')) } as unknown as Stage;
    const row = new Row('pair', 1, variant!, undefined);
    expect(await row.run(stage, 100, 'plain', 1)).toBeUndefined();
    expect(row.problems).toEqual(['a thread died']);
  });
});

describe('granary experiment', () => {
  const main = fileURLToPath(new URL('../../dist/src/cli/main.js', import.meta.url));
  const granary = (...args: string[]) => {
    const { status, stdout, stderr } = spawnSync(process.execPath, [main, 'experiment', ...args], {
      encoding: 'utf8',
    });
    return { status, stdout, stderr };
  };
  const names = EXPERIMENTS.map(({ name }) => name).join(', ');

  it.each([
    [['bogus'], `granary: no experiment is named "bogus"; there are ${names}\n`],
    [[], `granary: which experiment? There are ${names}; see --list\n`],
  ])('%j ends with status 2 and the names', (args, stderr) => {
    expect(granary(...args)).toEqual({ status: 2, stdout: '', stderr });
  });

  it('lists the questions', () => {
    const { status, stdout, stderr } = granary('--list');
    expect({ status, stderr }).toEqual({ status: 0, stderr: '' });
    for (const { name, question } of EXPERIMENTS) {
      expect(stdout).toMatch(new RegExp(`^${name} `, 'm'));
      expect(stdout).toContain(question);
    }
  });

  it('prints one JSON object', () => {
    const args = [
      'bulk',
      '--quick',
      '--rounds',
      '1',
      '--seconds',
      '0.2',
      '--workloads',
      '^2-at-once$',
      '--json',
    ];
    const { status, stdout, stderr } = granary(...args);
    expect({ status, stderr }).toEqual({ status: 0, stderr: '' });
    expect(JSON.parse(stdout)).toMatchObject({ experiment: 'bulk', rounds: 1, seed: 1, sound: true });
  });
});

describe('what is refused', () => {
  const layers = experimentNamed('layers');

  it.each([
    [{ seconds: 0 }, /seconds is 0; it must be a number above 0/],
    [{ rounds: 0 }, /rounds is 0; it must be an integer from 1/],
    [{ threads: [0] }, /threads is 0/],
    [{ workloads: /^nothing$/ }, /matches none of pair, .*replay-git/],
    [{ traces: ['/no/such/file'], workloads: /^pair$/ }, /\/no\/such\/file: no such file/],
  ])('%o', async (options, message) => {
    await expect(runExperiment(layers, options)).rejects.toThrow(message);
  });

  it('several thread counts at a time where threads are dealt to CPUs', async () => {
    await expect(runExperiment(experimentNamed('slots'), { threads: [2, 4] })).rejects.toThrow(
      /threads is 2,4; experiment slots .* one thread count at a time/,
    );
  });

  it('a name that no experiment has, with those there are', () => {
    expect(() => experimentNamed('sheaves')).toThrow(
      /no experiment is named "sheaves"; there are layers, .*microbench/,
    );
  });
});

/** `n` samples about `ns`, in a pattern that both of two variants can share. */
const about = (ns: number, n = 20, spread = 0.02): number[] =>
  Array.from({ length: n }, (_, i) => ns * (1 + spread * (((i * 7) % 11) / 5 - 1)));

const exact = { estimate: 1, low: 0.98, high: 1.02 };

describe('the verdict on samples', () => {
  it.each([
    ['better', about(80), about(100), exact],
    ['worse', about(125), about(100), exact],
    ['no difference shown', about(100.5), about(100), exact],
    ['no difference shown', about(100, 20, 0.9).reverse(), about(100, 20, 0.9), exact],
  ] as const)('is %s', (outcome, values, base, control) => {
    const judged = judge(values, base, control, 1);
    expect(judged.outcome).toBe(outcome);
    expect(judged.ratio!.low).toBeLessThanOrEqual(judged.ratio!.estimate);
    expect(judged.ratio!.estimate).toBeLessThanOrEqual(judged.ratio!.high);
  });

  it('shows no difference that two runs of the baseline have as well', () => {
    expect(noiseLimit({ estimate: 0.8, low: 0.75, high: 0.9 })).toBeCloseTo(1 / 0.75);
    expect(noiseLimit({ estimate: 1.1, low: 1.05, high: 1.2 })).toBe(1.2);
    const control = { estimate: 1.2, low: 1.1, high: 1.3 };
    expect(judge(about(125), about(100), control, 1).outcome).toBe('no difference shown');
    expect(judge(about(80), about(100), control, 1).outcome).toBe('no difference shown');
    expect(judge(about(140), about(100), control, 1).outcome).toBe('worse');
  });

  it('shows none in a few rounds', () => {
    const few = ROUNDS_MIN - 1;
    expect(judge(about(50, few), about(100, few), exact, 1).outcome).toBe('no difference shown');
    expect(judge(about(50, few + 1), about(100, few + 1), exact, 1).outcome).toBe('better');
  });

  it('is void when one side, or the second baseline, was unsound', () => {
    expect(judge(undefined, about(100), exact, 1)).toEqual({ ratio: null, outcome: 'void' });
    expect(judge(about(100), undefined, exact, 1)).toEqual({ ratio: null, outcome: 'void' });
    expect(judge(about(50), about(100), null, 1)).toEqual({ ratio: null, outcome: 'void' });
  });

  it('forms ratios round by round, so that a slow machine is in both', () => {
    const base = [100, 1000, 100, 5000, 100, 100, 2000];
    const ratio = roundRatio(
      base.map((ns) => ns * 0.9),
      base,
      1,
    );
    expect(ratio.estimate).toBeCloseTo(0.9);
    expect(ratio.low).toBeCloseTo(0.9);
    expect(ratio.high).toBeCloseTo(0.9);
    expect(() => roundRatio([1], [1, 2], 1)).toThrow(/a sample of every round; got 1 and 2/);
  });
});

const row = (changes: Partial<ExperimentRow>): ExperimentRow => ({
  workload: 'pair',
  threads: 1,
  variant: 'turn',
  oversubscribed: false,
  problems: [],
  opsPerThread: 1000,
  nsPerOp: [10],
  median: 10,
  low: 9,
  high: 11,
  ratio: { estimate: 0.5, low: 0.4, high: 0.6 },
  outcome: 'better',
  paths: { fast: 0.9, barn: 0.08, slab: 0.02 },
  movedShare: 0.125,
  hits: {},
  bypassShare: 0,
  highWaterPages: 3,
  locks: null,
  published: null,
  ...changes,
});

describe('the verdict in words', () => {
  const sheafLock = experimentNamed('sheaf-lock');
  const [expected] = sheafLock.expectations;
  const worse = row({
    workload: 'larson',
    threads: 2,
    outcome: 'worse',
    ratio: { estimate: 1.5, low: 1.4, high: 1.6 },
  });
  const open = row({ workload: 'mixed', outcome: 'no difference shown', ratio: exact });

  it('counts cases and names the extremes', () => {
    const { lines } = verdicts(sheafLock, [row({}), worse, open], 20);
    expect(lines[0]).toBe(
      'turn against op: better in 1 of 3 cases: 0.50x (0.40..0.60) the time, pair on 1 thread; worse in 1 of 3 cases: ' +
        '1.50x (1.40..1.60) the time, larson on 2 threads; no difference shown in 1 of 3 cases: ' +
        '1.00x (0.98..1.02) the time, mixed on 1 thread.',
    );
    expect(verdicts(sheafLock, [row({}), row({ threads: 2 })], 20).lines[0]).toContain(
      'better in all 2 cases',
    );
    expect(verdicts(sheafLock, [open, open], 20).lines[0]).toContain('no difference shown in any of 2 cases');
  });

  it('says whether an expectation holds, does not, or is not shown', () => {
    const holds = expectationVerdict([row({})], expected!);
    expect(holds).toMatchObject({ holds: true, cases: 1, held: 1, contradicted: 0 });
    expect(holds.sentence).toMatch(/^Expected \(seed 004, patch 5\): .*: it holds in the only case\.$/);
    const not = expectationVerdict([row({}), worse], expected!);
    expect(not).toMatchObject({ holds: false, cases: 2, held: 1, contradicted: 1 });
    expect(not.sentence).toContain(
      'it DOES NOT HOLD: it holds in 1 of 2 cases; the opposite is shown in 1 (larson on 2 threads 1.50x (1.40..1.60))',
    );
    const unshown = expectationVerdict([row({}), open], expected!);
    expect(unshown).toMatchObject({ holds: false, held: 1, contradicted: 0 });
    expect(unshown.sentence).toContain(
      'it is NOT SHOWN everywhere: it holds in 1 of 2 cases; no difference is shown in 1',
    );
    expect(expectationVerdict([], expected!).sentence).toContain('it could not be tested');
    const same = { ...expected!, outcome: 'same' as const };
    expect(expectationVerdict([open], same)).toMatchObject({ holds: true, held: 1 });
    const wide = row({ outcome: 'no difference shown', ratio: { estimate: 1, low: 0.8, high: 1.02 } });
    expect(expectationVerdict([open, wide], same)).toMatchObject({ holds: false, held: 1, contradicted: 0 });
    expect(expectationVerdict([open, row({})], same).sentence).toContain('a difference is shown in 1 (');
  });

  it('says first that numbers are void, and draws nothing from them', () => {
    const bad = row({ workload: 'larson', problems: ['1 objects lost'], ratio: null, outcome: 'void' });
    const { lines, expectations } = verdicts(sheafLock, [row({}), bad], 20);
    expect(lines[0]).toBe(
      '1 of 2 rows are VOID, their numbers mean nothing: turn, larson on 1 thread: 1 objects lost',
    );
    expect(lines[1]).toContain('void in 1 of 2 cases');
    expect(expectations[0]).toMatchObject({ cases: 1, held: 1 });
  });

  it('tells what else was asked for, of the worst case', () => {
    const locks = {
      runs: 6,
      waitNsPerOp: { estimate: 12.34, low: 10, high: 15 },
      tryFailedShare: 0.25,
      mostWaitedFor: 'barn->lock',
      ops: 1000,
      classes: [],
    };
    const { lines } = verdicts(
      experimentNamed('capacity'),
      [row({ variant: 'capacity 4' }), row({ variant: 'capacity 4', workload: 'larson', threads: 4, locks })],
      20,
    );
    expect(lines.at(-1)).toBe(
      'capacity 4: at worst 90.0 % of the calls fast, 8.0 % barn, 2.0 % slabs (pair on 1 thread); at most 0.125 objects per call moved from or to slabs (pair on 1 thread); at most 12 KiB ' +
        "(pair on 1 thread); 12.3 ns per operation waited for locks, mostly barn->lock (larson on 4 threads); 25.0 % of the tries for the sheaves' lock failed (larson on 4 threads).",
    );
  });
});
