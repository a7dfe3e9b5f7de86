/** What the allocator has to reach, and whether it did. */
import { bootstrapMedian } from '../../src/lab/stats.js';
import type { Figures } from './figures.js';
import type { Native, Ours, Row, Workload } from './plan.js';
import type { Scaling } from './scaling.js';

interface RatioBar {
  readonly ours: Ours;
  readonly against: Native | 'best native';
  readonly row: Row;
  readonly atMost: number;
}

/** Two threads against one: judged in moments in which the machine had a core for each, or not at all. */
interface ScalingBar {
  readonly ours: Ours;
  readonly row: Row;
  readonly atLeast: number;
}

export type Bar = RatioBar | ScalingBar;

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

/** The one bar of its kind. */
export const SCALING_BAR: ScalingBar = { ours: 'granary', row: at64('pair', 2), atLeast: 1.8 };

export const BARS: readonly Bar[] = [
  { ours: 'granary', against: 'glibc', row: at64('pair'), atMost: 1 },
  { ours: 'granary', against: 'glibc', row: at64('batch-16'), atMost: 1 },
  { ours: 'granary', against: 'glibc', row: at64('shuffled-1000'), atMost: 1 },
  { ours: 'granary', against: 'glibc', row: at64('batch-1000'), atMost: 1.15 },
  { ours: 'granary-none', against: 'mimalloc', row: at64('pair'), atMost: 1.2 },
  { ours: 'granary-none', against: 'mimalloc', row: at64('batch-16'), atMost: 1 },
  { ours: 'granary-bulk', against: 'best native', row: at64('batch-16'), atMost: 0.7 },
  SCALING_BAR,
  { ours: 'granary', against: 'mimalloc', row: at64('producer-consumer', 2), atMost: 1 },
];

/** Holds a run's figures against every bar. */
export const evaluateBars = (
  figures: Figures,
  scaling: Scaling | undefined,
  bars: readonly Bar[] = BARS,
): Verdict[] =>
  bars.map((bar) => ('atLeast' in bar ? scalingVerdict(scaling, bar) : ratioVerdict(figures, bar)));

/** As many rounds as every other median is formed from. */
const ENOUGH_MOMENTS = 15;

function scalingVerdict(scaling: Scaling | undefined, bar: ScalingBar): Verdict {
  const { workload, size } = bar.row;
  const name = `${bar.ours}, two threads / one, ${workload} ${size} B`;
  const limit = `>= ${bar.atLeast.toFixed(2)}`;
  if (!scaling)
    return { state: 'SKIP', name, limit, why: `no figures of ${bar.ours} for one and two threads` };
  const { calm, taken } = scaling;
  const moments = `${calm.length} of ${taken} moments were calm`;
  if (calm.length < ENOUGH_MOMENTS) return { state: 'SKIP', name, limit, why: `only ${moments}` };
  const value = bootstrapMedian(calm);
  const state = value.estimate >= bar.atLeast ? 'PASS' : 'MISS';
  return { state, name, limit, value, beside: moments };
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
