/** `granary info`: what an arena looks like from inside. */
import { Command, Option } from 'commander';
import { demoInfo, infoText } from '../lab/info.js';
import { slabinfoTool } from '../observe/index.js';
import { type LockPolicy, MERGE_MODES, type MergeMode } from '../struct/index.js';
import { bytes, EXIT, integer, pattern, policies } from './options.js';
import { addToolOptions, type ToolFlags, toolOptions } from './slabinfo.js';

interface Options extends ToolFlags {
  bytes: number;
  cpus: number;
  threads?: number;
  nodes: number;
  policy: LockPolicy;
  locks?: boolean;
  merge: MergeMode;
  slabDebug: string;
  json?: boolean;
}

const HELP = `
Prints slabinfo as /proc/slabinfo does, memory, free blocks by order, the counters of all caches, and for each cache how
often its sheaves were found locked by another thread. With --locks the load runs with full lock statistics, which makes
it slower: they are printed as /proc/lock_stat, perf lock report and perf lock contention print them. With a name or one
of slabinfo's letters, prints what the kernel's slabinfo tool would, and nothing else.

Examples:
  granary info
  granary info --bytes 256m --cpus 4 --nodes 2
  granary info --policy op --cpus 2 --threads 8
  granary info --locks --policy op --cpus 2 --threads 8
  granary info --json | jq '.caches[].name'
  granary info -S -N 5                 the five largest caches, as slabinfo prints them
  granary info -r 'kmalloc-64$'        all about one
  granary info -X                      totals, the largest and the most wasteful
  granary info -t --slab-debug U,kmalloc-* kmalloc
                                       who allocated what kmalloc has out, and who freed it before

Exit status: 0 the arena is sound; 1 it is not, or a letter of -d could not be switched; 2 wrong options.`;

async function info(name: RegExp | undefined, options: Options): Promise<void> {
  const { json, policy, bytes, cpus, threads, nodes, merge, slabDebug, locks = false, ...flags } = options;
  const { shrink = false, validate = false, debug } = flags;
  const size = { bytes, cpus, nodes, ...(threads === undefined ? {} : { threads }) };
  const report = await demoInfo({
    ...size,
    lockPolicy: policy,
    merge,
    locks,
    slabDebug,
    shrink,
    validate,
    debug: debug === true ? 'A' : debug,
    pattern: name,
  });
  const tool = toolOptions(flags, name, report.traces);
  const text = tool === undefined ? infoText(report) : slabinfoTool(report.caches, tool);
  process.stdout.write(json ? `${JSON.stringify(report)}\n` : text);
  if (tool !== undefined)
    for (const problem of report.problems) process.stderr.write(`UNSOUND  ${problem}\n`);
  for (const line of report.refused) process.stderr.write(`${line}\n`);
  const fine = report.problems.length === 0 && report.refused.length === 0;
  process.exitCode = fine ? EXIT.ok : EXIT.unsound;
}

export function infoCommand(): Command {
  const command = new Command('info')
    .argument('[name]', 'slabinfo: only caches whose name matches this regular expression', pattern)
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
    .addOption(
      new Option('--merge <mode>', 'which caches share their slabs').choices(MERGE_MODES).default('off'),
    )
    .option('--slab-debug <spec>', 'slab_debug of the arena, e.g. FZPU or U,kmalloc-*', '')
    .option('--json', 'print one JSON object instead of text')
    .addHelpText('after', HELP)
    .action(info);
  return addToolOptions(command);
}
