/** The suites of `npm run bench`: which workload runs on which arena, and how it becomes a task of tinybench. */
import type { Bench, FnReturnedObject } from 'tinybench';
import type { CheckLevel, LockPolicy } from '../src/index.js';
import { Stage } from '../src/lab/stage.js';

export interface Case {
  readonly suite: string;
  readonly workload: string;
  readonly threads: number;
  readonly policy: LockPolicy;
  readonly check: CheckLevel;
}

const THREADS = 2;
const ARENA_BYTES = 64 << 20;
/** Operations of a thread while nothing is known of a case. */
const TRIAL_OPS = 10_000;
const TRIALS = 6;

const both = (suite: string, workloads: readonly string[], threads: readonly number[]): Case[] =>
  workloads.flatMap((workload) =>
    threads.flatMap((n) =>
      (['turn', 'op'] as const).map((policy) => ({
        suite,
        workload,
        threads: n,
        policy,
        check: 'free' as const,
      })),
    ),
  );

export const CASES: readonly Case[] = [
  ...both('pair', ['pair'], [1, 2]),
  ...both('batch', ['batch-10', 'batch-1000', 'shuffled-1000'], [1, 2]),
  ...both('bulk', ['bulk-16'], [1, 2]),
  ...both('producer-consumer', ['producer-consumer'], [2]),
  ...both('kmalloc', ['mixed'], [1, 2]),
  ...['pair', 'batch-10'].flatMap((workload) =>
    (['none', 'free', 'full'] as const).map((check) => ({
      suite: 'check',
      workload,
      threads: 1,
      policy: 'turn' as const,
      check,
    })),
  ),
];

export const caseName = ({ suite, workload, threads, policy, check }: Case): string =>
  `${suite}: ${workload}, ${threads} ${threads === 1 ? 'thread' : 'threads'}, ${policy}, check ${check}`;

/** The arenas of all cases, one for each policy and check level: a thread's loops must see one class of cache. */
export class Stages {
  readonly #stages = new Map<string, Stage>();

  for({ policy, check }: Case): Stage {
    const key = `${policy} ${check}`;
    let stage = this.#stages.get(key);
    if (stage === undefined) {
      stage = new Stage({ bytes: ARENA_BYTES, threads: THREADS, lockPolicy: policy, check });
      this.#stages.set(key, stage);
    }
    return stage;
  }

  /** Ends all threads; returns what was wrong with an arena. */
  async close(): Promise<string[]> {
    const problems: string[] = [];
    for (const [key, stage] of this.#stages) {
      problems.push(...(await stage.close()).map((problem) => `arena ${key}: ${problem}`));
    }
    return problems;
  }
}

/**
 * Adds a case: one call of the task is one round of all threads. What tinybench gets as duration is the time of the
 * whole round by the operations of one thread; its budget is charged with the round.
 */
export async function addCase(bench: Bench, stages: Stages, one: Case, roundMs: number): Promise<void> {
  const stage = stages.for(one);
  const { threads, workload } = one;
  let wallMs = 0;
  for (let i = 0; i < TRIALS; i++)
    wallMs = (await stage.runWorkload(workload, TRIAL_OPS, { threads })).wallMs;
  const ops = Math.max(TRIAL_OPS, Math.round((TRIAL_OPS * roundMs) / wallMs));
  const round = async (): Promise<FnReturnedObject> => {
    const start = bench.now();
    const figures = await stage.runWorkload(workload, ops, { threads });
    if (figures.problems.length > 0) throw new Error(figures.problems.join('; '));
    return { overriddenDuration: figures.nsPerOp / 1e6, overriddenIterationCost: bench.now() - start };
  };
  bench.add(caseName(one), round, { async: true });
}
