/** The experiments by name, and what it takes to run one. */
import type { PerfLockRow } from '../../observe/index.js';
import { accountWarning, type Environment, openAccount, readEnvironment } from '../environment.js';
import { noProgress } from '../progress.js';
import { barn } from './barn.js';
import { bulkCalls } from './bulkCalls.js';
import { bulkPages } from './bulkPages.js';
import { capacity } from './capacity.js';
import { concurrentKmalloc } from './concurrentKmalloc.js';
import { ctorBatching } from './ctorBatching.js';
import { debugCost } from './debugCost.js';
import { exec } from './exec.js';
import { exhaustion } from './exhaustion.js';
import type { Experiment, Quantity } from './experiment.js';
import { hardeningCost } from './hardeningCost.js';
import { judge, roundRatio } from './judge.js';
import { kfreeBulk } from './kfreeBulk.js';
import { kfreeRcu } from './kfreeRcu.js';
import { layers } from './layers.js';
import { merge } from './merge.js';
import { microbench } from './microbench.js';
import { mmapStorm } from './mmapStorm.js';
import { percpuAlternatives } from './percpuAlternatives.js';
import { type ExperimentOptions, type ExperimentPlan, planExperiment } from './plan.js';
import { prefill } from './prefill.js';
import { refinements } from './refinements.js';
import type { Case, ExperimentRow, Row } from './row.js';
import { ExperimentRun } from './run.js';
import { sheafLock } from './sheafLock.js';
import { slots } from './slots.js';
import { staticCache } from './staticCache.js';
import { tc } from './tc.js';
import { type Verdict, verdicts } from './verdict.js';
import { views } from './views.js';
import { vma } from './vma.js';

export { type Experiment, NotInThisBuildError } from './experiment.js';
export type { ExperimentOptions } from './plan.js';
export type { ExperimentRow } from './row.js';

export const EXPERIMENTS: readonly Experiment[] = [
  layers,
  sheafLock,
  prefill,
  capacity,
  barn,
  refinements,
  slots,
  bulkCalls,
  ctorBatching,
  bulkPages,
  exhaustion,
  kfreeBulk,
  concurrentKmalloc,
  microbench,
  kfreeRcu,
  merge,
  staticCache,
  vma,
  mmapStorm,
  views,
  percpuAlternatives,
  exec,
  tc,
  hardeningCost,
  debugCost,
];

/** The experiment of that name. Throws a RangeError that lists the names. */
export function experimentNamed(name: string): Experiment {
  const found = EXPERIMENTS.find((experiment) => experiment.name === name);
  if (found !== undefined) return found;
  const names = EXPERIMENTS.map((experiment) => experiment.name).join(', ');
  throw new RangeError(`no experiment is named ${JSON.stringify(name)}; there are ${names}`);
}

export interface ExperimentResult {
  schemaVersion: 1;
  experiment: string;
  question: string;
  operation: string;
  seed: number;
  secondsAllowed: number;
  secondsTaken: number;
  environment: Environment;
  /** Of the processors, used by other programs meanwhile. */
  othersShare: number | undefined;
  rounds: number;
  /** How long a run was meant to take. */
  sampleMs: number;
  /** What the others are compared with. */
  baseline: string;
  /** `against` is the variant that it is compared with; null for one that others are compared with. */
  variants: Array<{ name: string; about: string; against: string | null }>;
  shows: readonly Quantity[];
  rows: ExperimentRow[];
  published: { source: string; titles: readonly string[] } | null;
  /** Locks whose statistics are shown, and what was published of them. */
  lockNames: readonly string[];
  publishedLocks: ReadonlyArray<{ title: string; locks: readonly PerfLockRow[] }>;
  /** Sentences made from the intervals. */
  verdict: string[];
  expectations: Verdict[];
  /** Whether every run was sound. */
  sound: boolean;
}

const PROBE_MS = 800;
const PROBE_SHARE_MS = 15;

/** Runs an experiment. Rejects on bad options and unreadable traces; an unsound run is in the result. */
export async function runExperiment(
  experiment: Experiment,
  options: ExperimentOptions = {},
): Promise<ExperimentResult> {
  const start = performance.now();
  const progress = options.progress ?? noProgress;
  const plan = await planExperiment(experiment, options);
  progress.step('looking at the machine', 0);
  const probeMs = plan.quick ? 0 : Math.min(PROBE_MS, plan.seconds * PROBE_SHARE_MS);
  const environment = await readEnvironment(probeMs, plan.threads);
  const closeAccount = openAccount();
  const { rounds, sampleMs } = await new ExperimentRun(plan, start, progress).run();
  const othersShare = closeAccount();
  progress.clear();
  const rows = plan.cases.flatMap((one) => rowsOf(plan, one));
  const { lines, expectations } = verdicts(experiment, rows, rounds);
  const { name, question, operation, variants, shows, published } = experiment;
  return {
    schemaVersion: 1,
    experiment: name,
    question,
    operation,
    seed: plan.seed,
    secondsAllowed: plan.seconds,
    secondsTaken: (performance.now() - start) / 1000,
    environment: { ...environment, warnings: [...environment.warnings, ...accountWarning(othersShare)] },
    othersShare,
    rounds,
    sampleMs,
    baseline: variants[0]!.name,
    variants: plan.variants
      .filter(({ role }) => role !== 'control')
      .map(({ name, about, role, base }) => ({
        name,
        about,
        against: role === 'baseline' ? null : plan.variants[base]!.name,
      })),
    shows,
    rows,
    published: published === undefined ? null : { source: published.source, titles: published.titles },
    lockNames: experiment.lockNames ?? [],
    publishedLocks: experiment.publishedLocks ?? [],
    verdict: lines,
    expectations,
    sound: rows.every(({ problems }) => problems.length === 0),
  };
}

/** The samples of a row that can be relied upon. */
const soundSamples = (row: Row): readonly number[] | undefined =>
  row.problems.length === 0 && row.nsPerOp.length > 0 ? row.nsPerOp : undefined;

/** Judges the rows of a case: each baseline, the same again, and the others. */
function rowsOf(
  { seed, experiment, variants }: ExperimentPlan,
  { rows, scale, program }: Case,
): ExperimentRow[] {
  const ops = program === undefined ? scale : (program.summary.allocs / program.cpus) * scale;
  return rows.map((row, i) => {
    const { role, base: at } = variants[i]!;
    if (role === 'baseline') return row.result(ops, null, 'baseline', null, seed);
    const base = soundSamples(rows[at]!);
    const again = soundSamples(rows[at + 1]!);
    const control = base === undefined || again === undefined ? null : roundRatio(again, base, seed);
    if (role === 'control') return row.result(ops, control, 'control', null, seed);
    const { ratio, outcome } = judge(soundSamples(row), base, control, seed);
    const gains = experiment.published?.rows.find(
      ({ workload, variant }) => workload === row.name && variant === row.variant.name,
    );
    return row.result(ops, ratio, outcome, gains?.gains ?? null, seed);
  });
}
