/** The tables, and the same figures as JSON. */
import { bootstrapMedian, type Column, table } from '../../src/lab/stats.js';
import type { Bar, Verdict } from './bars.js';
import type { Figures } from './figures.js';
import type { MachineState } from './machine.js';
import type { Moments } from './moments.js';
import { NATIVES, OURS, type Row, rowKey, SCRIPTED, VARIANTS, type Variant } from './plan.js';

const NONE = '-';
const THEIRS: readonly Variant[] = [...NATIVES, ...SCRIPTED];

const rowCells = (row: Row): [string, number, number] => [row.workload, row.size, row.threads];
const rowColumns: readonly Column[] = [
  { title: 'workload', align: 'left' },
  { title: 'bytes' },
  { title: 'threads' },
];

const columnsFor = (titles: readonly string[]): Column[] => [
  ...rowColumns,
  ...titles.map((title) => ({ title })),
];
const ns = (value: number | undefined): string =>
  value === undefined ? NONE : value.toFixed(value < 100 ? 1 : 0);

const measured = (figures: Figures, variants: readonly Variant[]): Variant[] =>
  variants.filter((variant) => figures.all.some((series) => series.variant === variant));

/** Nanoseconds for one allocation and its free, the median of the rounds. */
export function costTable(figures: Figures, rows: readonly Row[]): string {
  const variants = measured(figures, VARIANTS);
  const cells = rows.map((row) => [...rowCells(row), ...variants.map((v) => ns(figures.median(v, row)))]);
  return table(cells, columnsFor(variants));
}

function ratioCell(ratios: readonly number[] | undefined): string {
  if (!ratios) return NONE;
  const { estimate, low, high } = bootstrapMedian(ratios);
  const digits = estimate < 0.1 ? 3 : 2;
  return `${estimate.toFixed(digits)} ${low.toFixed(digits)}..${high.toFixed(digits)}`;
}

/** One of our variants divided by each of the others; below 1 is faster than the other. */
export function ratioTable(figures: Figures, rows: readonly Row[], ours: Variant): string {
  const peers = measured(figures, THEIRS);
  const own = rows.filter((row) => figures.samples(ours, row));
  const cells = own.map((row) => [
    ...rowCells(row),
    ...peers.map((p) => ratioCell(figures.ratios(ours, p, row))),
  ]);
  return table(cells, columnsFor(peers.map((peer) => `/ ${peer}`)));
}

/** How far each row is from the fastest native allocator of that row. */
export function distanceTable(figures: Figures, rows: readonly Row[]): string {
  const ours = measured(figures, OURS);
  const compared = rows.filter((row) => figures.bestNative(row));
  const cells = compared.map((row) => {
    const best = figures.bestNative(row)!;
    const ratios = ours.map((variant) => ratioCell(figures.ratios(variant, best, row)));
    return [...rowCells(row), best, ns(figures.median(best, row)), ...ratios];
  });
  const columns = columnsFor(['best native', 'ns', ...ours]);
  return table(cells, columns);
}

/** All tables that have something to show, each under a title. */
export function reportText(figures: Figures, rows: readonly Row[]): string {
  const parts = [
    'ns per allocation and free (median; wall time of the slowest thread / operations per thread)',
    costTable(figures, rows),
  ];
  const hasPeers = measured(figures, THEIRS).length > 0;
  for (const ours of hasPeers ? measured(figures, OURS) : []) {
    parts.push(
      '',
      `${ours} / peer: median of the rounds' ratios, 95 % interval; below 1 is faster than the peer`,
    );
    parts.push(ratioTable(figures, rows, ours));
  }
  if (measured(figures, OURS).length > 0 && measured(figures, NATIVES).length > 0) {
    parts.push(
      '',
      'distance to the best native allocator of each row (aim: 1.0)',
      distanceTable(figures, rows),
    );
  }
  return parts.join('\n');
}

export interface JsonInput {
  readonly figures: Figures;
  readonly moments: ReadonlyMap<Bar, Moments>;
  readonly rows: readonly Row[];
  readonly machine: MachineState;
  readonly libraries: readonly string[];
  readonly seed: number;
  readonly rounds: number;
  readonly quick: boolean;
  readonly notes: readonly string[];
  readonly verdicts: readonly Verdict[];
}

/** Everything that was measured, raw samples included. */
export function reportJson(input: JsonInput): string {
  const { figures, rows, machine, libraries, seed, rounds, quick, notes, verdicts } = input;
  const moments = [...input.moments].map(([{ ours, row }, found]) => ({ ours, ...row, ...found }));
  const series = figures.all.map(({ variant, row, operations, nsPerOp }) => {
    const { estimate, low, high } = bootstrapMedian(nsPerOp);
    return { variant, ...row, operations, median: estimate, low, high, nsPerOp };
  });
  const ratios = measured(figures, OURS).flatMap((ours) =>
    rows.flatMap((row) =>
      measured(figures, THEIRS).flatMap((peer) => {
        const perRound = figures.ratios(ours, peer, row);
        if (!perRound) return [];
        const { estimate, low, high } = bootstrapMedian(perRound);
        return [{ ours, peer, row: rowKey(row), median: estimate, low, high }];
      }),
    ),
  );
  const bars = verdicts;
  const format = 'granary-peers/1';
  const all = { format, seed, rounds, quick, machine, libraries, notes, series, ratios, moments, bars };
  return `${JSON.stringify(all, null, 1)}\n`;
}
