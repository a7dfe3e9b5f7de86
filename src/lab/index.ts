/**
 * The lab: workloads, studies and replays on an arena whose CPUs are worker threads of a pool.
 * @module
 */
export { describeEnvironment, type Environment, probeMachine, readEnvironment } from './environment.js';
export {
  EXPERIMENTS,
  type Experiment,
  type ExperimentOptions,
  type ExperimentResult,
  experimentNamed,
  runExperiment,
} from './experiments/index.js';
export { experimentReport } from './experiments/report.js';
export { HEAP_KINDS, type HeapKind, type ObjectHeap, type SizedHeap } from './heaps.js';
export { HISTOGRAM_WORDS, Histogram } from './histogram.js';
export { type Answer, Member, type PoolSetup, serve, type Task } from './member.js';
export { CpuPool, PoolError, type PoolOptions } from './pool.js';
export { type ReplayOptions, type ReplayReport, replayTrace } from './replay.js';
export { replayText } from './replayReport.js';
export { Stage, type StageOptions } from './stage.js';
export {
  bootstrapMedian,
  formatCount,
  formatNs,
  median,
  percentile,
  ratioOfMedians,
  rng,
  table,
} from './stats.js';
export { studyReport } from './study/report.js';
export { type RowResult, runStudy, type StudyOptions, type StudyResult } from './study.js';
export { compileTrace, compileTraceText, TraceError, type TraceProgram } from './trace/index.js';
export { WORKLOADS, type Workload } from './workloads/index.js';
