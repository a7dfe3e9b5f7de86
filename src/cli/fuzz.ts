#!/usr/bin/env node
/** `npm run fuzz -- --calls 1000000 --seed N` */
import { Command } from 'commander';
import { CALL_LIMIT_MS, fuzzWatched } from '../lab/fuzz/watched.js';
import { integer, programInOneLine } from './options.js';

const { calls, seed, limit } = programInOneLine(new Command('npm run fuzz --'))
  .description('Calls everything that is public with arguments of every kind; ends at the first fault.')
  .option('--calls <n>', 'how many calls', integer(1, 1e12), 1_000_000)
  .option('--seed <n>', 'seed of all choices', integer(0, 2 ** 32 - 1), 1)
  .option(
    '--limit <s>',
    'seconds after which a call that has not returned is a fault',
    integer(1, 86_400),
    CALL_LIMIT_MS / 1000,
  )
  .addHelpText(
    'after',
    '\nExit status: 0 when every call returned, right or refused without a trace; 1 when one did not; 2 wrong options.',
  )
  .parse()
  .opts<{ calls: number; seed: number; limit: number }>();

const began = performance.now();
const report = await fuzzWatched(calls, seed, { limitMs: limit * 1000 });
const seconds = ((performance.now() - began) / 1000).toFixed(1);
for (const fault of report.faults) console.error(fault);
console.log(
  `${report.calls} calls of ${report.byName.size} functions in ${seconds} s: ${report.accepted} accepted, ` +
    `${report.refused} refused, ${report.compared} of them compared, ${report.faults.length} faults, seed ${seed}`,
);
process.exit(report.faults.length > 0 ? 1 : 0);
