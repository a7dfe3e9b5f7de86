/** Two threads against one, in calm moments only: it is the machine's two processors that are in question. */
import type { Gate } from './calm.js';
import type { Peer } from './peer.js';
import { type Row, wholeBatches } from './plan.js';
import type { Progress } from './runner.js';

export interface ScalingPace {
  readonly sampleMs: number;
  /** Calm comparisons until it is enough, and the time after which it ends without. */
  readonly wanted: number;
  readonly limitMs: number;
}

export const FULL_SCALING: ScalingPace = { sampleMs: 1.5, wanted: 45, limitMs: 60_000 };
export const QUICK_SCALING: ScalingPace = { sampleMs: 1.5, wanted: 15, limitMs: 2000 };

/** What two threads got done in the time of one thread's work, in each calm moment; 2 is perfect. */
export interface Scaling {
  readonly calm: readonly number[];
  readonly taken: number;
}

export interface ScalingInput {
  readonly peer: Peer;
  readonly gate: Gate;
  /** The row with two threads. */
  readonly row: Row;
  /** What an operation takes on one thread. */
  readonly nsPerOp: number;
  readonly pace: ScalingPace;
  readonly progress: Progress;
}

/** Rejects when the variant fails. */
export async function measureScaling(input: ScalingInput): Promise<Scaling> {
  const { peer, gate, row, pace, progress } = input;
  const operations = wholeBatches(row.workload, (pace.sampleMs * 1e6) / input.nsPerOp);
  const compare = async (): Promise<number> => {
    const one = await peer.run({ ...row, threads: 1, operations });
    return (2 * one) / (await peer.run({ ...row, threads: 2, operations }));
  };
  const taken: { value: number; slowest: number }[] = [];
  const calm = (): number[] => taken.filter((t) => gate.isCalm(t.slowest)).map((t) => t.value);
  const start = performance.now();
  for (let spent = 0, found = 0; found < pace.wanted && spent < pace.limitMs; ) {
    const share = Math.max(found / pace.wanted, spent / pace.limitMs);
    progress.step(`two threads against one: ${found}/${pace.wanted} calm moments`, share);
    taken.push(await gate.bracket(compare));
    found = calm().length;
    spent = performance.now() - start;
  }
  return { calm: calm(), taken: taken.length };
}
