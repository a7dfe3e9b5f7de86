/** What an experiment is: a question, ways to do the same work, and what somebody expects to come of it. */

import type { PerfLockRow } from '../../observe/index.js';
import { GranaryError } from '../../struct/index.js';
import type { StageOptions } from '../stage.js';
import type { TraceProgram } from '../trace/index.js';

/** One way to do the work, on an arena of its own. */
export interface Variant {
  readonly name: string;
  readonly about: string;
  readonly stage: Omit<StageOptions, 'threads' | 'bytes' | 'maxCaches' | 'lockStat'>;
  /** The variant that it is compared with, where that is not the first. */
  readonly against?: string;
  /** Threads that share a CPU slot, under 'op'. Default 1; the arena then has a slot for each. */
  readonly threadsPerCpu?: number;
  /** The workload that does a case's work this way; the case's own name unless given. */
  readonly workload?: (name: string) => string;
  /** The trace that is replayed this way; as it was recorded unless given. Its summary stays that of the recording. */
  readonly program?: (program: TraceProgram) => TraceProgram;
}

/** A workload on some threads: what all variants do in turn. */
export interface CaseName {
  readonly workload: string;
  readonly threads: number;
}

/** Something that a source says, and that the figures may contradict. */
export interface Expectation {
  /** Who says it. */
  readonly source: string;
  readonly text: string;
  readonly variant: string;
  /** Of the variant, against its baseline; 'same' is a ratio within a tenth of 1, and no difference shown. */
  readonly outcome: 'better' | 'worse' | 'same';
  /** Where it is to hold; everywhere unless given. */
  readonly where?: (name: CaseName) => boolean;
}

/** Time saved against the baseline as a source printed it, as shares. */
interface Published {
  readonly workload: string;
  readonly variant: string;
  readonly gains: readonly number[];
}

export type Quantity = 'costs' | 'paths' | 'hits' | 'bypasses' | 'memory' | 'locks' | 'perf-lock';

export interface Experiment {
  readonly name: string;
  readonly question: string;
  /** What is timed, for the line above the table. */
  readonly operation: string;
  /** How long it takes unless told otherwise. */
  readonly seconds: number;
  readonly threads: readonly number[];
  /** The first is what the others are compared with, but those that name another. */
  readonly variants: readonly Variant[];
  readonly workloads: readonly string[];
  /** Whether the trace that ships is replayed, too. */
  readonly replay: boolean;
  /** Size of each variant's arena; unless given, what its threads and traces need. */
  readonly bytes?: number;
  /** Which of those that ship; 'git' unless given. */
  readonly trace?: 'git' | 'exec';
  /** Locks whose statistics are shown in the columns of `perf lock report`, where that is shown. */
  readonly lockNames?: readonly string[];
  /** The same as a source printed them. */
  readonly publishedLocks?: ReadonlyArray<{ readonly title: string; readonly locks: readonly PerfLockRow[] }>;
  /** What is shown besides times. */
  readonly shows: readonly Quantity[];
  readonly expectations: readonly Expectation[];
  readonly published?: {
    readonly source: string;
    readonly titles: readonly string[];
    readonly rows: readonly Published[];
  };
  /** What this build lacks for it; undefined when nothing. */
  readonly missing?: () => string | undefined;
}

/** The experiment needs something that this build has not. */
export class NotInThisBuildError extends GranaryError {
  override name = 'NotInThisBuildError';
}

export const AN_OPERATION = 'an allocation and its free';
