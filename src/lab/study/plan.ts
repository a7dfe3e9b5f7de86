/** What a study is asked for, and the rows that come of it. */
import { existsSync } from 'node:fs';
import { basename } from 'node:path';
import { fileURLToPath } from 'node:url';
import { MAX_CACHES } from '../../cache/index.js';
import { LOCK_POLICIES, requireInteger } from '../../struct/index.js';
import type { Progress } from '../progress.js';
import { compileTrace, prefixedName, type TraceProgram } from '../trace/index.js';
import { STUDY_WORKLOADS, WORKLOADS, workloadNamed } from '../workloads/index.js';
import { Row } from './row.js';

export interface StudyOptions {
  /** How long the whole study may take. Default 40. */
  seconds?: number;
  /** Thread counts. Default 1, 2 and 4. */
  threads?: readonly number[];
  /** Which workloads, and whether the trace that ships (`replay-git`): those whose name matches. */
  workloads?: RegExp | undefined;
  /** Traces to replay besides the one that ships. */
  traces?: readonly string[];
  /** Seed of the order of runs, of the workloads' choices and of the bootstrap. Default 1. */
  seed?: number;
  progress?: Progress;
}

/**
 * The traces that ship with the package: git init, add, commit, log and gc; and the first hundred of 300 fork+exec of
 * /bin/true from two shells at once.
 */
export const shippedTrace = (name: 'git' | 'exec'): string =>
  fileURLToPath(import.meta.resolve(`#traces/${name}.ftrace.txt.gz`));

export const SHIPPED_TRACE = shippedTrace('git');

const SECONDS_MIN = 2;
const SECONDS_MAX = 24 * 3600;
/** More than any machine this was made for. */
const THREADS_MAX = 64;

export interface StudyPlan {
  readonly seconds: number;
  readonly seed: number;
  /** Ascending, each once. */
  readonly threads: readonly number[];
  readonly rows: readonly Row[];
  /** One program per trace and thread count. */
  readonly programs: readonly TraceProgram[];
}

/** `dir/git.ftrace.txt.gz` is `replay-git`. */
export function traceName(file: string): string {
  return `replay-${
    basename(file)
      .replace(/\.gz$/, '')
      .replace(/(\.ftrace)?(\.txt)?$/, '') || 'trace'
  }`;
}

/** Several traces have caches of one name and different sizes: each trace gets its own. */
export function withOwnCaches(program: TraceProgram, index: number): TraceProgram {
  return {
    ...program,
    caches: program.caches.map((cache, i) => ({ ...cache, name: prefixedName(`t${index}:`, cache.name, i) })),
  };
}

/** An arena's own caches, and those of the workloads. */
const OTHER_CACHES = 64;

/** How many caches an arena needs for all traces, beside the others. Throws RangeError when it cannot have as many. */
export function cachesFor(programs: readonly TraceProgram[]): number {
  const { size } = new Set(programs.flatMap(({ caches }) => caches.map(({ name }) => name)));
  if (size + OTHER_CACHES <= MAX_CACHES) return size + OTHER_CACHES;
  throw new RangeError(
    `the traces have ${size} caches together; beside the others that it needs an arena has room for ${MAX_CACHES - OTHER_CACHES}`,
  );
}

export interface Trace {
  readonly name: string;
  readonly file: string;
  /** Given by name, and so not subject to a filter. */
  readonly given: boolean;
}

/** The trace that ships and those that are given, by the names of their rows. */
export function tracesFor(
  options: { traces?: readonly string[] | undefined },
  shippedFile: string = SHIPPED_TRACE,
): Trace[] {
  const shipped = existsSync(shippedFile) ? [{ file: shippedFile, given: false }] : [];
  const names = new Set<string>();
  return [...shipped, ...(options.traces ?? []).map((file) => ({ file, given: true }))].map(
    ({ file, given }) => {
      let name = traceName(file);
      for (let n = 2; names.has(name); n++) name = `${traceName(file)}-${n}`;
      names.add(name);
      return { name, file, given };
    },
  );
}

/** Ascending, each once. Throws when one is out of range, or there is none. */
export function checkedThreads(threads: readonly number[]): number[] {
  if (threads.length === 0) throw new RangeError('threads is empty; it must be at least one thread count');
  for (const n of threads) requireInteger('threads', n, 1, THREADS_MAX);
  return [...new Set(threads)].sort((a, b) => a - b);
}

/** Rows in the order of the report. Rejects when nothing matches, or a trace cannot be read. */
export async function planStudy(options: StudyOptions): Promise<StudyPlan> {
  const seconds = options.seconds ?? 40;
  if (!(seconds >= SECONDS_MIN && seconds <= SECONDS_MAX)) {
    throw new RangeError(`seconds is ${seconds}; it must be a number from ${SECONDS_MIN} to ${SECONDS_MAX}`);
  }
  const seed = requireInteger('seed', options.seed ?? 1, 0, 2 ** 31 - 1);
  const threads = checkedThreads(options.threads ?? [1, 2, 4]);
  const wanted = (name: string): boolean =>
    options.workloads === undefined ? true : options.workloads.test(name);
  const names = options.workloads === undefined ? STUDY_WORKLOADS : WORKLOADS.map(({ name }) => name);
  const traces = tracesFor(options);
  const rows: Row[] = [];
  for (const name of names.filter(wanted)) {
    const { threadsMultiple = 1 } = workloadNamed(name);
    for (const n of threads) {
      if (n % threadsMultiple !== 0) continue;
      for (const policy of LOCK_POLICIES) rows.push(new Row(name, n, policy));
    }
  }
  const programs: TraceProgram[] = [];
  for (const [index, { name, file, given }] of traces.entries()) {
    if (!given && !wanted(name)) continue;
    for (const n of threads) {
      const program = withOwnCaches(await compileTrace(file, { cpus: n }), index);
      programs.push(program);
      for (const policy of LOCK_POLICIES) rows.push(new Row(name, n, policy, program));
    }
  }
  if (rows.length === 0) {
    const fit = WORKLOADS.filter(({ threadsMultiple = 1 }) => threads.some((n) => n % threadsMultiple === 0));
    const known = [...fit, ...traces].map(({ name }) => name).join(', ');
    const count = `${threads} ${threads.length === 1 && threads[0] === 1 ? 'thread' : 'threads'}`;
    throw new RangeError(
      `workloads is ${options.workloads}; it matches none of ${known}, which can run on ${count}`,
    );
  }
  return { seconds, seed, threads, rows, programs };
}
