/** `granary info`: what an arena looks like from inside. */
import { Command } from 'commander';
import { demoInfo, infoText } from '../lab/info.js';
import { bytes, EXIT, integer } from './options.js';

interface Options {
  bytes: number;
  cpus: number;
  nodes: number;
  json?: boolean;
}

const HELP = `
Prints slabinfo as /proc/slabinfo does, memory, free blocks by order, and the counters of all caches.

Examples:
  granary info
  granary info --bytes 256m --cpus 4 --nodes 2
  granary info --json | jq '.caches[].name'

Exit status: 0 the arena is sound; 1 it is not; 2 wrong options.`;

async function info({ json, ...options }: Options): Promise<void> {
  const report = await demoInfo(options);
  process.stdout.write(json ? `${JSON.stringify(report)}\n` : infoText(report));
  process.exitCode = report.problems.length === 0 ? EXIT.ok : EXIT.unsound;
}

export function infoCommand(): Command {
  return new Command('info')
    .description('Makes an arena, runs a short load on it, and prints what is in it.')
    .option('--bytes <size>', 'size of the arena, e.g. 64m', bytes, 64 << 20)
    .option('--cpus <n>', 'CPUs, a thread each', integer(1, 64), 2)
    .option('--nodes <n>', 'nodes of the arena', integer(1, 16), 1)
    .option('--json', 'print one JSON object instead of text')
    .addHelpText('after', HELP)
    .action(info);
}
