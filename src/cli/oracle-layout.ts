/**
 * npm run oracle:layout -- [--cpus N] [FILE.csv]
 * Exit code 0: every row agrees; 1: some differ; 2: the file or the arguments are not usable.
 */

import { readFileSync } from 'node:fs';
import { fileURLToPath } from 'node:url';
import { parseArgs } from 'node:util';
import { checkOracle, formatOracle, OracleFormatError } from '../lab/oracle.js';

const DEFAULT_FILE = import.meta.resolve('#test/oracle/slab-layout-linux-6.18-2cpu.csv');
const DEFAULT_CPUS = '2';
const MAX_CPUS = 8192;

class UsageError extends Error {}

function readArguments(args: string[]): { file: string; cpus: number } {
  let parsed: { values: { cpus: string }; positionals: string[] };
  try {
    parsed = parseArgs({
      args,
      options: { cpus: { type: 'string', default: DEFAULT_CPUS } },
      allowPositionals: true,
    });
  } catch (error) {
    throw new UsageError((error as Error).message);
  }
  const { positionals } = parsed;
  if (positionals.length > 1) throw new UsageError(`one file at most, got ${positionals.length}`);
  const cpus = Number(parsed.values.cpus);
  if (!Number.isInteger(cpus) || cpus < 1 || cpus > MAX_CPUS) {
    throw new UsageError(`--cpus must be a whole number from 1 to ${MAX_CPUS}, got '${parsed.values.cpus}'`);
  }
  return { file: positionals[0] ?? fileURLToPath(DEFAULT_FILE), cpus };
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
    const { file, cpus } = readArguments(args);
    const text = readText(file);
    try {
      const report = checkOracle(text, cpus);
      console.log(formatOracle(report));
      return report.differ > 0 ? 1 : 0;
    } catch (error) {
      if (error instanceof OracleFormatError) throw new UsageError(`${file}: ${error.message}`);
      throw error;
    }
  } catch (error) {
    if (!(error instanceof UsageError)) throw error;
    console.error(`oracle-layout: ${error.message}`);
    return 2;
  }
}

process.exitCode = main(process.argv.slice(2));
