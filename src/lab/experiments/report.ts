/** An experiment's result as text. */
import { perfLockReport } from '../../observe/index.js';
import { describeEnvironment } from '../environment.js';
import { type Column, formatNs, table } from '../stats.js';
import { costTable } from './costs.js';
import type { ExperimentResult } from './index.js';
import type { ExperimentRow } from './row.js';

const NONE = '-';
const PAGE_KIB = 4;
const WIDTH = 108;

const left = (title: string): Column => ({ title, align: 'left' });
const right = (...titles: string[]): Column[] => titles.map((title) => ({ title }));
const percent = (share: number): string => (share * 100).toFixed(share > 0.99 && share < 1 ? 2 : 1);
const digitsFor = (ns: number): number => (ns < 100 ? 1 : 0);

function timeCells(row: ExperimentRow): string[] {
  if (row.problems.length > 0 || row.nsPerOp.length === 0) return ['VOID', ''];
  const digits = digitsFor(row.median);
  return [row.median.toFixed(digits), `${row.low.toFixed(digits)}..${row.high.toFixed(digits)}`];
}

function ratioCells({ ratio, outcome }: ExperimentRow): string[] {
  if (ratio === null) return [outcome === 'baseline' ? '1' : NONE, ''];
  return [ratio.estimate.toFixed(3), `${ratio.low.toFixed(3)}..${ratio.high.toFixed(3)}`];
}

function lockCells({ locks }: ExperimentRow): string[] {
  if (locks === null) return [NONE, '', NONE, NONE];
  const { waitNsPerOp, tryFailedShare, mostWaitedFor } = locks;
  const range = `${waitNsPerOp.low.toFixed(1)}..${waitNsPerOp.high.toFixed(1)}`;
  return [waitNsPerOp.estimate.toFixed(1), range, mostWaitedFor ?? NONE, percent(tryFailedShare)];
}

function rowTable({ rows, shows: wanted }: ExperimentResult): string {
  // Rows of one thread wait for nobody.
  const shows = rows.some(({ locks }) => locks !== null) ? wanted : wanted.filter((item) => item !== 'locks');
  const columns = [
    left('case'),
    ...right('threads'),
    left('variant'),
    ...right('ns', '95 %', 'ratio', '95 %'),
  ];
  columns.push(left('outcome'));
  if (shows.includes('paths')) columns.push(...right('fast %', 'barn %', 'slab %', 'moved %'));
  if (shows.includes('bypasses')) columns.push(...right('bypass %'));
  if (shows.includes('memory')) columns.push(...right('KiB'));
  if (shows.includes('locks'))
    columns.push(...right('lock wait ns', '95 %'), left('most for'), ...right('try failed %'));
  let last = '';
  const cells = rows.map((row) => {
    const { workload, threads, variant, outcome, paths, highWaterPages, oversubscribed } = row;
    const key = `${workload} ${threads}`;
    const repeated = key === last;
    last = key;
    const line = [
      repeated ? '' : workload,
      repeated ? '' : `${threads}${oversubscribed ? '*' : ''}`,
      variant,
      ...timeCells(row),
      ...ratioCells(row),
      outcome === 'baseline' || outcome === 'control' ? '' : outcome,
    ];
    if (shows.includes('paths'))
      line.push(percent(paths.fast), percent(paths.barn), percent(paths.slab), percent(row.movedShare));
    if (shows.includes('bypasses')) line.push(percent(row.bypassShare));
    if (shows.includes('memory'))
      line.push(highWaterPages === null ? NONE : String(highWaterPages * PAGE_KIB));
    if (shows.includes('locks')) line.push(...lockCells(row));
    return line;
  });
  return table(cells, columns);
}

/** Our gains beside the published ones. */
function publishedTable({ rows, published }: ExperimentResult): string[] {
  if (published === null) return [];
  const gain = (ratio: number): string => `${((1 - ratio) * 100).toFixed(1)} %`;
  const cells = rows
    .filter((row) => row.published !== null)
    .map(({ workload, threads, variant, ratio, published: gains }) => [
      workload,
      threads,
      variant,
      ratio === null ? NONE : gain(ratio.estimate),
      ratio === null ? '' : `${gain(ratio.high)} .. ${gain(ratio.low)}`,
      ...gains!.map((share) => `${(share * 100).toFixed(1)} %`),
    ]);
  const titles = [
    left('case'),
    ...right('threads'),
    left('variant'),
    ...right('gain here', '95 %', ...published.titles),
  ];
  return [
    '',
    `Time saved against the baseline, here and as published (${published.source}):`,
    '',
    table(cells, titles),
  ];
}

/** What each variant costs, in one table. */
function costLines(result: ExperimentResult): string[] {
  if (!result.shows.includes('costs')) return [];
  return [
    '',
    'What each costs: the time of the baselines, the ratio of the others to theirs, ~ where no difference is shown:',
    '',
    costTable(result),
  ];
}

/** What was waited for, in the columns of `perf lock report`: of each workload's case with the most threads. */
function lockTables({ rows, shows, lockNames, publishedLocks }: ExperimentResult): string[] {
  if (!shows.includes('perf-lock')) return [];
  const most = Math.max(...rows.map(({ threads }) => threads));
  const measured = rows.filter(
    ({ threads, locks, outcome }) => threads === most && locks !== null && outcome !== 'control',
  );
  const ours = measured.map(({ workload, threads, variant, locks }) => ({
    title: `${workload} on ${threads} threads, ${variant}: ${locks!.ops.toFixed(0)} operations`,
    locks: locks!.classes.filter(({ name }) => lockNames.includes(name)),
  }));
  return [...ours, ...publishedLocks].flatMap(({ title, locks }) => [
    '',
    title,
    '',
    perfLockReport(locks).trimEnd(),
  ]);
}

const wrap = (text: string, width: number): string[] =>
  text.match(new RegExp(`.{1,${width}}(?: |$)`, 'g'))?.map((line) => line.trimEnd()) ?? [text];

function bullets(lines: readonly string[]): string[] {
  return lines.flatMap((line) => wrap(line, WIDTH).map((piece, i) => `${i === 0 ? '  * ' : '    '}${piece}`));
}

function problemLines({ rows }: ExperimentResult): string[] {
  const seen = new Set(
    rows.flatMap(({ variant, problems }) => problems.map((problem) => `VOID      ${variant}: ${problem}`)),
  );
  return [...seen];
}

/** Who is compared with another than the first. */
function baselineLines({ variants, baseline }: ExperimentResult): string[] {
  const others = new Set(
    variants.flatMap(({ against }) => against ?? []).filter((name) => name !== baseline),
  );
  return [...others].map((name) => {
    const mine = variants.filter(({ against }) => against === name).map((variant) => variant.name);
    return `The baseline of ${mine.join(' and ')} is ${name}.`;
  });
}

/** Everything an experiment has to tell, as text. */
export function experimentReport(result: ExperimentResult): string {
  const { experiment, question, operation, rounds, sampleMs, seed, secondsTaken, variants, rows } = result;
  const over = rows.some(({ oversubscribed }) => oversubscribed) ? [' * more threads than processors'] : [];
  const parts = [
    ...describeEnvironment(result.environment),
    `runs      ${experiment}: ${rows.length} rows, ${rounds} rounds in random order, about ` +
      `${formatNs(sampleMs * 1e6)} a run, seed ${seed}, ${secondsTaken.toFixed(1)} s`,
    ...problemLines(result),
    '',
    ...wrap(`QUESTION  ${question}`, WIDTH),
    '',
    ...variants.map(
      ({ name, about, against }) => `${against === null ? 'baseline' : 'variant '}  ${name}: ${about}`,
    ),
    '',
    `ns: time of ${operation}, median of the rounds. ratio: to the baseline, round by round. Both with 95 % bootstrap intervals.`,
    `'${result.baseline} again' is the baseline a second time, on an arena of its own: what it differs by, others must exceed.`,
    ...baselineLines(result),
    '',
    rowTable(result),
    ...over,
    ...costLines(result),
    ...publishedTable(result),
    ...lockTables(result),
    '',
    'VERDICT',
    '',
    ...bullets(result.verdict),
  ];
  return `${parts.join('\n')}\n`;
}
