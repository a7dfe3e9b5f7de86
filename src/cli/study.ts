/** `granary study`: what the locks of the allocator cost, on this machine. */
import { appendFileSync, writeFileSync } from 'node:fs';
import { Command } from 'commander';
import { progressLine } from '../lab/progress.js';
import { studyReport } from '../lab/study/report.js';
import { runStudy } from '../lab/study.js';
import { EXIT, integer, integers, number, pattern } from './options.js';

interface Options {
  seconds: number;
  threads: number[];
  workloads?: RegExp;
  trace?: string[];
  seed: number;
  json?: boolean;
  out?: string;
}

const HELP = `
Every run is followed by a validate of the whole arena; a row with an unsound run is marked VOID.

Examples:
  granary study                              all of it, in 40 seconds
  granary study --seconds 10 --threads 1,2   a first look
  granary study --workloads 'larson|mixed'   only these
  granary study --trace my.ftrace.txt.gz     with a trace of your own (see granary replay --help)
  granary study --json | jq .facts

Exit status: 0 all sound; 1 a row is void or an arena was left unsound; 2 wrong options, or a trace that
cannot be read.`;

async function study(options: Options): Promise<void> {
  const { seconds, threads, workloads, trace, seed, json, out } = options;
  if (out !== undefined) appendFileSync(out, ''); // a place that cannot be written to is better known before
  const progress = progressLine(process.stderr, seconds * 1000);
  const result = await runStudy({ seconds, threads, workloads, traces: trace ?? [], seed, progress });
  const text = `${JSON.stringify(result, null, json ? undefined : 1)}\n`;
  if (out !== undefined) writeFileSync(out, text);
  process.stdout.write(json ? text : studyReport(result));
  if (out !== undefined && !json) process.stdout.write(`\nAll figures, raw samples included: ${out}\n`);
  process.exitCode = result.sound ? EXIT.ok : EXIT.unsound;
}

export function studyCommand(): Command {
  return new Command('study')
    .description('Measures workloads by threads by lock policies, and who waits for which lock.')
    .option('--seconds <n>', 'how long it may take', number(2, 86_400), 40)
    .option('--threads <list>', 'thread counts', integers(1, 64), [1, 2, 4])
    .option('--workloads <regex>', 'only workloads whose name matches, and all of those', pattern)
    .option('--trace <files...>', 'traces to replay besides the one that ships')
    .option('--seed <n>', 'seed of the order of runs and of the random choices', integer(0, 2 ** 31 - 1), 1)
    .option('--json', 'print one JSON object instead of tables')
    .option('--out <file>', 'write that JSON to a file')
    .addHelpText('after', HELP)
    .action(study);
}
