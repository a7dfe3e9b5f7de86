/** What a study's figures say, in sentences that are made from the figures. */
import type { LockPolicy } from '../../struct/index.js';
import { BUSY_LIMIT } from '../environment.js';
import { formatCount, formatNs } from '../stats.js';
import { type RowResult, SAMPLES_FOR_P999 } from './row.js';

const DEFAULT_POLICY: LockPolicy = 'turn';
const percent = (share: number): string => `${(share * 100).toFixed(share > 0.99 && share < 1 ? 2 : 1)} %`;
const times = (factor: number): string => `${factor.toFixed(2)}x`;
const at = ({ workload, threads }: RowResult): string => `${workload} on ${threads}`;

function extremes<T>(items: readonly T[], by: (item: T) => number): { least: T; most: T } | undefined {
  if (items.length === 0) return undefined;
  const sorted = [...items].sort((a, b) => by(a) - by(b));
  return { least: sorted[0]!, most: sorted.at(-1)! };
}

function geometricMean(values: readonly number[]): number {
  return Math.exp(values.reduce((sum, value) => sum + Math.log(value), 0) / values.length);
}

/** Two rows of one workload that are compared. */
interface Comparison {
  readonly row: RowResult;
  readonly base: RowResult;
  readonly factor: number;
}

function compare(
  rows: readonly RowResult[],
  isBase: (row: RowResult, base: RowResult) => boolean,
  factor: (row: RowResult, base: RowResult) => number,
): Comparison[] {
  return rows.flatMap((row) => {
    const base = rows.find((other) => other.workload === row.workload && isBase(row, other));
    return base === undefined ? [] : [{ row, base, factor: factor(row, base) }];
  });
}

function costFact(rows: readonly RowResult[]): string[] {
  const found = extremes(
    rows.filter((row) => row.policy === DEFAULT_POLICY),
    ({ median }) => median,
  );
  if (found === undefined) return [];
  const { least, most } = found;
  return [
    `An allocation and its free cost ${formatNs(least.median)} at best (${at(least)}) and ${formatNs(most.median)} ` +
      `at worst (${at(most)}), under '${DEFAULT_POLICY}'.`,
  ];
}

function policyFact(rows: readonly RowResult[]): string[] {
  const pairs = compare(
    rows,
    (row, base) => row.policy === 'op' && base.policy === 'turn' && row.threads === base.threads,
    (row, base) => row.median / base.median,
  );
  const found = extremes(pairs, ({ factor }) => factor);
  if (found === undefined) return [];
  const apart = pairs.filter(({ row, base }) => row.low > base.high || base.low > row.high).length;
  return [
    `A lock taken for every operation ('op') costs ${times(geometricMean(pairs.map(({ factor }) => factor)))} a lock ` +
      `kept for the turn ('turn'): from ${times(found.least.factor)} (${at(found.least.row)}) to ` +
      `${times(found.most.factor)} (${at(found.most.row)}); the intervals are apart in ${apart} of ${pairs.length} rows.`,
  ];
}

function scalingFact(rows: readonly RowResult[]): string[] {
  const mine = rows.filter(({ policy }) => policy === DEFAULT_POLICY);
  const pairs = compare(
    mine.filter(({ oversubscribed }) => !oversubscribed),
    (row, base) => base.threads === 1 && row.threads > 1,
    (row, base) => row.opsPerSecond / base.opsPerSecond,
  );
  const lines: string[] = [];
  for (const threads of new Set(pairs.map(({ row }) => row.threads))) {
    const found = extremes(
      pairs.filter(({ row }) => row.threads === threads),
      ({ factor }) => factor,
    )!;
    const { least, most } = found;
    const range =
      least === most
        ? `${times(most.factor)} the work of one (${most.row.workload})`
        : `${times(most.factor)} the work of one at best (${most.row.workload}), ` +
          `${times(least.factor)} at worst (${least.row.workload})`;
    lines.push(`${threads} threads do ${range}.`);
  }
  return lines;
}

function oversubscriptionFact(rows: readonly RowResult[]): string[] {
  const mine = rows.filter(({ policy }) => policy === DEFAULT_POLICY);
  const fitting = mine.filter(({ oversubscribed }) => !oversubscribed);
  const most = Math.max(...fitting.map(({ threads }) => threads));
  const pairs = compare(
    mine,
    (row, base) => row.oversubscribed && base.threads === most,
    (row, base) => row.opsPerSecond / base.opsPerSecond,
  );
  const found = extremes(pairs, ({ factor }) => factor);
  if (found === undefined) return [];
  return [
    `More threads than processors: throughput is ${times(found.least.factor)} (${at(found.least.row)}) to ` +
      `${times(found.most.factor)} (${at(found.most.row)}) of that on ${most}.`,
  ];
}

function sheafFact(rows: readonly RowResult[]): string[] {
  const mine = rows.filter(({ policy }) => policy === DEFAULT_POLICY);
  const fast = extremes(mine, ({ fastPathShare }) => fastPathShare);
  const slabs = extremes(mine, ({ slabShare }) => slabShare);
  if (fast === undefined || slabs === undefined) return [];
  const { least } = fast;
  return [
    `Sheaves served ${percent(least.fastPathShare)} of the calls or more (least: ${at(least)}); ` +
      `most often slabs were needed by ${at(slabs.most)}, for ${percent(slabs.most.slabShare)} of its objects.`,
  ];
}

function latencyFact(rows: readonly RowResult[]): string[] {
  const found = extremes(
    rows.filter(
      ({ latency, oversubscribed }) =>
        !oversubscribed && latency !== null && latency.samples >= SAMPLES_FOR_P999,
    ),
    ({ latency }) => latency!.p999,
  );
  if (found === undefined) return [];
  const { least, most } = found;
  return [
    `One call in a thousand took longer than ${formatNs(least.latency!.p999)} (${at(least)}, ${least.policy}) to ` +
      `${formatNs(most.latency!.p999)} (${at(most)}, ${most.policy}).`,
  ];
}

/** Waits by lock class, over all rows. */
function lockFact(rows: readonly RowResult[]): string[] {
  const waits = rows.flatMap((row) => (row.locks ?? []).map((lock) => ({ row, lock })));
  if (waits.length === 0) return [];
  const total = waits.reduce((sum, { lock }) => sum + lock.waitTotalNs, 0);
  if (total === 0) return ['Nobody waited for a lock in any run.'];
  const byClass = new Map<string, number>();
  for (const { lock } of waits) byClass.set(lock.name, (byClass.get(lock.name) ?? 0) + lock.waitTotalNs);
  const [name, ns] = [...byClass].sort((a, b) => b[1] - a[1])[0]!;
  const longest = extremes(waits, ({ lock }) => lock.waitMaxNs)!.most;
  const shareOf = (row: RowResult): number =>
    row.locks!.reduce((sum, lock) => sum + lock.waitTotalNs, 0) / (row.lockRunMs * 1e6 * row.threads);
  const worst = extremes(
    rows.filter(({ locks }) => locks !== null),
    shareOf,
  )!.most;
  return [
    `${percent(ns / total)} of all waiting was for ${name}; ${at(worst)}, ${worst.policy}, waited most: ` +
      `${percent(shareOf(worst))} of its threads' time.`,
    `The longest wait was ${formatNs(longest.lock.waitMaxNs)}, for ${longest.lock.name} (${at(longest.row)}, ` +
      `${longest.row.policy}${longest.row.oversubscribed ? ', oversubscribed: its owner may not have been running' : ''}).`,
  ];
}

function memoryFact(rows: readonly RowResult[]): string[] {
  const measured = rows.flatMap((row) =>
    row.highWaterPages === null ? [] : [{ row, pages: row.highWaterPages }],
  );
  const found = extremes(measured, ({ pages }) => pages);
  if (found === undefined) return [];
  const { row, pages } = found.most;
  return [`Most memory: ${formatCount(pages * 4)} KiB above the empty arena, ${at(row)}, ${row.policy}.`];
}

function soundnessFact(rows: readonly RowResult[]): string {
  const bad = rows.filter(({ problems }) => problems.length > 0);
  const runs = rows.reduce((sum, { nsPerOp }) => sum + nsPerOp.length, 0);
  if (bad.length > 0) return `${bad.length} of ${rows.length} rows are VOID: their figures mean nothing.`;
  const ungated = rows.filter(({ highWaterPages }) => highWaterPages === null).length;
  const gated = ungated === 0 ? '' : ` There was no time for the run with cookies in ${ungated} rows.`;
  return `Sound: after each of ${runs} timed runs the whole arena was validated, and no object was lost.${gated}`;
}

function busyFact(othersShare: number | undefined): string[] {
  if (othersShare === undefined || othersShare <= BUSY_LIMIT) return [];
  return [
    `Other programs used ${percent(othersShare)} of the processors: compare rows of one thread, and repeat the rest on ` +
      'an idle machine.',
  ];
}

/** One line a fact; rows that are void have no part in any but the first. */
export function facts(rows: readonly RowResult[], othersShare?: number): string[] {
  const good = rows.filter(({ problems }) => problems.length === 0);
  return [
    soundnessFact(rows),
    ...busyFact(othersShare),
    ...costFact(good),
    ...policyFact(good),
    ...scalingFact(good),
    ...oversubscriptionFact(good),
    ...sheafFact(good),
    ...latencyFact(good),
    ...lockFact(good),
    ...memoryFact(good),
  ];
}
