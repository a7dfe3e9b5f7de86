/** One run of a workload or of a trace, as one figure that can be compared with others. */
import type { HeapKind } from './heaps.js';
import type { Histogram } from './histogram.js';
import type { CacheHits, PathCounts } from './paths.js';
import type { ReplayFigures, Stage } from './stage.js';
import { recordedEvents, type TraceProgram } from './trace/index.js';

/** What one run tells, whatever it ran. */
export interface Sample {
  /** Time by the operations of one thread. */
  readonly nsPerOp: number;
  readonly opsPerSecond: number;
  readonly wallMs: number;
  readonly paths: PathCounts;
  readonly hits: ReadonlyMap<string, CacheHits>;
  readonly problems: readonly string[];
  readonly histogram: Histogram | undefined;
}

interface SampleWork {
  readonly workload: string;
  readonly threads: number;
  /** To be replayed instead, compiled for as many CPUs as there are threads. */
  readonly program: TraceProgram | undefined;
}

/** Runs it once; `scale` is operations of one thread, for a replay passes over the trace. */
export async function takeSample(
  stage: Stage,
  { workload, threads, program }: SampleWork,
  scale: number,
  heap: HeapKind,
  seed: number,
): Promise<Sample> {
  if (program === undefined) {
    const figures = await stage.runWorkload(workload, scale, { threads, heap, seed });
    return { ...figures, opsPerSecond: (figures.totalOps * 1e3) / figures.wallMs };
  }
  // The first pass finds this CPU's sheaves empty and is not counted.
  return sampleOf(await stage.runReplay(program, scale + 1, { sampled: heap === 'sampled' }));
}

/** A replay's operations are pairs of a recorded allocation and free, as those of the other workloads. */
function sampleOf(figures: ReplayFigures): Sample {
  const { threads, paths, hits, problems, histogram, passes } = figures;
  const counted = passes.slice(1);
  const wallMs = counted.reduce((sum, pass) => sum + pass.elapsedMs, 0);
  const pairs = counted.reduce((sum, pass) => sum + recordedEvents(pass) / 2, 0);
  return {
    nsPerOp: (wallMs * 1e6 * threads) / pairs,
    opsPerSecond: (pairs * 1e3) / wallMs,
    wallMs,
    paths,
    hits,
    problems,
    histogram,
  };
}
