/** `granary info`: what an arena looks like from inside. */
import { Command, Option } from 'commander';
import { demoInfo, infoText } from '../lab/info.js';
import type { LockPolicy } from '../struct/index.js';
import { bytes, EXIT, integer, policies } from './options.js';

interface Options {
  bytes: number;
  cpus: number;
  threads?: number;
  nodes: number;
  policy: LockPolicy;
  locks?: boolean;
  json?: boolean;
}

const HELP = `
Prints slabinfo as /proc/slabinfo does, memory, free blocks by order, the counters of all caches, and for each cache how
often its sheaves were found locked by another thread. With --locks the load runs with full lock statistics, which makes
it slower: they are printed as /proc/lock_stat, perf lock report and perf lock contention print them.

Examples:
  granary info
  granary info --bytes 256m --cpus 4 --nodes 2
  granary info --policy op --cpus 2 --threads 8
  granary info --locks --policy op --cpus 2 --threads 8
  granary info --json | jq '.caches[].name'

Exit status: 0 the arena is sound; 1 it is not; 2 wrong options.`;

async function info({ json, policy, ...options }: Options): Promise<void> {
  const report = await demoInfo({ ...options, lockPolicy: policy });
  process.stdout.write(json ? `${JSON.stringify(report)}\n` : infoText(report));
  process.exitCode = report.problems.length === 0 ? EXIT.ok : EXIT.unsound;
}

export function infoCommand(): Command {
  return new Command('info')
    .description('Makes an arena, runs a short load on it, and prints what is in it.')
    .option('--bytes <size>', 'size of the arena, e.g. 64m', bytes, 64 << 20)
    .option('--cpus <n>', 'CPUs', integer(1, 64), 2)
    .option(
      '--threads <n>',
      'threads, more than CPUs with --policy op only (default: one a CPU)',
      integer(1, 64),
    )
    .option('--nodes <n>', 'nodes of the arena', integer(1, 16), 1)
    .addOption(
      new Option('--policy <policy>', 'how long a CPU keeps its sheaf lock')
        .choices(policies)
        .default('turn'),
    )
    .option('--locks', 'lock statistics and where locks were waited for')
    .option('--json', 'print one JSON object instead of text')
    .addHelpText('after', HELP)
    .action(info);
}
