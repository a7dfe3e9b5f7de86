/** `perf lock report` and `perf lock contention`, from the lock statistics of an arena. */
import { describe, requireRows } from '../struct/index.js';
import {
  LOCK_CLASS_NAMES,
  type LockStatRow,
  OWN_WORD_LOCK_CLASSES,
  SLEEPING_LOCK_CLASSES,
} from '../sync/index.js';

/** What a line is about: a class of locks, or a place that waited for one. */
interface Figures {
  name: string;
  acquired: number;
  contended: number;
  waitTotalNs: number;
  waitMinNs: number;
  waitMaxNs: number;
}

const averageWait = ({ waitTotalNs, contended }: Figures): number =>
  contended === 0 ? 0 : waitTotalNs / contended;

/** The sort keys of perf, with what each compares. */
const KEYS = {
  acquired: ({ acquired }: Figures) => acquired,
  contended: ({ contended }: Figures) => contended,
  avg_wait: averageWait,
  wait_total: ({ waitTotalNs }: Figures) => waitTotalNs,
  wait_max: ({ waitMaxNs }: Figures) => waitMaxNs,
  wait_min: ({ waitMinNs }: Figures) => waitMinNs,
} as const;

/** By what a report is sorted, the largest first. */
export type PerfLockKey = keyof typeof KEYS;
/** All of them. */
export const PERF_LOCK_KEYS = Object.keys(KEYS) as PerfLockKey[];

/** Each unit, and how many nanoseconds it begins at. */
const UNITS: ReadonlyArray<readonly [string, number]> = [
  ['h ', 3600e9],
  ['m ', 60e9],
  ['s ', 1e9],
  ['ms', 1e6],
  ['us', 1e3],
];

/** What the report takes of a class. */
export type PerfLockRow = Pick<
  LockStatRow,
  'name' | 'acquisitions' | 'contentions' | 'waitTotalNs' | 'waitMinNs' | 'waitMaxNs'
>;

/** A duration as perf prints it: `316 ns`, `3.82 us`, `57.40 s `. */
export function perfTime(ns: number): string {
  const unit = UNITS.find(([, from]) => ns >= from);
  return unit === undefined ? `${Math.round(ns)} ns` : `${(ns / unit[1]).toFixed(2)} ${unit[0]}`;
}

/** Widths of perf's columns. */
const NAME = 20;
const COUNT = 10;
const TIME = 12;
const TYPE = 12;

function sorted<T extends Figures>(figures: readonly T[], key: PerfLockKey): T[] {
  const of = KEYS[key];
  if (of === undefined) {
    throw new RangeError(`key is ${describe(key)}; it must be one of ${PERF_LOCK_KEYS.join(', ')}`);
  }
  return [...figures].sort((a, b) => of(b) - of(a));
}

const figuresOf = ({
  name,
  acquisitions,
  contentions,
  waitTotalNs,
  waitMinNs,
  waitMaxNs,
}: PerfLockRow): Figures => ({
  waitTotalNs,
  waitMinNs,
  waitMaxNs,
  name,
  acquired: acquisitions,
  contended: contentions,
});

/**
 * The table of `perf lock report`: how often the locks of each class were acquired and waited for, and how long. Sorted by
 * acquisitions, or by `key`. Throws RangeError for an unknown key.
 * @example
 * console.log(perfLockReport(arena.lockStat(), 'wait_total'));
 */
export function perfLockReport(rows: readonly PerfLockRow[], key: PerfLockKey = 'acquired'): string {
  requireRows('rows', rows);
  const titles = ['avg wait', 'total wait', 'max wait', 'min wait'].map((title) => title.padStart(TIME));
  const header = `${'Name'.padStart(NAME)} ${'acquired'.padStart(COUNT)} ${'contended'.padStart(COUNT)} ${titles.join(' ')}`;
  const used = rows.map(figuresOf).filter(({ acquired, contended }) => acquired + contended > 0);
  const lines = sorted(used, key).map((figures) => {
    const { name, acquired, contended, waitTotalNs, waitMaxNs, waitMinNs } = figures;
    const counts = [acquired, contended].map((n) => String(n).padStart(COUNT));
    const waits = [averageWait(figures), waitTotalNs, waitMaxNs, waitMinNs];
    return [name.padStart(NAME), ...counts, ...waits.map(time)].join(' ');
  });
  return `${[header, '', ...lines].join('\n')}\n`;
}

const time = (ns: number): string => perfTime(ns).padStart(TIME);

/**
 * The table of `perf lock contention`: who waited, for what type of lock and how long. In the tier 'full' a line is a
 * caller, in the others, which know none, a class. Sorted by the total wait, or by `key`. Throws RangeError for an unknown
 * key, and for `acquired`, which says nothing about contention.
 * @example
 * console.log(perfLockContention(arena.lockStat()));
 */
export function perfLockContention(rows: readonly LockStatRow[], key: PerfLockKey = 'wait_total'): string {
  requireRows('rows', rows);
  if (key === 'acquired')
    throw new RangeError("key is 'acquired'; a report of contention has no such column");
  const called = rows.some(({ contentionPoints }) => contentionPoints.length > 0);
  const callers = rows.flatMap((row) =>
    called ? pointsOf(row) : [{ ...figuresOf(row), type: typeOf(row.name) }],
  );
  const titles = ['total wait', 'max wait', 'avg wait'].map((title) => title.padStart(TIME)).join(' ');
  const header = `${'contended'.padStart(COUNT)} ${titles} ${'type'.padStart(TYPE)}   ${called ? 'caller' : 'symbol'}`;
  const waited = callers.filter(({ contended }) => contended > 0);
  const lines = sorted(waited, key).map((each) => {
    const waits = [each.waitTotalNs, each.waitMaxNs, averageWait(each)].map(time).join(' ');
    return `${String(each.contended).padStart(COUNT)} ${waits} ${each.type.padStart(TYPE)}   ${each.name}`;
  });
  return `${[header, '', ...lines].join('\n')}\n`;
}

function pointsOf(row: LockStatRow): Array<Figures & { type: string }> {
  return row.contentionPoints.map(({ site, count, ...waits }) => ({
    ...waits,
    name: `${site} of ${row.name}`,
    acquired: 0,
    contended: count,
    type: typeOf(row.name),
  }));
}

/** A lock that may be held over a sleep is a mutex, and one that is only tried on its own CPU a local lock. */
function typeOf(name: string): string {
  const named = (cls: number): boolean => LOCK_CLASS_NAMES[cls] === name;
  if (SLEEPING_LOCK_CLASSES.some(named)) return 'mutex';
  return OWN_WORD_LOCK_CLASSES.some(named) ? 'local_lock' : 'spinlock';
}
