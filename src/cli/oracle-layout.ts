/** `npm run oracle:layout -- [--cpus N] [FILE.csv]` */
import { checkOracle, formatOracle } from '../lab/oracle.js';
import { integer } from './options.js';
import { oracleCommand, runOracle } from './oracle.js';

const CPUS_MAX = 8192;

const command = oracleCommand(
  'oracle:layout',
  'Compares the layout of slabs with what a live kernel has.',
).option('--cpus <n>', 'processors of the machine that the file is from', integer(1, CPUS_MAX), 2);

runOracle(command, (content) => {
  const report = checkOracle(content, command.opts<{ cpus: number }>().cpus);
  return { text: formatOracle(report), differ: report.differ };
});
