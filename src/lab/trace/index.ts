export {
  type CompileOptions,
  compileTrace,
  compileTraceText,
  prefixedName,
  TRACE_CACHES_MAX,
  TraceCompiler,
} from './compile.js';
export { ReplayTimeoutError, TraceError } from './error.js';
export { EventKind, type ParserOptions, type TraceEvent } from './event.js';
export {
  createSlotTable,
  FAILED,
  OP_ARG_SHIFT,
  OP_CROSS,
  OP_FREE,
  OP_KMALLOC,
  OP_PERCPU,
  OP_RCU,
  OP_WORDS,
  opCount,
  PERCPU_SIZE_MASK,
  type ProgramCache,
  type TraceProgram,
  type TraceSummary,
} from './program.js';
export { type EventHandler, type ReadCounts, readTrace, readTraceText } from './reader.js';
export {
  type LatencySink,
  type ReplayArena,
  type ReplayCache,
  type ReplayCounts,
  type ReplayOptions,
  replayCpu,
} from './replay.js';
export {
  createReplayCaches,
  type FinishCounts,
  finishReplay,
  type ReplaySummary,
  recordedEvents,
  replayedEvents,
  summarizeReplay,
} from './setup.js';
export { withoutPercpu } from './withoutPercpu.js';
