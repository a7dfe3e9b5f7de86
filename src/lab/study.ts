/** The study: workloads by threads by lock policies, as one result that can be printed or kept. */
import { accountWarning, type Environment, openAccount, readEnvironment } from './environment.js';
import { noProgress } from './progress.js';
import { facts } from './study/facts.js';
import { planStudy, type StudyOptions } from './study/plan.js';
import type { RowResult } from './study/row.js';
import { StudyRun } from './study/run.js';

export type { StudyOptions } from './study/plan.js';
export type { LatencyFigures, RowResult } from './study/row.js';

export interface StudyResult {
  schemaVersion: 1;
  seed: number;
  secondsAllowed: number;
  secondsTaken: number;
  environment: Environment;
  /** Of the processors, used by other programs during the study. */
  othersShare: number | undefined;
  rounds: number;
  /** How long a timed run was meant to take. */
  sampleMs: number;
  rows: RowResult[];
  /** What was wrong besides the rows'. */
  problems: string[];
  /** Whether every run was sound. */
  sound: boolean;
  /** What the figures say, in words. */
  facts: string[];
}

const PROBE_MS = 800;

/** Runs a study within its time. Rejects on bad options and unreadable traces; an unsound run is in the result. */
export async function runStudy(options: StudyOptions = {}): Promise<StudyResult> {
  const start = performance.now();
  const progress = options.progress ?? noProgress;
  const plan = await planStudy(options);
  const run = new StudyRun(plan, progress, start);
  progress.step('looking at the machine', 0);
  const environment = await readEnvironment(Math.min(PROBE_MS, plan.seconds * 20), plan.threads);
  const closeAccount = openAccount();
  const { rounds, sampleMs } = await run.run();
  const othersShare = closeAccount();
  const warnings = [...environment.warnings, ...accountWarning(othersShare)];
  const rows = plan.rows.map((row) => row.result(plan.seed));
  progress.clear();
  return {
    schemaVersion: 1,
    seed: plan.seed,
    secondsAllowed: plan.seconds,
    secondsTaken: (performance.now() - start) / 1000,
    environment: { ...environment, warnings },
    othersShare,
    rounds,
    sampleMs,
    rows,
    problems: run.problems,
    sound: run.problems.length === 0 && rows.every(({ problems }) => problems.length === 0),
    facts: facts(rows, othersShare),
  };
}
