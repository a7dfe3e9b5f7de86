/** Lock statistics as /proc/lock_stat shows them; as perf shows them they are in perfLock.ts. */
import { requireRows } from '../struct/index.js';
import type { LockPoint, LockStatRow } from '../sync/index.js';

const NAME_WIDTH = 40;
const FIELD_WIDTH = 14;
const COLUMNS = [
  'con-bounces',
  'contentions',
  'waittime-min',
  'waittime-max',
  'waittime-total',
  'waittime-avg',
  'acq-bounces',
  'acquisitions',
  'holdtime-min',
  'holdtime-max',
  'holdtime-total',
  'holdtime-avg',
];
const LINE_WIDTH = NAME_WIDTH + 1 + COLUMNS.length * (FIELD_WIDTH + 1);
/** Call sites of each kind that a class shows. */
const POINTS_SHOWN = 4;

const count = (n: number): string => String(n).padStart(FIELD_WIDTH);
const us = (ns: number): string => (ns / 1000).toFixed(2).padStart(FIELD_WIDTH);
const average = (total: number, n: number): number => (n === 0 ? 0 : total / n);

/**
 * The text of /proc/lock_stat, version 0.4: a line for each class, by contentions, times in microseconds; below it, in the
 * tier 'full', up to four places where threads waited and up to four where they were waited for. Hold times of the
 * tier 'sampled' are those of the samples. Kernel: `lock_stat`.
 * @example
 * const arena = Arena.create({ bytes: 64 << 20, lockStat: 'full' });
 * console.log(lockStatText(arena.lockStat()));
 */
export function lockStatText(rows: readonly LockStatRow[]): string {
  requireRows('rows', rows);
  const rule = '-'.repeat(LINE_WIDTH);
  const titles = COLUMNS.map((title) => title.padStart(FIELD_WIDTH)).join(' ');
  const header = ['lock_stat version 0.4', rule, `${'class name'.padStart(NAME_WIDTH)} ${titles}`, rule, ''];
  const used = rows.filter(({ acquisitions, contentions }) => acquisitions + contentions > 0);
  const sorted = [...used].sort((a, b) => b.contentions - a.contentions);
  return `${[...header, ...sorted.flatMap(classLines)].join('\n')}\n`;
}

function classLines(row: LockStatRow): string[] {
  const fields = [
    count(row.contentionBounces),
    count(row.contentions),
    us(row.waitMinNs),
    us(row.waitMaxNs),
    us(row.waitTotalNs),
    us(average(row.waitTotalNs, row.contentions)),
    count(row.bounces),
    count(row.acquisitions),
    us(row.holdMinNs),
    us(row.holdMaxNs),
    us(row.holdTotalNs),
    us(average(row.holdTotalNs, row.holdSamples)),
  ];
  const points = [
    ...pointLines(row.name, row.contentionPoints),
    ...pointLines(row.name, row.contendedPoints),
  ];
  const end = points.length === 0 ? [] : ['', '.'.repeat(LINE_WIDTH), ''];
  return [`${row.name.padStart(NAME_WIDTH)}:${fields.join(' ')}`, ...points, ...end];
}

/** The kernel has an address before the name of the function; here the name says it all. */
function pointLines(name: string, points: readonly LockPoint[]): string[] {
  if (points.length === 0) return [];
  const rule = `${' '.repeat(NAME_WIDTH - name.length)}${'-'.repeat(name.length)}`;
  const lines = points
    .slice(0, POINTS_SHOWN)
    .map((point) => `${name.padStart(NAME_WIDTH)} ${count(point.count)} ${point.site}`);
  return [rule, ...lines];
}
