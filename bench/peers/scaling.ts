/**
 * Two threads against one, where the machine can show it. A processor of a virtual machine is often one of the two
 * threads of a core: while its neighbour works (another guest, or our own second thread) it does half the work,
 * whatever the program does. So each comparison is a bracket of a few milliseconds: the probe, one thread, two
 * threads, the probe again. It counts when both probes ran on two threads as fast as the probe runs alone. The probe
 * adds in registers and knows of no allocator, so what is kept does not depend on what is found.
 */
import type { Peer } from './peer.js';
import { type Row, wholeBatches } from './plan.js';
import type { Progress } from './runner.js';

/** One comparison, and the nanoseconds of one step of the probe on two threads before and after it. */
export interface Bracket {
  readonly before: number;
  readonly after: number;
  /** What two threads got done in the time of one thread's work; 2 is perfect. */
  readonly scaling: number;
}

/** Samples so short that a calm moment of a busy host has room for a bracket. */
export interface ScalingPace {
  readonly sampleMs: number;
  readonly probeMs: number;
  /** Brackets that count until it is enough, and the time after which it ends without. */
  readonly wanted: number;
  readonly limitMs: number;
}

export const FULL_SCALING: ScalingPace = { sampleMs: 1.5, probeMs: 0.25, wanted: 45, limitMs: 60_000 };
export const QUICK_SCALING: ScalingPace = { ...FULL_SCALING, wanted: 15, limitMs: 2000 };

/** How much slower than alone the probe may run on two threads. */
const DISTURBED = 1.1;

/** All brackets of a variant in a row, and which of them count. */
export class Scaling {
  readonly row: Row;
  /** Nanoseconds of one step of the probe when nothing is in its way: the fastest that was seen. */
  floor: number;
  readonly brackets: Bracket[] = [];

  constructor(row: Row, floor: number) {
    this.row = row;
    this.floor = floor;
  }

  add(bracket: Bracket): void {
    this.floor = Math.min(this.floor, bracket.before, bracket.after);
    this.brackets.push(bracket);
  }

  /** The comparisons that count. */
  kept(): number[] {
    const limit = this.floor * DISTURBED;
    return this.brackets.filter((b) => Math.max(b.before, b.after) <= limit).map((b) => b.scaling);
  }
}

export interface ScalingInput {
  readonly peer: Peer;
  readonly probe: Peer;
  /** The row with two threads. */
  readonly row: Row;
  /** What an operation takes on one thread. */
  readonly nsPerOp: number;
  readonly pace: ScalingPace;
  readonly progress: Progress;
}

/** Brackets until enough of them count. Rejects when the variant fails. */
export async function measureScaling({
  peer,
  probe,
  row,
  nsPerOp,
  pace,
  progress,
}: ScalingInput): Promise<Scaling> {
  const operations = wholeBatches(row.workload, (pace.sampleMs * 1e6) / nsPerOp);
  const scaling = new Scaling(row, await probeAlone(probe));
  const steps = Math.ceil((pace.probeMs * 1e6) / scaling.floor);
  const start = performance.now();
  let spent = 0;
  let kept = 0;
  while (kept < pace.wanted && spent < pace.limitMs) {
    progress.step(
      `two threads against one, ${kept}/${pace.wanted} calm moments`,
      Math.max(kept / pace.wanted, spent / pace.limitMs),
    );
    const before = await probeOnTwo(probe, steps);
    const one = await peer.run({ ...row, threads: 1, operations });
    const two = await peer.run({ ...row, threads: 2, operations });
    scaling.add({ before, after: await probeOnTwo(probe, steps), scaling: (2 * one) / two });
    kept = scaling.kept().length;
    spent = performance.now() - start;
  }
  return scaling;
}

async function probeOnTwo(probe: Peer, steps: number): Promise<number> {
  return (await probe.run({ workload: 'probe', size: 0, threads: 2, operations: steps })) / steps;
}

const ALONE_TRIALS = 30;
const ALONE_STEPS = 200_000;

/** Nanoseconds of a step on one thread, the fastest of many. */
async function probeAlone(probe: Peer): Promise<number> {
  let fastest = Number.POSITIVE_INFINITY;
  for (let i = 0; i < ALONE_TRIALS; i++) {
    const ns = await probe.run({ workload: 'probe', size: 0, threads: 1, operations: ALONE_STEPS });
    fastest = Math.min(fastest, ns / ALONE_STEPS);
  }
  return fastest;
}
