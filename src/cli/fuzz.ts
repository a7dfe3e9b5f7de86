#!/usr/bin/env node
/** `npm run fuzz -- --calls 1000000 --seed N` */
import { Command, InvalidArgumentError } from 'commander';
import { fuzz } from '../lab/fuzz/fuzz.js';

const integer = (text: string): number => {
  const value = Number(text);
  if (!Number.isInteger(value) || value < 0) throw new InvalidArgumentError('must be an integer from 0 on');
  return value;
};

const { calls, seed } = new Command('fuzz')
  .description('Calls everything that is public with arguments of every kind; ends at the first fault.')
  .option('--calls <n>', 'how many calls', integer, 1_000_000)
  .option('--seed <n>', 'seed of all choices', integer, 1)
  .addHelpText('after', '\nExit status: 0 when every call was right or refused without a trace; 1 otherwise.')
  .parse()
  .opts<{ calls: number; seed: number }>();

const began = performance.now();
const report = fuzz(calls, seed);
const seconds = ((performance.now() - began) / 1000).toFixed(1);
for (const fault of report.faults) console.error(fault);
console.log(
  `${report.calls} calls of ${report.byName.size} functions in ${seconds} s: ${report.accepted} accepted, ` +
    `${report.refused} refused, ${report.compared} of them compared, ${report.faults.length} faults, seed ${seed}`,
);
process.exit(report.faults.length > 0 ? 1 : 0);
