/** `granary replay`: a kernel's allocations again, on the CPUs of an arena. */
import { Command, Option } from 'commander';
import { hitRates, hitRateText } from '../lab/hitRates.js';
import { progressLine } from '../lab/progress.js';
import { replayTrace } from '../lab/replay.js';
import { replayText } from '../lab/replayReport.js';
import { type CheckLevel, LAYERS, type Layer, type LockPolicy } from '../struct/index.js';
import { bytes, checks, EXIT, integer, policies } from './options.js';

interface Options {
  cpus: number;
  rounds: number;
  nodes: number;
  policy: LockPolicy;
  check: CheckLevel;
  bytes?: number;
  seed: number;
  layer: Layer;
  kthreadRcu?: boolean;
  hitRates?: boolean;
  json?: boolean;
}

const HELP = `
The file is what ftrace, trace-cmd report or perf script print of the kernel's kmem:* and percpu:* events,
plain or gzipped. CPU n of the kernel becomes CPU n modulo --cpus here. Record one of your own with

  trace-cmd record -e kmem:kmalloc -e kmem:kfree -e kmem:kmem_cache_alloc -e kmem:kmem_cache_free COMMAND
  trace-cmd report > trace.txt

Examples:
  granary replay bench/traces/git.ftrace.txt.gz
  granary replay trace.txt --cpus 4 --policy op
  granary replay trace.txt --json | jq .eventsPerSecond
  granary replay trace.txt --hit-rates --kthread-rcu

Exit status: 0 sound: nothing lost, no finding of validate, all memory given back; 1 unsound; 2 wrong options,
or a file that is missing, truncated or no trace.`;

/** A round takes about this long, and so do warm-up and the run for the lock table. */
const ROUND_MS = 150;
const REST_MS = 1500;

async function replay(file: string, options: Options): Promise<void> {
  const { cpus, kthreadRcu = false } = options;
  if (options.hitRates) {
    const rates = await hitRates(file, { cpus, kthreadRcu });
    process.stdout.write(options.json ? `${JSON.stringify(rates)}\n` : hitRateText(file, rates));
    return;
  }
  const progress = progressLine(process.stderr, options.rounds * ROUND_MS + REST_MS);
  const report = await replayTrace(file, { ...options, kthreadRcu, progress });
  process.stdout.write(options.json ? `${JSON.stringify(report)}\n` : replayText(report));
  process.exitCode = report.problems.length === 0 ? EXIT.ok : EXIT.unsound;
}

export function replayCommand(): Command {
  return new Command('replay')
    .description("Replays a kernel's allocation trace on worker threads, on its recorded caches.")
    .argument('<file>', 'the trace')
    .option('--cpus <n>', 'CPUs, a thread each', integer(1, 64), 1)
    .option('--rounds <n>', 'timed rounds', integer(1, 10_000), 5)
    .option('--nodes <n>', 'nodes of the arena', integer(1, 16), 1)
    .addOption(
      new Option('--policy <policy>', 'how long a CPU keeps its sheaf lock')
        .choices(policies)
        .default('turn'),
    )
    .addOption(new Option('--check <level>', 'what a free checks').choices(checks).default('free'))
    .addOption(
      new Option('--layer <layer>', 'what stands in front of the slabs').choices(LAYERS).default('sheaves'),
    )
    .option(
      '--kthread-rcu',
      'free by kfree_rcu what the kernel freed in contexts of its own, such as RCU callbacks',
    )
    .option('--hit-rates', 'only print how vm_area_struct and maple_node fare with and without sheaves')
    .option('--bytes <size>', 'size of the arena, e.g. 512m (default: from the trace)', bytes)
    .option('--seed <n>', 'seed of the bootstrap interval', integer(0, 2 ** 31 - 1), 1)
    .option('--json', 'print one JSON object instead of text')
    .addHelpText('after', HELP)
    .action(replay);
}
