/** `npm run oracle:merge -- [FILE.csv]` */
import { checkMergeOracle, formatMergeOracle } from '../lab/oracleMerge.js';
import { oracleCommand, runOracle } from './oracle.js';

const command = oracleCommand(
  'oracle:merge',
  'Compares which caches become one with what a live kernel did.',
);

runOracle(command, (content) => {
  const report = checkMergeOracle(content);
  return { text: formatMergeOracle(report), differ: report.differ };
});
