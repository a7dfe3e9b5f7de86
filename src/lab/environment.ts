/** What figures were taken on, whether two threads really run at once there, and whether somebody else was busy. */
import { readFileSync } from 'node:fs';
import { availableParallelism, cpus, loadavg, release, totalmem } from 'node:os';
import { setTimeout as sleep } from 'node:timers/promises';
import { Arena } from '../arena.js';
import { LINE_WORDS } from '../struct/index.js';
import { type ProbeJob, type ProbeResult, wallMs } from './jobs.js';
import { CpuPool } from './pool.js';
import { formatNs, median } from './stats.js';

export interface Environment {
  readonly cpu: string;
  readonly cores: number;
  readonly memoryBytes: number;
  readonly system: string;
  readonly node: string;
  readonly v8: string;
  readonly loadAverage: readonly number[];
  /** Share of all processors that was in use while this program slept; undefined where it cannot be told. */
  readonly busyShare: number | undefined;
  readonly probe: Probe | undefined;
  /** What makes figures from this machine doubtful, a line each. */
  readonly warnings: readonly string[];
}

/** Atomic adds: what one thread takes, and two on lines of their own and on the same line. */
interface Probe {
  readonly oneThreadNs: number;
  readonly separateLinesNs: number;
  readonly sameLineNs: number;
  /** Work of two threads that share nothing, by the work of one: 2 where both have a core. */
  readonly scaling: number;
}

/** Share of the processors in use, from two readings of /proc/stat. */
async function busyShareAtRest(ms: number): Promise<number | undefined> {
  const before = readTicks();
  await sleep(ms);
  const after = readTicks();
  if (before === undefined || after === undefined || after.total <= before.total) return undefined;
  return (after.busy - before.busy) / (after.total - before.total);
}

/** user nice system idle iowait irq softirq steal */
function readTicks(): { busy: number; total: number } | undefined {
  try {
    const ticks = /^cpu +(.+)$/m
      .exec(readFileSync('/proc/stat', 'utf8'))?.[1]
      ?.split(/ +/)
      .slice(0, 8)
      .map(Number);
    if (ticks === undefined) return undefined;
    const total = ticks.reduce((sum, n) => sum + n, 0);
    return { busy: total - (ticks[3] ?? 0) - (ticks[4] ?? 0), total };
  } catch {
    return undefined;
  }
}

/** Starts an account; the result closes it: the share of all processors that other programs used meanwhile. */
export function openAccount(): () => number | undefined {
  const before = readTicks();
  const own = process.cpuUsage();
  return () => {
    const after = readTicks();
    if (before === undefined || after === undefined || after.total <= before.total) return undefined;
    const { user, system } = process.cpuUsage(own);
    const ownTicks = (user + system) / 1000 / MS_PER_TICK;
    return Math.max(0, after.busy - before.busy - ownTicks) / (after.total - before.total);
  };
}

const MS_PER_TICK = 10;
const PROBE_ROUNDS = 5;
const PROBE_TRIAL = 100_000;
const LINE_AND_NEIGHBOUR = 2 * LINE_WORDS;

/** Measures for about `ms` milliseconds on two threads of their own. */
export async function probeMachine(ms: number): Promise<Probe> {
  const arena = Arena.create({ bytes: 4 << 20, cpus: 3, check: 'none' });
  arena.online({ cpu: 2 });
  const pool = new CpuPool(arena, { threads: 2 });
  const shared = new Int32Array(new SharedArrayBuffer(1024));
  const measure = async (threads: number, stride: number, adds: number): Promise<number> => {
    const job: ProbeJob = { kind: 'probe', shared, stride, adds };
    return (wallMs(await pool.run<ProbeJob, ProbeResult>(job, threads)) * 1e6) / adds;
  };
  try {
    for (let i = 0; i < 3; i++) await measure(2, LINE_AND_NEIGHBOUR, PROBE_TRIAL);
    const trial = await measure(1, LINE_AND_NEIGHBOUR, PROBE_TRIAL);
    // Two on one line take about ten times as long as one: they get a tenth of the adds.
    const adds = Math.ceil((ms * 1e6) / PROBE_ROUNDS / 3 / trial);
    const rounds: Array<[number, number, number]> = [];
    for (let i = 0; i < PROBE_ROUNDS; i++) {
      const one = await measure(1, LINE_AND_NEIGHBOUR, adds);
      const separate = await measure(2, LINE_AND_NEIGHBOUR, adds);
      rounds.push([one, separate, await measure(2, 0, Math.ceil(adds / 10))]);
    }
    return {
      oneThreadNs: median(rounds.map(([one]) => one)),
      separateLinesNs: median(rounds.map(([, separate]) => separate)),
      sameLineNs: median(rounds.map(([, , same]) => same)),
      scaling: median(rounds.map(([one, separate]) => (2 * one) / separate)),
    };
  } finally {
    await pool.close();
    arena.offline();
  }
}

const SCALING_LIMIT = 1.8;
/** Share of the processors from which on a machine counts as busy. */
export const BUSY_LIMIT = 0.1;
const SLEEP_MS = 200;

function warningsFor(
  busyShare: number | undefined,
  probe: Probe | undefined,
  threads: readonly number[],
): string[] {
  const cores = availableParallelism();
  const lines: string[] = [];
  if (busyShare !== undefined && busyShare > BUSY_LIMIT) {
    lines.push(
      `the machine is busy: ${(busyShare * 100).toFixed(0)} % of its processors while this program slept`,
    );
  }
  if (probe !== undefined && cores > 1 && probe.scaling < SCALING_LIMIT) {
    lines.push(
      `two threads that share nothing did only ${probe.scaling.toFixed(2)} times the work of one: other programs run`,
    );
  }
  const over = threads.filter((n) => n > cores);
  if (over.length > 0) {
    lines.push(`rows with ${over.join(', ')} threads are oversubscribed: there are ${cores} processors`);
  }
  if (process.env.NODE_V8_COVERAGE !== undefined)
    lines.push('coverage is on: figures are several times too high');
  return lines;
}

/** What to say when others were busy during the run; nothing when they were not. */
export function accountWarning(share: number | undefined): string[] {
  if (share === undefined || share <= BUSY_LIMIT) return [];
  return [
    `other programs used ${(share * 100).toFixed(0)} % of the processors meanwhile: figures are too high`,
  ];
}

/** Reads and probes; takes a fifth of a second more than `probeMs`. */
export async function readEnvironment(probeMs: number, threads: readonly number[]): Promise<Environment> {
  const loadAverage = loadavg();
  const busyShare = await busyShareAtRest(SLEEP_MS);
  const probe = probeMs > 0 ? await probeMachine(probeMs) : undefined;
  return {
    cpu: cpus()[0]?.model.trim() ?? 'unknown',
    cores: availableParallelism(),
    memoryBytes: totalmem(),
    system: `${process.platform} ${release()} ${process.arch}`,
    node: process.version,
    v8: process.versions.v8,
    loadAverage,
    busyShare,
    probe,
    warnings: warningsFor(busyShare, probe, threads),
  };
}

/** The lines that open a report. */
export function describeEnvironment(environment: Environment): string[] {
  const { cpu, cores, memoryBytes, system, node, v8, loadAverage, busyShare, probe, warnings } = environment;
  const busy = busyShare === undefined ? '' : `, ${(busyShare * 100).toFixed(0)} % busy at rest`;
  const lines = [
    `machine   ${cpu}, ${cores} processors, ${(memoryBytes / 2 ** 30).toFixed(1)} GiB, ${system}`,
    `node      ${node}, V8 ${v8}`,
    `load      ${loadAverage.map((load) => load.toFixed(2)).join(' ')}${busy}`,
  ];
  if (probe !== undefined) {
    lines.push(
      `probe     atomic add: one thread ${formatNs(probe.oneThreadNs)}; two on lines of their own ` +
        `${formatNs(probe.separateLinesNs)} each (${probe.scaling.toFixed(2)} x the work of one); ` +
        `two on one line ${formatNs(probe.sameLineNs)} each`,
    );
  }
  return [...lines, ...warnings.map((warning) => `WARNING   ${warning}`)];
}
