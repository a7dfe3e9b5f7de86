/**
 * npm run oracle:merge -- [FILE.csv]
 * Exit code 0: every row agrees; 1: some differ; 2: the file or the arguments are not usable.
 */

import { readFileSync } from 'node:fs';
import { fileURLToPath } from 'node:url';
import { parseArgs } from 'node:util';
import { checkMergeOracle, formatMergeOracle } from '../lab/oracleMerge.js';
import { OracleFormatError } from '../lab/oracleTable.js';

const DEFAULT_FILE = import.meta.resolve('#test/oracle/slab-layout-linux-6.18-2cpu.csv');

class UsageError extends Error {}

function readFileName(args: string[]): string {
  let positionals: string[];
  try {
    ({ positionals } = parseArgs({ args, options: {}, allowPositionals: true }));
  } catch (error) {
    throw new UsageError((error as Error).message);
  }
  if (positionals.length > 1) throw new UsageError(`one file at most, got ${positionals.length}`);
  return positionals[0] ?? fileURLToPath(DEFAULT_FILE);
}

function readText(file: string): string {
  try {
    return readFileSync(file, 'utf8');
  } catch (error) {
    throw new UsageError(`cannot read ${file}: ${(error as Error).message}`);
  }
}

function main(args: string[]): number {
  try {
    const file = readFileName(args);
    const text = readText(file);
    try {
      const report = checkMergeOracle(text);
      console.log(formatMergeOracle(report));
      return report.differ > 0 ? 1 : 0;
    } catch (error) {
      if (error instanceof OracleFormatError) throw new UsageError(`${file}: ${error.message}`);
      throw error;
    }
  } catch (error) {
    if (!(error instanceof UsageError)) throw error;
    console.error(`oracle-merge: ${error.message}`);
    return 2;
  }
}

process.exitCode = main(process.argv.slice(2));
