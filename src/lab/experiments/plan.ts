/** What an experiment is asked for, and the cases that come of it. */
import { requireInteger } from '../../struct/index.js';
import type { Progress } from '../progress.js';
import { checkedThreads, shippedTrace, tracesFor, withOwnCaches } from '../study/plan.js';
import { compileTrace, type TraceProgram } from '../trace/index.js';
import { workloadNamed } from '../workloads/index.js';
import { type Experiment, NotInThisBuildError, type Variant } from './experiment.js';
import { type Case, Row } from './row.js';

export interface ExperimentOptions {
  /** About how long it may take; by default what the experiment says. */
  seconds?: number | undefined;
  /** Exactly so many rounds, instead of as many as there is time for. */
  rounds?: number | undefined;
  threads?: readonly number[] | undefined;
  /** Only the cases whose workload's name matches. */
  workloads?: RegExp | undefined;
  /** Traces to replay besides the one that ships. */
  traces?: readonly string[] | undefined;
  /** Seed of the order of runs, of the workloads' choices and of the bootstrap. Default 1. */
  seed?: number;
  /** As short as it can be: shows that it works. */
  quick?: boolean | undefined;
  progress?: Progress;
}

const QUICK_SECONDS = 2;
const SECONDS_MAX = 24 * 3600;
const ROUNDS_MAX = 10_000;

/** A variant with its place in the experiment. */
interface PlannedVariant extends Variant {
  readonly role: 'baseline' | 'control' | 'variant';
  /** Which of the planned variants it is compared with. */
  readonly base: number;
}

/** All variants, and behind each baseline the same a second time. */
function planVariants({ variants }: Experiment): PlannedVariant[] {
  const baselines = new Set([variants[0]!.name, ...variants.flatMap(({ against = [] }) => against)]);
  const planned: PlannedVariant[] = [];
  const at = (name: string): number => planned.findIndex((one) => one.name === name);
  for (const variant of variants) {
    const base = planned.length;
    if (!baselines.has(variant.name)) {
      planned.push({ ...variant, role: 'variant', base: at(variant.against ?? variants[0]!.name) });
      continue;
    }
    planned.push({ ...variant, role: 'baseline', base });
    planned.push({ ...variant, name: `${variant.name} again`, role: 'control', base });
  }
  return planned;
}

export interface ExperimentPlan {
  readonly experiment: Experiment;
  readonly seconds: number;
  /** undefined: as many as there is time for. */
  readonly rounds: number | undefined;
  readonly seed: number;
  readonly quick: boolean;
  readonly threads: readonly number[];
  /** The baseline, the baseline again, and the others. */
  readonly variants: readonly PlannedVariant[];
  readonly cases: readonly Case[];
  /** One program per trace and thread count. */
  readonly programs: readonly TraceProgram[];
}

function secondsFor({ seconds, quick }: ExperimentOptions, experiment: Experiment): number {
  const wanted = seconds ?? (quick ? QUICK_SECONDS : experiment.seconds);
  if (wanted > 0 && wanted <= SECONDS_MAX) return wanted;
  throw new RangeError(`seconds is ${wanted}; it must be a number above 0 and up to ${SECONDS_MAX}`);
}

/** Cases in the order of the report. Rejects when nothing matches, or a trace cannot be read. */
export async function planExperiment(
  experiment: Experiment,
  options: ExperimentOptions,
): Promise<ExperimentPlan> {
  const seconds = secondsFor(options, experiment);
  const seed = requireInteger('seed', options.seed ?? 1, 0, 2 ** 31 - 1);
  const rounds = options.rounds;
  if (rounds !== undefined) requireInteger('rounds', rounds, 1, ROUNDS_MAX);
  const quick = options.quick ?? false;
  const threads = checkedThreads(options.threads ?? experiment.threads.slice(0, quick ? 1 : undefined));
  if (threads.length > 1 && experiment.variants.some(({ threadsPerCpu = 1 }) => threadsPerCpu > 1)) {
    throw new RangeError(
      `threads is ${threads}; experiment ${experiment.name} deals them to CPUs, and takes one thread count at a time`,
    );
  }
  const missing = experiment.missing?.();
  if (missing !== undefined) {
    throw new NotInThisBuildError(`experiment ${experiment.name}: not in this build: ${missing}`);
  }
  const variants = planVariants(experiment);
  const wanted = (name: string): boolean => options.workloads?.test(name) ?? true;
  const cases: Case[] = [];
  const add = (name: string, n: number, program?: TraceProgram): void => {
    const rows = variants.map((variant) => new Row(name, n, variant, program));
    cases.push({ workload: name, threads: n, program, rows, scale: 1 });
  };
  for (const name of experiment.workloads.filter(wanted)) {
    const { threadsMultiple = 1 } = workloadNamed(variants[0]!.workload?.(name) ?? name);
    for (const n of threads) if (n % threadsMultiple === 0) add(name, n);
  }
  const programs: TraceProgram[] = [];
  for (const [index, { name, file, given }] of tracesFor(
    options,
    shippedTrace(experiment.trace ?? 'git'),
  ).entries()) {
    if (!given && !(experiment.replay && wanted(name))) continue;
    for (const n of threads) {
      const program = withOwnCaches(await compileTrace(file, { cpus: n }), index);
      programs.push(program);
      add(name, n, program);
    }
  }
  if (cases.length === 0) {
    const known = [
      ...experiment.workloads,
      ...(experiment.replay ? [`replay-${experiment.trace ?? 'git'}`] : []),
    ].join(', ');
    throw new RangeError(
      `workloads is ${options.workloads}; it matches none of ${known} on ${threads} threads`,
    );
  }
  return { experiment, seconds, rounds, seed, quick, threads, variants, cases, programs };
}
