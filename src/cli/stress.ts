#!/usr/bin/env node
/** `npm run stress -- --seconds 60 --threads 8 --seed N` */
import { Command, Option } from 'commander';
import { STRESS_CONFIGS, stressConfigs, stressName, stressRound } from '../lab/stress/stress.js';
import { LAYERS, type Layer } from '../struct/index.js';
import { EXIT, integer, programInOneLine } from './options.js';

const program = programInOneLine(new Command('npm run stress --'))
  .description(
    'Real threads against one arena, with cookies in every object; ends with a validate of everything.',
  )
  .option('--seconds <n>', 'how long in all', integer(1, 86_400), 60)
  .option('--threads <n>', 'worker threads', integer(1, 60), 8)
  .option('--seed <n>', 'seed of all choices (not of the interleaving)', integer(0, 2 ** 31 - 1), 1)
  .addOption(new Option('--layer <name>', 'only this caching layer, in every shape').choices(LAYERS))
  .option('--json', 'print the results as JSON')
  .addHelpText(
    'after',
    '\nExit status: 0 when nothing was lost, doubled or overwritten; 1 when something was; 2 wrong options.',
  )
  .parse();

const options = program.opts<{
  seconds: number;
  threads: number;
  seed: number;
  layer?: Layer;
  json?: boolean;
}>();
const configs = options.layer === undefined ? STRESS_CONFIGS : stressConfigs(options.layer);
const rounds = Math.max(configs.length, Math.round(options.seconds / 12));
const results = [];
for (let i = 0; i < rounds; i++) {
  const config = configs[i % configs.length]!;
  const result = await stressRound(config, options.threads, options.seed + i, options.seconds / rounds);
  results.push(result);
  const { counts } = result;
  if (!options.json) {
    console.log(
      `${stressName(config).padEnd(49)} ${counts.ops} steps, ${counts.allocs} allocs, ${counts.bulks} bulks, ` +
        `${counts.transfers} transfers, ${counts.prefills} prefills, ${counts.nolocks} nolock, ` +
        `${counts.rcuFrees} by RCU, ${counts.outOfMemory} out of memory, ${result.lives} lives, ` +
        `${result.vanished} vanished, ${result.shrinks} shrinks, ${result.problems.length} problems`,
    );
  }
  for (const problem of result.problems) console.error(`  ${problem}`);
  if (result.problems.length > 0) break;
}
const failed = results.some((result) => result.problems.length > 0);
if (options.json) console.log(JSON.stringify({ seed: options.seed, threads: options.threads, results }));
else
  console.log(
    failed ? `FAILED with seed ${options.seed}` : `sound: ${results.length} rounds, seed ${options.seed}`,
  );
process.exit(failed ? EXIT.unsound : EXIT.ok);
