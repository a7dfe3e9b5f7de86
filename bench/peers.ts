/**
 * How this allocator compares with what C and JavaScript programs use: one run, everybody in turns, ratios
 * formed round by round. `npm run bench:peers -- --help` lists the options.
 */
import { writeFileSync } from 'node:fs';
import { availableParallelism } from 'node:os';
import { type Assembly, assemble } from './peers/assemble.js';
import {
  BARS,
  type Bar,
  barsLine,
  evaluateBars,
  isCalmBar,
  type Verdict,
  verdictLine,
} from './peers/bars.js';
import { Gate } from './peers/calm.js';
import { Figures } from './peers/figures.js';
import * as machines from './peers/machine.js';
import {
  FULL_MOMENTS,
  MomentMeter,
  type Moments,
  QUICK_MOMENTS,
  timeByTime,
  twoAgainstOne,
} from './peers/moments.js';
import { type Options, parseOptions, USAGE } from './peers/options.js';
import type { Peer } from './peers/peer.js';
import { allRows, type Row, rowKey, rowLabel, type Variant, WORKLOADS } from './peers/plan.js';
import { progressLine } from './peers/progress.js';
import { reportJson, reportText } from './peers/report.js';
import { FULL, QUICK, Runner, type RunResult } from './peers/runner.js';

const AT_REST_MS = 1000;

interface Outcome {
  readonly result: RunResult;
  /** Of the bars that are judged by calm ones. */
  readonly moments: ReadonlyMap<Bar, Moments>;
  readonly machine: machines.MachineState;
  /** What the variants left in a bad state. */
  readonly unsound: readonly string[];
}

async function measure(assembly: Assembly, rows: readonly Row[], options: Options): Promise<Outcome> {
  const { peers, probe } = assembly;
  const pace = { ...(options.quick ? QUICK : FULL), rounds: options.rounds };
  const environment = machines.readEnvironment();
  const busyBefore = await machines.busyShareAtRest(options.quick ? AT_REST_MS / 4 : AT_REST_MS);
  const progress = progressLine(process.stderr);
  const closeAccount = machines.openAccount();
  const gate = probe && availableParallelism() > 1 ? await Gate.open(probe) : undefined;
  const meters = gate ? metersFor(peers, rows, gate, options) : new Map<Bar, MomentMeter>();
  const afterRound = async (): Promise<void> => {
    for (const meter of meters.values()) await meter.spell();
  };
  const result = await new Runner(peers, rows, pace, options.seed, progress, { gate, afterRound }).run();
  progress.clear();
  const occupation = closeAccount(peers);
  const unsound = await assembly.close();
  const machine = { environment, busyBefore, calm: result.calm, occupation };
  const moments = new Map<Bar, Moments>();
  for (const [bar, meter] of meters) {
    const found = meter.result();
    if (found) moments.set(bar, found);
    else result.failures.push(`${bar.ours}, calm moments of ${rowLabel(bar.row)}: ${meter.failure}`);
  }
  return { result, moments, machine, unsound };
}

/** One for each bar that is judged by calm moments, if everybody it takes is here. */
function metersFor(
  peers: readonly Peer[],
  rows: readonly Row[],
  gate: Gate,
  { quick }: Options,
): Map<Bar, MomentMeter> {
  const pace = quick ? QUICK_MOMENTS : FULL_MOMENTS;
  const peerOf = (variant: Variant): Peer | undefined => peers.find((peer) => peer.variant === variant);
  const meters = new Map<Bar, MomentMeter>();
  for (const bar of BARS) {
    const ours = peerOf(bar.ours);
    if (!isCalmBar(bar) || !ours || !rows.some((row) => rowKey(row) === rowKey(bar.row))) continue;
    const theirs = 'against' in bar ? peerOf(bar.against) : undefined;
    if ('against' in bar && !theirs) continue;
    const { row } = bar;
    const comparison = theirs
      ? timeByTime(ours, theirs, row, pace.togetherMs)
      : twoAgainstOne(ours, row, pace.apartMs);
    meters.set(bar, new MomentMeter(gate, comparison, pace));
  }
  return meters;
}

/** Measures with everybody who can take part, and leaves nothing behind, not even when interrupted. */
async function gather(rows: readonly Row[], options: Options): Promise<Outcome & { assembly: Assembly }> {
  const assembly = await assemble(rows);
  const interrupted = (): void => {
    assembly.removeFiles();
    process.exit(130);
  };
  process.once('SIGINT', interrupted).once('SIGTERM', interrupted);
  try {
    return { ...(await measure(assembly, rows, options)), assembly };
  } finally {
    assembly.removeFiles();
    process.off('SIGINT', interrupted).off('SIGTERM', interrupted);
  }
}

function rowsFor(options: Options): { rows: Row[]; notes: string[] } {
  const rows = allRows(options.filter);
  if (rows.length === 0)
    throw new RangeError(`--filter ${options.filter} matches none of ${WORKLOADS.join(', ')}`);
  if (availableParallelism() > 1) return { rows, notes: [] };
  const notes = ['rows with two threads: this machine has one processor'];
  return { rows: rows.filter((row) => row.threads === 1), notes };
}

function print(options: Options, lines: readonly string[]): void {
  (options.json === '-' ? process.stderr : process.stdout).write(`${lines.join('\n')}\n`);
}

async function main(options: Options): Promise<number> {
  const { rows, notes } = rowsFor(options);
  const { result, moments, machine, unsound, assembly } = await gather(rows, options);
  const figures = new Figures(result.series);
  const verdicts: Verdict[] = evaluateBars(figures, moments);
  const absent = [...assembly.absent, ...notes];
  print(options, [
    ...machines.describe(machine),
    `peers     ${assembly.libraries.join(', ') || 'none native'}`,
    ...absent.map((line) => `skipped   ${line}`),
    ...result.failures.map((line) => `FAILED    ${line}`),
    ...unsound.map((line) => `UNSOUND   ${line}`),
    `rounds    ${options.rounds}, seed ${options.seed}${options.quick ? ', quick: not figures to quote' : ''}`,
    '',
    reportText(figures, rows),
    '',
    ...verdicts.map(verdictLine),
    barsLine(verdicts),
  ]);
  if (options.json !== undefined) {
    const { rounds, seed, quick } = options;
    const all = [...absent, ...result.failures, ...unsound];
    const { libraries } = assembly;
    const json = reportJson({
      ...{ figures, moments, rows, machine, libraries, seed, rounds, quick, verdicts },
      notes: all,
    });
    if (options.json === '-') process.stdout.write(json);
    else writeFileSync(options.json, json);
  }
  // A comparison without this allocator is none, and an unsound arena is a bug: asked to check or not.
  if ([...absent, ...result.failures, ...unsound].some((line) => line.startsWith('granary'))) return 1;
  return options.check && verdicts.some(({ state }) => state === 'MISS') ? 1 : 0;
}

try {
  const options = parseOptions(process.argv.slice(2));
  if (options.help) process.stdout.write(USAGE);
  else process.exitCode = await main(options);
} catch (e) {
  const problem = e instanceof Error ? e.message : String(e);
  process.stderr.write(`bench:peers: ${problem.replaceAll('\n', ' ')}\n`);
  process.exitCode = 2;
}
