/** What each variant costs, a line each and a column for each case, as text and as Markdown. */
import { type Column, table } from '../stats.js';
import type { ExperimentResult } from './index.js';
import type { ExperimentRow } from './row.js';

const NONE = '-';

const keyOf = ({ workload, threads }: ExperimentRow): string => `${workload} ${threads}`;

/** The cases in their order, a title each. */
function casesOf(rows: readonly ExperimentRow[]): Map<string, string> {
  const several = new Set(rows.map(({ threads }) => threads)).size > 1;
  return new Map(
    rows.map((row) => [keyOf(row), several ? `${row.workload}, ${row.threads} threads` : row.workload]),
  );
}

/** Of a baseline its time; of others the ratio to it, with `~` where no difference is shown. */
function cell(row: ExperimentRow | undefined): string {
  if (row === undefined) return NONE;
  if (row.problems.length > 0 || row.nsPerOp.length === 0) return 'VOID';
  if (row.outcome === 'baseline') return `${row.median.toFixed(1)} ns`;
  if (row.ratio === null) return NONE;
  const { estimate, low, high } = row.ratio;
  const sign = row.outcome === 'no difference shown' ? '~' : '';
  return `${sign}${estimate.toFixed(2)} (${low.toFixed(2)}..${high.toFixed(2)})`;
}

/** A line for each variant: its name, the one that it is compared with, a cell for each case. */
function lines({ rows, variants }: ExperimentResult): string[][] {
  const cases = [...casesOf(rows).keys()];
  return variants.map(({ name, against }) => {
    const mine = new Map(rows.filter(({ variant }) => variant === name).map((row) => [keyOf(row), row]));
    return [name, against ?? '', ...cases.map((key) => cell(mine.get(key)))];
  });
}

/** For the report: times of the baselines, and of the others the ratio to theirs. */
export function costTable(result: ExperimentResult): string {
  const titles: Column[] = [
    { title: 'variant', align: 'left' },
    { title: 'against', align: 'left' },
    ...[...casesOf(result.rows).values()].map((title) => ({ title })),
  ];
  return table(lines(result), titles);
}

/** The same for a page of docs, with what each variant is. */
export function costMarkdown(result: ExperimentResult): string {
  const titles = ['option', 'against', ...casesOf(result.rows).values(), 'what it is for'];
  const row = (cells: readonly string[]): string => `| ${cells.join(' | ')} |`;
  const body = lines(result).map((cells, i) => row([...cells, result.variants[i]!.about]));
  return [row(titles), `|${'---|'.repeat(titles.length)}`, ...body].join('\n');
}
