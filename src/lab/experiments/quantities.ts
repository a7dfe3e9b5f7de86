/** What is told of hits, memory and locks, a sentence a variant: its worst case. */
import { perfTime } from '../../observe/index.js';
import type { Quantity } from './experiment.js';
import type { ExperimentRow } from './row.js';

const PAGE_KIB = 4;

/** `larson on 4 threads` */
export const at = ({ workload, threads }: ExperimentRow): string =>
  `${workload} on ${threads} ${threads === 1 ? 'thread' : 'threads'}`;

const percent = (share: number): string => `${(share * 100).toFixed(share > 0.99 && share < 1 ? 2 : 1)} %`;

function greatest(rows: readonly ExperimentRow[], by: (row: ExperimentRow) => number): ExperimentRow {
  return rows.reduce((most, row) => (by(row) > by(most) ? row : most));
}

const SENTENCES: Readonly<Record<Quantity, (rows: readonly ExperimentRow[]) => string[]>> = {
  // Told case by case, in their table.
  costs: () => [],
  paths: (rows) => {
    const row = greatest(rows, ({ paths }) => -paths.fast);
    const { fast, barn, slab } = row.paths;
    const moved = greatest(rows, ({ movedShare }) => movedShare);
    return [
      `at worst ${percent(fast)} of the calls fast, ${percent(barn)} barn, ${percent(slab)} slabs (${at(row)})`,
      `at most ${moved.movedShare.toFixed(3)} objects per call moved from or to slabs (${at(moved)})`,
    ];
  },
  hits: (rows) => {
    const names = new Set(rows.flatMap(({ hits }) => Object.keys(hits)));
    return [...names].sort().map((name) => {
      const row = greatest(rows, ({ hits }) => -(hits[name] ?? 1));
      return `${name} at worst ${percent(row.hits[name] ?? 1)} served by the CPU (${at(row)})`;
    });
  },
  bypasses: (rows) => {
    const row = greatest(rows, ({ bypassShare }) => bypassShare);
    if (row.bypassShare === 0) return [];
    return [
      `${percent(row.bypassShare)} of the calls went past sheaves that another thread had locked (${at(row)})`,
    ];
  },
  memory: (rows) => {
    const row = greatest(rows, ({ highWaterPages }) => highWaterPages ?? 0);
    return row.highWaterPages === null ? [] : [`at most ${row.highWaterPages * PAGE_KIB} KiB (${at(row)})`];
  },
  'perf-lock': (rows) => {
    const of = (row: ExperimentRow) => row.locks?.classes.find(({ name }) => name === 'pcpu_alloc_mutex');
    const row = greatest(rows, (each) => (of(each) === undefined ? -1 : each.threads));
    if (row.locks === null) return [];
    const { acquisitions = 0, contentions = 0, waitTotalNs = 0 } = of(row) ?? {};
    const wait =
      contentions === 0
        ? 'never waited for'
        : `waited for ${perfTime(waitTotalNs / contentions).trim()} on average`;
    const share = acquisitions === 0 ? 0 : contentions / acquisitions;
    return [
      `pcpu_alloc_mutex acquired ${(acquisitions / row.locks.ops).toFixed(3)} times per operation, ${percent(share)} contended, ${wait} (${at(row)})`,
    ];
  },
  locks: (rows) => {
    const waited = greatest(rows, ({ locks }) => locks?.waitNsPerOp.estimate ?? 0);
    const tried = greatest(rows, ({ locks }) => locks?.tryFailedShare ?? 0);
    const wait = waited.locks?.waitNsPerOp.estimate ?? 0;
    const failed = tried.locks?.tryFailedShare ?? 0;
    const parts: string[] = [];
    if (wait > 0) {
      const most = waited.locks!.mostWaitedFor;
      parts.push(`${wait.toFixed(1)} ns per operation waited for locks, mostly ${most} (${at(waited)})`);
    }
    if (failed > 0) parts.push(`${percent(failed)} of the tries for the sheaves' lock failed (${at(tried)})`);
    return parts;
  },
};

/** A sentence for each variant of which there is something to tell; what is void has no part in it. */
export function quantityLines(
  shows: readonly Quantity[],
  rows: readonly ExperimentRow[],
  variants: readonly string[],
): string[] {
  return variants.flatMap((variant) => {
    const mine = rows.filter((row) => row.variant === variant && row.problems.length === 0);
    const parts = mine.length === 0 ? [] : shows.flatMap((quantity) => SENTENCES[quantity](mine));
    return parts.length === 0 ? [] : [`${variant}: ${parts.join('; ')}.`];
  });
}
