/** `npm run bench`: the allocator's operations, timed by tinybench. `npm run bench -- --help` lists the options. */
import { parseArgs } from 'node:util';
import { Bench, type Task } from 'tinybench';
import { describeEnvironment, readEnvironment } from '../src/lab/environment.js';
import { type Column, formatCount, table } from '../src/lab/stats.js';
import { addCase, CASES, type Case, caseName, Stages } from './suites.js';

const USAGE = `usage: npm run bench -- [options]

  --suite REGEX   only cases whose name matches, e.g. pair, batch, bulk, producer-consumer, kmalloc, check, ', op'
  --quick         short rounds and few: to see that it works, not to quote
  --json          print one JSON object with all samples instead of the table
  -h, --help      this text

Exit status: 0 measured; 1 a round was unsound; 2 wrong options.
`;

interface Options {
  readonly cases: readonly Case[];
  readonly quick: boolean;
  readonly json: boolean;
}

function parse(args: string[]): Options | undefined {
  const { values } = parseArgs({
    args,
    options: {
      suite: { type: 'string', default: '' },
      quick: { type: 'boolean', default: false },
      json: { type: 'boolean', default: false },
      help: { type: 'boolean', short: 'h', default: false },
    },
  });
  if (values.help) return undefined;
  const wanted = suitePattern(values.suite);
  const cases = CASES.filter((one) => wanted.test(caseName(one)));
  if (cases.length === 0) throw new RangeError(`--suite ${values.suite} matches no case`);
  return { cases, quick: values.quick, json: values.json };
}

function suitePattern(text: string): RegExp {
  try {
    return new RegExp(text);
  } catch {
    throw new RangeError(`--suite takes a regular expression, got "${text}"`);
  }
}

const PACE = { roundMs: 10, time: 400, iterations: 20 };
const QUICK = { roundMs: 2, time: 10, iterations: 5 };

const COLUMNS: readonly Column[] = [
  { title: 'case', align: 'left' },
  ...['ns/op p50', 'mad', 'p99', 'rme %', 'ops/s per thread', 'rounds'].map((title) => ({ title })),
];

function cells(task: Task): Array<string | number> {
  const { result } = task;
  if (result.state !== 'completed') {
    const why = result.state === 'errored' ? result.error.message : result.state;
    return [task.name, `FAILED: ${why}`, '', '', '', '', ''];
  }
  const { p50, mad, p99, rme, samplesCount } = result.latency;
  const ns = (ms: number): string => (ms * 1e6).toFixed(1);
  return [task.name, ns(p50), ns(mad), ns(p99), rme.toFixed(1), formatCount(1e3 / p50), samplesCount];
}

async function main({ cases, quick, json }: Options): Promise<number> {
  const { roundMs, time, iterations } = quick ? QUICK : PACE;
  const bench = new Bench({
    name: 'granary',
    time,
    iterations,
    warmupTime: time / 4,
    warmupIterations: Math.ceil(iterations / 4),
    retainSamples: true,
  });
  const environment = await readEnvironment(quick ? 0 : 300, [
    ...new Set(cases.map(({ threads }) => threads)),
  ]);
  const stages = new Stages();
  for (const one of cases) await addCase(bench, stages, one, roundMs);
  const tasks = await bench.run();
  const problems = await stages.close();
  const failed = problems.length > 0 || tasks.some(({ result }) => result.state !== 'completed');
  if (json) {
    const results = tasks.map(({ name, result }) => ({ name, ...result }));
    process.stdout.write(`${JSON.stringify({ schemaVersion: 1, environment, problems, results })}\n`);
  } else {
    const lines = [
      ...describeEnvironment(environment),
      `rounds    of about ${roundMs} ms; an operation is an allocation and its free; validate after each`,
      ...(quick ? ['WARNING   --quick: not figures to quote'] : []),
      '',
      table(tasks.map(cells), COLUMNS),
      ...problems.map((problem) => `UNSOUND   ${problem}`),
    ];
    process.stdout.write(`${lines.join('\n')}\n`);
  }
  return failed ? 1 : 0;
}

try {
  const options = parse(process.argv.slice(2));
  if (options === undefined) process.stdout.write(USAGE);
  else process.exitCode = await main(options);
} catch (error) {
  const problem = error instanceof Error ? error.message : String(error);
  process.stderr.write(`bench: ${problem.replaceAll('\n', ' ')}\n`);
  process.exitCode = 2;
}
