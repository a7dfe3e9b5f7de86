/** What the allocator has to reach, and whether it did. */
import { bootstrapMedian } from '../../src/lab/stats.js';
import type { Figures } from './figures.js';
import type { Moments } from './moments.js';
import type { Native, Ours, Row, Workload } from './plan.js';

/** One variant's time by another's, on one thread: judged round by round. */
interface RatioBar {
  readonly ours: Ours;
  readonly against: Native | 'best native';
  readonly row: Row;
  readonly atMost: number;
}

/** The same on two threads: judged by calm moments, or not at all. */
interface HandOverBar extends RatioBar {
  readonly against: Native;
  readonly calm: true;
}

/** What two threads get done by what one does: likewise. */
interface ScalingBar {
  readonly ours: Ours;
  readonly row: Row;
  readonly atLeast: number;
  readonly calm: true;
}

export type CalmBar = HandOverBar | ScalingBar;
export type Bar = RatioBar | CalmBar;

export interface Verdict {
  readonly state: 'PASS' | 'MISS' | 'SKIP';
  readonly name: string;
  readonly limit: string;
  /** The median of the rounds' ratios with its 95 % interval; absent when skipped. */
  readonly value?: { readonly estimate: number; readonly low: number; readonly high: number };
  /** What it was formed from. */
  readonly beside?: string;
  /** Why there is no value. */
  readonly why?: string;
}

const at64 = (workload: Workload, threads: 1 | 2 = 1): Row => ({ workload, size: 64, threads });

export const BARS: readonly Bar[] = [
  { ours: 'granary', against: 'glibc', row: at64('pair'), atMost: 1 },
  { ours: 'granary', against: 'glibc', row: at64('batch-16'), atMost: 1 },
  { ours: 'granary', against: 'glibc', row: at64('shuffled-1000'), atMost: 1 },
  { ours: 'granary', against: 'glibc', row: at64('batch-1000'), atMost: 1.15 },
  { ours: 'granary-none', against: 'mimalloc', row: at64('pair'), atMost: 1.2 },
  { ours: 'granary-none', against: 'mimalloc', row: at64('batch-16'), atMost: 1 },
  { ours: 'granary-bulk', against: 'best native', row: at64('batch-16'), atMost: 0.7 },
  { ours: 'granary', row: at64('pair', 2), atLeast: 1.8, calm: true },
  { ours: 'granary', against: 'mimalloc', row: at64('producer-consumer', 2), atMost: 1, calm: true },
];

export const isCalmBar = (bar: Bar): bar is CalmBar => 'calm' in bar;

/** Holds a run's figures against every bar. */
export const evaluateBars = (
  figures: Figures,
  moments: ReadonlyMap<Bar, Moments>,
  bars: readonly Bar[] = BARS,
): Verdict[] =>
  bars.map((bar) => (isCalmBar(bar) ? calmVerdict(moments.get(bar), bar) : ratioVerdict(figures, bar)));

/** As many rounds as every other median is formed from. */
const ENOUGH_MOMENTS = 15;

function calmVerdict(moments: Moments | undefined, bar: CalmBar): Verdict {
  const { workload, size, threads } = bar.row;
  const scales = 'atLeast' in bar;
  const name = scales
    ? `${bar.ours}, two threads / one, ${workload} ${size} B`
    : `${bar.ours} / ${bar.against}, ${workload} ${size} B x${threads}`;
  const limit = scales ? `>= ${bar.atLeast.toFixed(2)}` : `<= ${bar.atMost.toFixed(2)}`;
  if (!moments) return { state: 'SKIP', name, limit, why: 'not everybody it takes was measured' };
  const { calm, taken } = moments;
  const beside = `${calm.length} of ${taken} moments were calm`;
  if (calm.length < ENOUGH_MOMENTS) return { state: 'SKIP', name, limit, why: `only ${beside}` };
  const value = bootstrapMedian(calm);
  const holds = scales ? value.estimate >= bar.atLeast : value.estimate <= bar.atMost;
  return { state: holds ? 'PASS' : 'MISS', name, limit, value, beside };
}

function ratioVerdict(figures: Figures, bar: RatioBar): Verdict {
  const { workload, size, threads } = bar.row;
  const best = bar.against === 'best native';
  const peer = bar.against === 'best native' ? figures.bestNative(bar.row) : bar.against;
  const against = best && peer ? `${bar.against} (${peer})` : bar.against;
  const name = `${bar.ours} / ${against}, ${workload} ${size} B x${threads}`;
  const limit = `<= ${bar.atMost.toFixed(2)}`;
  const missing = figures.samples(bar.ours, bar.row) ? bar.against : bar.ours;
  const ratios = peer && figures.ratios(bar.ours, peer, bar.row);
  if (!ratios) return { state: 'SKIP', name, limit, why: `no figures of ${missing}` };
  const value = bootstrapMedian(ratios);
  return { state: value.estimate <= bar.atMost ? 'PASS' : 'MISS', name, limit, value };
}

/** `PASS name: 0.812, 0.799..0.830 (<= 1.00)`. */
export function verdictLine({ state, name, limit, value, beside, why }: Verdict): string {
  if (!value) return `${state} ${name}: ${why} (${limit})`;
  const [estimate, low, high] = [value.estimate, value.low, value.high].map((v) => v.toFixed(3));
  const others = beside ? `; ${beside}` : '';
  return `${state} ${name}: ${estimate}, ${low}..${high} (${limit}${others})`;
}

export function barsLine(verdicts: readonly Verdict[]): string {
  const count = (state: Verdict['state']): number => verdicts.filter((v) => v.state === state).length;
  return `bars: ${count('PASS')} hold, ${count('MISS')} missed, ${count('SKIP')} skipped`;
}
