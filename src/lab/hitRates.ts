/** What sheaves do for the caches that the kernel gave them to first, on recorded allocations: with them, and without. */
import type { Layer } from '../struct/index.js';
import { arenaBytesFor } from './replayBytes.js';
import { checkShape, Stage } from './stage.js';
import { table } from './stats.js';
import { compileTrace, type TraceProgram } from './trace/index.js';

interface HitRateOptions {
  cpus?: number;
  /** Frees of the kernel's own contexts go through kfree_rcu. */
  kthreadRcu?: boolean;
  passes?: number;
}

/** One cache in front of whose slabs one layer stands. */
interface HitRate {
  cache: string;
  layer: Layer;
  allocs: number;
  frees: number;
  /** Frees that kfree_rcu put into a sheaf; they are among the fast ones. */
  rcuSheafFrees: number;
  allocsFast: number;
  freesFast: number;
  /** Objects that were fetched from slabs. */
  fromSlabs: number;
}

/** Seed 004: the caches that are given sheaves. */
export const SHEAF_CACHES: readonly string[] = ['vm_area_struct', 'maple_node'];
/** With sheaves, as kernels before them, and with nothing. */
export const HIT_RATE_LAYERS: readonly Layer[] = ['sheaves', 'cpu-slab', 'none'];

const PASSES = 3;
const STAT_FIELDS = ['ALLOC_FASTPATH', 'ALLOC_SLOWPATH', 'FREE_FASTPATH', 'FREE_SLOWPATH'] as const;
const SHEAF_FIELDS = ['FREE_RCU_SHEAF', 'SHEAF_REFILL'] as const;
type Field = (typeof STAT_FIELDS)[number] | (typeof SHEAF_FIELDS)[number];

/** Replays a trace under each layer. Rejects as replayTrace does, and when a replay is unsound. */
export async function hitRates(file: string, options: HitRateOptions = {}): Promise<HitRate[]> {
  const { cpus = 1, kthreadRcu = false, passes = PASSES } = options;
  checkShape(cpus, cpus, 1, 'turn');
  const program = await compileTrace(file, { cpus, kthreadRcu });
  const rates: HitRate[] = [];
  for (const layer of HIT_RATE_LAYERS) rates.push(...(await ratesOf(program, layer, passes)));
  const order = (rate: HitRate): number => SHEAF_CACHES.indexOf(rate.cache);
  return rates.sort((a, b) => order(a) - order(b));
}

async function ratesOf(program: TraceProgram, layer: Layer, passes: number): Promise<HitRate[]> {
  const { cpus, caches } = program;
  const maxCaches = Math.min(254, 32 + caches.length);
  const stage = new Stage({ threads: cpus, layer, bytes: arenaBytesFor([program]), maxCaches });
  const problems: string[] = [];
  let rates: HitRate[] = [];
  try {
    stage.addTrace(program);
    const names = caches.filter(({ traceName }) => SHEAF_CACHES.includes(traceName)).map(({ name }) => name);
    problems.push(...(await stage.runReplay(program, 1)).problems); // fills what the layer keeps
    const before = names.map((name) => stage.arena.openCache(name).stats());
    problems.push(...(await stage.runReplay(program, passes)).problems);
    rates = names.map((name, i) => {
      const now = stage.arena.openCache(name).stats();
      return rateOf(name, layer, (field) => (now[field] - before[i]![field]) / passes);
    });
  } finally {
    problems.push(...(await stage.close()));
  }
  if (problems.length > 0) throw new Error(`the replay with layer '${layer}' is unsound: ${problems[0]}`);
  return rates;
}

function rateOf(cache: string, layer: Layer, moved: (field: Field) => number): HitRate {
  const allocsFast = moved('ALLOC_FASTPATH');
  const rcuSheafFrees = moved('FREE_RCU_SHEAF');
  const freesFast = moved('FREE_FASTPATH') + rcuSheafFrees;
  return {
    cache,
    layer,
    allocs: allocsFast + moved('ALLOC_SLOWPATH'),
    frees: freesFast + moved('FREE_SLOWPATH'),
    rcuSheafFrees,
    allocsFast,
    freesFast,
    fromSlabs: moved('ALLOC_SLOWPATH') + moved('SHEAF_REFILL'),
  };
}

const percent = (part: number, whole: number): string =>
  whole === 0 ? '-' : ((part / whole) * 100).toFixed(1);

/** The rates as a table; counts are those of one pass. */
export function hitRateText(file: string, rates: readonly HitRate[]): string {
  const cells = rates.map((rate) => [
    rate.cache,
    rate.layer,
    Math.round(rate.allocs),
    percent(rate.allocsFast, rate.allocs),
    Math.round(rate.frees),
    percent(rate.freesFast, rate.frees),
    Math.round(rate.rcuSheafFrees),
    percent(rate.fromSlabs, rate.allocs),
  ]);
  const left = ['cache', 'layer'].map((title) => ({ title, align: 'left' as const }));
  const titles = ['allocs', 'fast %', 'frees', 'fast %', 'by rcu sheaf', 'from slabs %'];
  const rows =
    rates.length === 0
      ? `the trace has no ${SHEAF_CACHES.join(' and no ')}`
      : table(cells, [...left, ...titles.map((title) => ({ title }))]);
  return `trace ${file}: calls of one pass that the layer served without a slab\n\n${rows}\n`;
}
