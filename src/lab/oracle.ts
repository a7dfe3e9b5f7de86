/**
 * Checks a table of what a Linux kernel computed for its caches against our layout arithmetic.
 * Columns are found by name. Inputs: object_size, align (as computed), hwcache_align, destroy_by_rcu, ctor,
 * freeptr_offset_given. sheaf_capacity is not compared: before 7.0 only caches that asked had sheaves.
 */

import { calculateSizes, type SlabLayout } from '../slab/index.js';
import { numbersOf, parseRows, type Row } from './oracleTable.js';

export { OracleFormatError } from './oracleTable.js';

const OUTPUTS = {
  slab_size: 'size',
  order: 'order',
  objs_per_slab: 'objects',
  min_partial: 'minPartial',
  cpu_partial: 'cpuPartial',
} as const satisfies Record<string, keyof SlabLayout>;

type Output = keyof typeof OUTPUTS;
const OUTPUT_COLUMNS = Object.keys(OUTPUTS) as Output[];
const INPUT_COLUMNS = ['object_size', 'align', 'hwcache_align', 'destroy_by_rcu', 'freeptr_offset_given'];
const NUMBER_COLUMNS = [...INPUT_COLUMNS, ...OUTPUT_COLUMNS];
const COLUMNS = ['cache', 'ctor', ...NUMBER_COLUMNS];

interface OracleDifference {
  line: number;
  cache: string;
  column: string;
  expected: number;
  /** What we compute, or why we refuse the row. */
  got: number | string;
}

interface OracleReport {
  /** Rows, not cells. */
  agree: number;
  differ: number;
  differences: OracleDifference[];
}

function layoutOf(row: Row, numbers: Map<string, number>, cpus: number): SlabLayout {
  const typesafeByRcu = numbers.get('destroy_by_rcu') !== 0;
  const hasCtor = row.cells.get('ctor') !== '';
  // The table tells that an offset was given, not which: every place inside the object yields the same sizes.
  const custom = numbers.get('freeptr_offset_given') !== 0 && (typesafeByRcu || hasCtor);
  return calculateSizes({
    objectSize: numbers.get('object_size')!,
    align: numbers.get('align')!,
    hwcacheAlign: numbers.get('hwcache_align') !== 0,
    typesafeByRcu,
    hasCtor,
    ...(custom ? { freeptrOffset: 0 } : {}),
    cpus,
  });
}

function compareRow(row: Row, cpus: number): OracleDifference[] {
  const numbers = numbersOf(row, NUMBER_COLUMNS);
  const at = { line: row.line, cache: row.cells.get('cache')! };
  let layout: SlabLayout;
  try {
    layout = layoutOf(row, numbers, cpus);
  } catch (error) {
    if (!(error instanceof RangeError)) throw error;
    const expected = numbers.get('slab_size')!;
    return [{ ...at, column: 'slab_size', expected, got: `refused: ${error.message}` }];
  }
  const differences: OracleDifference[] = [];
  for (const column of OUTPUT_COLUMNS) {
    const expected = numbers.get(column)!;
    const got = layout[OUTPUTS[column]];
    if (got !== expected) differences.push({ ...at, column, expected, got });
  }
  return differences;
}

/**
 * Compares every row of the table with the arithmetic for a machine of that many CPUs.
 * @throws OracleFormatError when the text is not such a table
 */
export function checkOracle(text: string, cpus = 2): OracleReport {
  const report: OracleReport = { agree: 0, differ: 0, differences: [] };
  for (const row of parseRows(text, COLUMNS)) {
    const differences = compareRow(row, cpus);
    if (differences.length === 0) report.agree++;
    else report.differ++;
    report.differences.push(...differences);
  }
  return report;
}

/** One line per difference, and the count of rows as last line. */
export function formatOracle(report: OracleReport): string {
  const lines = report.differences.map(
    ({ line, cache, column, expected, got }) =>
      `${cache} (line ${line}): ${column} expected ${expected}, got ${got}`,
  );
  lines.push(`${report.agree} rows agree, ${report.differ} differ`);
  return lines.join('\n');
}
