/** `granary experiment`: one question, answered with intervals. */
import { Command } from 'commander';
import { costMarkdown } from '../lab/experiments/costs.js';
import { EXPERIMENTS, experimentNamed, runExperiment } from '../lab/experiments/index.js';
import { experimentReport } from '../lab/experiments/report.js';
import { progressLine } from '../lab/progress.js';
import { table } from '../lab/stats.js';
import { EXIT, integer, integers, number, pattern } from './options.js';

interface Options {
  list?: boolean;
  seconds?: number;
  rounds?: number;
  threads?: number[];
  workloads?: RegExp;
  trace?: string[];
  seed: number;
  quick?: boolean;
  markdown?: boolean;
  json?: boolean;
}

const HELP = `
Variants of one thing do the same work in turns, round by round, each on an arena and threads of its own. The
baseline runs twice: a variant is called better or worse only if its interval lies outside of what the two
differ by, in at least six rounds, for which it takes longer than asked for if need be. Every run is followed by
a validate of the arena; one finding makes a variant's numbers VOID.

Examples:
  granary experiment --list                     the questions
  granary experiment sheaf-lock                 one of them
  granary experiment layers --threads 1,2 --trace my.ftrace.txt.gz
  granary experiment capacity --workloads larson --seconds 20
  granary experiment microbench --quick         shows that it works; too short to rely on
  granary experiment barn --json | jq .verdict

Exit status: 0 all sound, whatever the answer; 1 an arena was unsound; 2 wrong options, a trace that cannot be
read, or an experiment that needs what this build has not.`;

function list(): string {
  const rows = EXPERIMENTS.map(({ name, seconds, question }) => [name, `${seconds} s`, question]);
  return `${table(rows, [{ title: 'name', align: 'left' }, { title: 'takes' }, { title: 'question', align: 'left' }])}\n`;
}

async function experiment(name: string | undefined, options: Options): Promise<void> {
  const { list: listed, json, markdown, trace, ...rest } = options;
  if (listed) {
    const all = EXPERIMENTS.map(({ name, seconds, question }) => ({ name, seconds, question }));
    process.stdout.write(json ? `${JSON.stringify(all)}\n` : list());
    return;
  }
  const names = EXPERIMENTS.map((known) => known.name).join(', ');
  if (name === undefined) throw new RangeError(`which experiment? There are ${names}; see --list`);
  const found = experimentNamed(name);
  const seconds = options.seconds ?? (options.quick ? 2 : found.seconds);
  const progress = progressLine(process.stderr, seconds * 1000);
  const result = await runExperiment(found, { ...rest, traces: trace, progress });
  const text = markdown ? `${costMarkdown(result)}\n` : experimentReport(result);
  process.stdout.write(json ? `${JSON.stringify(result)}\n` : text);
  process.exitCode = result.sound ? EXIT.ok : EXIT.unsound;
}

export function experimentCommand(): Command {
  return new Command('experiment')
    .description('Asks one question of the allocator and answers it with intervals.')
    .argument('[name]', 'which one; see --list')
    .option('--list', 'print the experiments and their questions')
    .option('--seconds <n>', 'about how long it may take (default: by experiment)', number(0.1, 86_400))
    .option('--rounds <n>', 'exactly so many rounds (default: what there is time for)', integer(1, 10_000))
    .option('--threads <list>', 'thread counts (default: by experiment)', integers(1, 64))
    .option('--workloads <regex>', 'only cases whose workload matches', pattern)
    .option('--trace <files...>', 'traces to replay, too')
    .option('--seed <n>', 'seed of the order of runs and of the random choices', integer(0, 2 ** 31 - 1), 1)
    .option('--quick', 'in a few seconds, on the fewest threads')
    .option('--markdown', 'print what each variant costs as a table for a page of docs')
    .option('--json', 'print one JSON object instead of text')
    .addHelpText('after', HELP)
    .action(experiment);
}
