/** What the figures were taken on, and whether anybody else was using it. */
import { readFileSync } from 'node:fs';
import { availableParallelism, cpus, loadavg, release } from 'node:os';
import { setTimeout as sleep } from 'node:timers/promises';
import type { Peer } from './peer.js';

export interface Environment {
  readonly cpu: string;
  readonly cores: number;
  readonly kernel: string;
  readonly node: string;
  readonly v8: string;
  readonly loadAverage: readonly number[];
}

export function readEnvironment(): Environment {
  return {
    cpu: cpus()[0]?.model ?? 'unknown',
    cores: availableParallelism(),
    kernel: `${process.platform} ${release()} ${process.arch}`,
    node: process.version,
    v8: process.versions.v8,
    loadAverage: loadavg(),
  };
}

/** Clock ticks of all processors since the system started. */
export interface CpuTicks {
  readonly busy: number;
  readonly stolen: number;
  readonly total: number;
}

/** The first line of /proc/stat: user nice system idle iowait irq softirq steal. */
export function parseCpuTicks(stat: string): CpuTicks | undefined {
  const line = /^cpu +(.+)$/m.exec(stat);
  if (!line) return undefined;
  const ticks = line[1]!.split(/ +/).slice(0, 8).map(Number);
  const [, , , idle = 0, iowait = 0, , , stolen = 0] = ticks;
  const total = ticks.reduce((sum, t) => sum + t, 0);
  return { busy: total - idle - iowait, stolen, total };
}

export function readCpuTicks(): CpuTicks | undefined {
  try {
    return parseCpuTicks(readFileSync('/proc/stat', 'utf8'));
  } catch {
    return undefined;
  }
}

/** The share of the processors that was in use over a short while in which this program sleeps. */
export async function busyShareAtRest(ms: number): Promise<number | undefined> {
  const before = readCpuTicks();
  await sleep(ms);
  const after = readCpuTicks();
  if (!before || !after || after.total === before.total) return undefined;
  return (after.busy - before.busy) / (after.total - before.total);
}

const MS_PER_TICK = 10;

/** Milliseconds of processor time that a process has used, from /proc/PID/stat. */
function cpuMsOf(pid: number): number {
  try {
    const stat = readFileSync(`/proc/${pid}/stat`, 'utf8');
    // The second field is a name in brackets, which may hold blanks; user and system time follow as 14 and 15.
    const fields = stat.slice(stat.lastIndexOf(')') + 2).split(' ');
    return (Number(fields[11]) + Number(fields[12])) * MS_PER_TICK;
  } catch {
    return 0;
  }
}

/** Who used the machine between two moments, as shares of all processors. */
export interface Occupation {
  readonly others: number;
  readonly stolen: number;
}

/** Starts an account; the result closes it. The peers' processes must still be alive then. */
export function openAccount(): (peers: readonly Peer[]) => Occupation | undefined {
  const before = readCpuTicks();
  const own = process.cpuUsage();
  return (peers) => {
    const after = readCpuTicks();
    if (!before || !after || after.total === before.total) return undefined;
    const total = after.total - before.total;
    const { user, system } = process.cpuUsage(own);
    const children = peers.flatMap((peer) => peer.pids()).reduce((sum, pid) => sum + cpuMsOf(pid), 0);
    const oursInTicks = ((user + system) / 1000 + children) / MS_PER_TICK;
    return {
      others: Math.max(0, after.busy - before.busy - (after.stolen - before.stolen) - oursInTicks) / total,
      stolen: (after.stolen - before.stolen) / total,
    };
  };
}

export interface MachineState {
  readonly environment: Environment;
  readonly busyBefore: number | undefined;
  /** The share of the samples that were calm. */
  readonly calm: number | undefined;
  readonly occupation: Occupation | undefined;
}

const BUSY_LIMIT = 0.1;
const CALM_LIMIT = 0.8;
const STOLEN_LIMIT = 0.02;

const percent = (share: number): string => `${(share * 100).toFixed(0)} %`;

/** What makes the figures doubtful, one line each. */
export function warnings(machine: MachineState): string[] {
  const { busyBefore, calm, occupation } = machine;
  const lines: string[] = [];
  if (busyBefore !== undefined && busyBefore > BUSY_LIMIT) {
    lines.push(`${percent(busyBefore)} of the processors were busy before the start`);
  }
  if (calm !== undefined && calm < CALM_LIMIT) {
    lines.push(
      `two threads that share nothing ran slower than one around ${percent(1 - calm)} of the samples`,
    );
  }
  if (occupation && occupation.others > BUSY_LIMIT) {
    lines.push(`other programs used ${percent(occupation.others)} of the processors during the run`);
  }
  if (occupation && occupation.stolen > STOLEN_LIMIT) {
    lines.push(`the hypervisor gave ${percent(occupation.stolen)} of the processors' time to others`);
  }
  return lines;
}

/** The lines that open the report. */
export function describe(machine: MachineState): string[] {
  const { environment: e, busyBefore, calm, occupation } = machine;
  const shares = [
    `before ${busyBefore === undefined ? 'unknown' : percent(busyBefore)}`,
    ...(occupation
      ? [`others during the run ${percent(occupation.others)}`, `stolen ${percent(occupation.stolen)}`]
      : []),
  ];
  return [
    `machine   ${e.cpu}, ${e.cores} processors, ${e.kernel}`,
    `node      ${e.node}, V8 ${e.v8}`,
    `load      ${e.loadAverage.map((l) => l.toFixed(2)).join(' ')}; busy: ${shares.join(', ')}`,
    `calm      ${calm === undefined ? 'unknown' : percent(calm)} of the samples: two threads that share nothing ran as fast as one around them`,
    ...warnings(machine).map((line) => `WARNING   ${line}: repeat the run on an idle machine`),
  ];
}
