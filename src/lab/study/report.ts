/** The tables of a study, for people. */
import type { LockPolicy } from '../../struct/index.js';
import { LOCK_POLICIES } from '../../struct/index.js';
import { describeEnvironment } from '../environment.js';
import { type Column, formatCount, formatNs, table } from '../stats.js';
import type { StudyResult } from '../study.js';
import { type RowResult, SAMPLES_FOR_P999 } from './row.js';

const NONE = '-';
/** Lock classes that are listed, by how long threads waited for them. */
const LOCK_ROWS = 12;
const PAGE_KIB = 4;

const left = (title: string): Column => ({ title, align: 'left' });
const right = (...titles: string[]): Column[] => titles.map((title) => ({ title }));

/** A workload on some threads, under each policy. */
interface Line {
  readonly workload: string;
  readonly threads: number;
  readonly oversubscribed: boolean;
  readonly by: Partial<Record<LockPolicy, RowResult>>;
}

function linesOf(rows: readonly RowResult[]): Line[] {
  const lines: Line[] = [];
  for (const row of rows) {
    const { workload, threads, oversubscribed } = row;
    let line = lines.find((other) => other.workload === workload && other.threads === threads);
    if (line === undefined) {
      line = { workload, threads, oversubscribed, by: {} };
      lines.push(line);
    }
    line.by[row.policy] = row;
  }
  return lines;
}

const isVoid = (row: RowResult | undefined): boolean => row !== undefined && row.problems.length > 0;
const valid = (row: RowResult | undefined): row is RowResult =>
  row !== undefined && row.problems.length === 0;

function interval(row: RowResult | undefined): string[] {
  if (isVoid(row)) return ['VOID', ''];
  if (row === undefined) return [NONE, ''];
  const digits = row.median < 100 ? 1 : 0;
  return [row.median.toFixed(digits), `${row.low.toFixed(digits)}..${row.high.toFixed(digits)}`];
}

const percent = (share: number): string => (share * 100).toFixed(1);

function timeTable(lines: readonly Line[]): string {
  const cells = lines.map(({ workload, threads, oversubscribed, by: { turn, op } }) => {
    const both = valid(turn) && valid(op);
    const one = valid(turn) ? turn : undefined;
    return [
      workload,
      threads,
      ...interval(turn),
      ...interval(op),
      both ? (op.median / turn.median).toFixed(2) : NONE,
      one ? formatCount(one.opsPerSecond) : NONE,
      one ? percent(one.fastPathShare) : NONE,
      one ? percent(one.slabShare) : NONE,
      one && one.highWaterPages !== null ? one.highWaterPages * PAGE_KIB : NONE,
      oversubscribed ? 'oversubscribed' : '',
    ];
  });
  const columns = [
    left('workload'),
    ...right(
      'threads',
      "ns 'turn'",
      '95 %',
      "ns 'op'",
      '95 %',
      'op/turn',
      'ops/s',
      'fast %',
      'slab %',
      'KiB',
    ),
    left(''),
  ];
  return table(cells, columns);
}

function latencyCells(row: RowResult | undefined): string[] {
  if (!valid(row) || row.latency === null) return [NONE, NONE, NONE, NONE];
  const { samples, p50, p99, p999, max } = row.latency;
  return [formatNs(p50), formatNs(p99), samples < SAMPLES_FOR_P999 ? NONE : formatNs(p999), formatNs(max)];
}

function latencyTable(lines: readonly Line[]): string {
  const cells = lines.map(({ workload, threads, by }) => [
    workload,
    threads,
    ...latencyCells(by.turn),
    ...latencyCells(by.op),
  ]);
  const quantiles = ['p50', 'p99', 'p99.9', 'max'];
  const titles = LOCK_POLICIES.flatMap((policy) =>
    quantiles.map((q, i) => (i === 0 ? `'${policy}' ${q}` : q)),
  );
  return table(cells, [left('workload'), ...right('threads', ...titles)]);
}

/** Lock classes that somebody waited for, the longest total first. */
function lockTable(rows: readonly RowResult[]): string | undefined {
  const waits = rows
    .filter(valid)
    .flatMap((row) => (row.locks ?? []).map((lock) => ({ row, lock })))
    .filter(({ lock }) => lock.contentions > 0)
    .sort((a, b) => b.lock.waitTotalNs - a.lock.waitTotalNs);
  if (waits.length === 0) return undefined;
  const cells = waits
    .slice(0, LOCK_ROWS)
    .map(({ row, lock }) => [
      lock.name,
      row.workload,
      row.threads,
      row.policy,
      lock.contentions,
      lock.acquisitions,
      formatNs(lock.waitTotalNs),
      formatNs(lock.waitMaxNs),
      formatNs(lock.waitTotalNs / lock.contentions),
      `${percent(lock.waitTotalNs / (row.lockRunMs * 1e6 * row.threads))} %`,
      `${percent(lock.bounces / Math.max(1, lock.acquisitions))} %`,
      row.oversubscribed ? 'oversubscribed' : '',
    ]);
  const figures = ['contentions', 'acquisitions', 'wait total', 'wait max', 'wait avg', 'of time', 'bounces'];
  const columns = [left('lock'), left('workload'), ...right('threads', 'policy', ...figures), left('')];
  const rest = waits.length - LOCK_ROWS;
  return table(cells, columns) + (rest > 0 ? `\n(${rest} more in the JSON)` : '');
}

function problemLines(result: StudyResult): string[] {
  const lines = result.problems.map((problem) => `UNSOUND   ${problem}`);
  for (const { workload, threads, policy, problems } of result.rows) {
    for (const problem of problems)
      lines.push(`VOID      ${workload}, ${threads} threads, ${policy}: ${problem}`);
  }
  return lines;
}

const wrap = (text: string, width: number): string[] =>
  text.match(new RegExp(`.{1,${width}}(?: |$)`, 'g'))?.map((line) => line.trimEnd()) ?? [text];

/** Everything a study has to tell, as text. */
export function studyReport(result: StudyResult): string {
  const lines = linesOf(result.rows);
  const { rounds, sampleMs, seed, secondsTaken } = result;
  const locks = lockTable(result.rows);
  const noWaits = result.rows.some((row) => row.locks !== null)
    ? 'No lock was contended.'
    : 'No row of two threads had time for it.';
  const parts = [
    ...describeEnvironment(result.environment),
    `study     ${result.rows.length} rows, ${rounds} rounds in random order, about ${sampleMs.toFixed(0)} ms a run, ` +
      `seed ${seed}, ${secondsTaken.toFixed(1)} s`,
    ...problemLines(result),
    '',
    'ns per operation, an allocation and its free: median of the rounds and its 95 % bootstrap interval. It is the time',
    "of the whole run by the operations of one thread, without lock statistics. Under 'turn' a CPU keeps the lock of its",
    "sheaves for a run of JavaScript, under 'op' for one operation. ops/s, fast % (calls served by sheaves), slab %",
    "(objects fetched from slabs) and KiB (most memory in use) are those of 'turn'.",
    '',
    timeTable(lines),
    '',
    'Latency of single calls, every 64th timed, one reading of the clock included; from runs of their own. p99.9 is left',
    `out where fewer than ${SAMPLES_FOR_P999} calls were timed.`,
    '',
    latencyTable(lines),
    '',
    'Who waited for whom: from runs of their own, with lock statistics; the longest waits in total.',
    '',
    locks ?? noWaits,
    '',
    'What to read here',
    '',
    ...result.facts.flatMap((fact) =>
      wrap(fact, 110).map((line, i) => `${i === 0 ? '  * ' : '    '}${line}`),
    ),
  ];
  return `${parts.join('\n')}\n`;
}
