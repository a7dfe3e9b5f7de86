#!/usr/bin/env node
/** `npm run fuzz -- --calls 1000000 --seed N` */
import { Command, InvalidArgumentError } from 'commander';
import { CALL_LIMIT_MS, fuzzWatched } from '../lab/fuzz/watched.js';

const integer = (text: string): number => {
  const value = Number(text);
  if (!Number.isInteger(value) || value < 0) throw new InvalidArgumentError('must be an integer from 0 on');
  return value;
};

const { calls, seed, limit } = new Command('fuzz')
  .description('Calls everything that is public with arguments of every kind; ends at the first fault.')
  .option('--calls <n>', 'how many calls', integer, 1_000_000)
  .option('--seed <n>', 'seed of all choices', integer, 1)
  .option(
    '--limit <s>',
    'seconds after which a call that has not returned is a fault',
    integer,
    CALL_LIMIT_MS / 1000,
  )
  .addHelpText(
    'after',
    '\nExit status: 0 when every call returned, right or refused without a trace; 1 otherwise.',
  )
  .parse()
  .opts<{ calls: number; seed: number; limit: number }>();

const began = performance.now();
const report = await fuzzWatched(calls, seed, { limitMs: Math.max(1, limit) * 1000 });
const seconds = ((performance.now() - began) / 1000).toFixed(1);
for (const fault of report.faults) console.error(fault);
console.log(
  `${report.calls} calls of ${report.byName.size} functions in ${seconds} s: ${report.accepted} accepted, ` +
    `${report.refused} refused, ${report.compared} of them compared, ${report.faults.length} faults, seed ${seed}`,
);
process.exit(report.faults.length > 0 ? 1 : 0);
