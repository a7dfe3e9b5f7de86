/**
 * How this allocator compares with what C and JavaScript programs use: one run, everybody in turns, ratios
 * formed round by round. `npm run bench:peers -- --help` lists the options.
 */
import { writeFileSync } from 'node:fs';
import { availableParallelism } from 'node:os';
import { type Assembly, assemble } from './peers/assemble.js';
import { barsLine, evaluateBars, SCALING_BAR, type Verdict, verdictLine } from './peers/bars.js';
import { Gate } from './peers/calm.js';
import { Figures } from './peers/figures.js';
import * as machines from './peers/machine.js';
import { type Options, parseOptions, USAGE } from './peers/options.js';
import type { Peer } from './peers/peer.js';
import { allRows, type Row, rowKey, WORKLOADS } from './peers/plan.js';
import { progressLine } from './peers/progress.js';
import { reportJson, reportText } from './peers/report.js';
import { FULL, QUICK, Runner, type RunResult } from './peers/runner.js';
import { FULL_SCALING, QUICK_SCALING, type Scaling, ScalingMeter } from './peers/scaling.js';

const AT_REST_MS = 1000;

interface Outcome {
  readonly result: RunResult;
  readonly scaling: Scaling | undefined;
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
  const meter = gate && meterFor(peers, rows, gate, options);
  const afterRound = meter && (() => meter.spell());
  const result = await new Runner(peers, rows, pace, options.seed, progress, { gate, afterRound }).run();
  progress.clear();
  const occupation = closeAccount(peers);
  const unsound = await assembly.close();
  const machine = { environment, busyBefore, calm: result.calm, occupation };
  if (meter?.failure) result.failures.push(`${SCALING_BAR.ours}, two threads against one: ${meter.failure}`);
  return { result, scaling: meter?.result(), machine, unsound };
}

/** Two threads against one, when both are measured. */
function meterFor(
  peers: readonly Peer[],
  rows: readonly Row[],
  gate: Gate,
  { quick }: Options,
): ScalingMeter | undefined {
  const { ours, row } = SCALING_BAR;
  const peer = peers.find(({ variant }) => variant === ours);
  if (!peer || !rows.some((own) => rowKey(own) === rowKey(row))) return undefined;
  return new ScalingMeter(peer, gate, row, quick ? QUICK_SCALING : FULL_SCALING);
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
  const { result, scaling, machine, unsound, assembly } = await gather(rows, options);
  const figures = new Figures(result.series);
  const verdicts: Verdict[] = evaluateBars(figures, scaling);
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
      ...{ figures, scaling, rows, machine, libraries, seed, rounds, quick, verdicts },
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
