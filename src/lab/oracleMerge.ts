/**
 * Checks which caches a Linux kernel merged, and under which ids, against our rules.
 *
 * Each name of `merged_names` is created anew, in the order of the table, with the row's stride for its size (the sizes
 * that they had before they were merged are not in the table), the row's alignment, and the flags that its `sysfs_id`
 * tells; where that is a plain name the cache may not merge, for a reason in the row's other columns or else by its
 * flags. A row agrees when exactly its names share a cache, and that cache has its id.
 */
import {
  calculateSizes,
  createUniqueId,
  findMergeable,
  ID_LETTERS,
  type MergeCandidate,
  type MergeWish,
  SLAB_CACHE_DMA,
  SLAB_CONSISTENCY_CHECKS,
  SLAB_HWCACHE_ALIGN,
  SLAB_NEVER_MERGE,
  SLAB_NO_MERGE,
  SLAB_RECLAIM_ACCOUNT,
  SLAB_TYPESAFE_BY_RCU,
  slabUnmergeable,
} from '../slab/index.js';
import { numbersOf, OracleFormatError, parseRows, type Row } from './oracleTable.js';

const NUMBER_COLUMNS = [
  'slab_size',
  'align',
  'hwcache_align',
  'destroy_by_rcu',
  'usersize',
  'sheaf_capacity',
  'reclaim_account',
  'cache_dma',
  'aliases',
];
const COLUMNS = ['cache', 'sysfs_id', 'merged_names', 'ctor', ...NUMBER_COLUMNS];

/** An id says that a cache may merge, and an `F` in it that it could with consistency checks: a kernel before 7.0. */
const NEVER = SLAB_NEVER_MERGE & ~SLAB_CONSISTENCY_CHECKS;

interface MergeDifference {
  line: number;
  cache: string;
  column: 'sysfs_id' | 'merged_names' | 'aliases';
  expected: string;
  /** What we find, or why we refuse the row. */
  got: string;
}

interface MergeReport {
  /** Rows, not cells. */
  agree: number;
  differ: number;
  differences: MergeDifference[];
}

interface Made extends MergeCandidate {
  refcount: number;
  readonly members: Member[];
}

interface Member {
  readonly name: string;
  /** The cache that serves it. */
  cache?: Made;
  refused?: string;
}

interface Given {
  readonly row: Row;
  readonly id: string;
  readonly aliases: number;
  readonly members: Member[];
}

const cell = (row: Row, column: string): string => row.cells.get(column)!;

/** The flags of `:aA-0000064`, or undefined when the id is a plain name. */
function flagsOfId(row: Row): number | undefined {
  const id = cell(row, 'sysfs_id');
  if (!id.startsWith(':')) return undefined;
  const match = /^:(?:([A-Za-z]+)-)?\d+$/.exec(id);
  const letters = [...(match?.[1] ?? '')];
  const flags = letters.map((letter) => ID_LETTERS.find(([known]) => known === letter)?.[1]);
  if (match === null || flags.includes(undefined)) {
    const known = ID_LETTERS.map(([letter]) => letter).join('');
    throw new OracleFormatError(
      `line ${row.line}, column sysfs_id: expected a name, or ':', letters of ${known} with '-', and a size, got '${id}'`,
    );
  }
  return flags.reduce<number>((all, flag) => all | flag!, 0);
}

function wishOf(row: Row, numbers: ReadonlyMap<string, number>): MergeWish {
  const on = (column: string, flag: number): number => (numbers.get(column) !== 0 ? flag : 0);
  const own =
    on('hwcache_align', SLAB_HWCACHE_ALIGN) |
    on('destroy_by_rcu', SLAB_TYPESAFE_BY_RCU) |
    on('sheaf_capacity', SLAB_NO_MERGE);
  const told = flagsOfId(row);
  const wish: MergeWish = {
    objectSize: numbers.get('slab_size')!,
    align: numbers.get('align')!,
    flags: own | (told ?? on('reclaim_account', SLAB_RECLAIM_ACCOUNT) | on('cache_dma', SLAB_CACHE_DMA)),
    hasCtor: cell(row, 'ctor') !== '',
    usersize: numbers.get('usersize')!,
    layer: 'sheaves',
  };
  // Nothing that the table tells keeps it from merging, and still it did not: it was made with SLAB_NO_MERGE.
  const forbidden = told === undefined && !slabUnmergeable(wish, NEVER);
  return forbidden ? { ...wish, flags: wish.flags | SLAB_NO_MERGE } : wish;
}

/** The names of a row; the cache's own is one of them, wherever the table has it. */
function namesOf(row: Row): string[] {
  const names = cell(row, 'merged_names').split(/\s+/);
  return [...new Set([...names, cell(row, 'cache')])].filter((name) => name !== '');
}

/** Makes one cache, or finds the one that serves it. */
function create(caches: Made[], wish: MergeWish, member: Member): void {
  let s = findMergeable(caches, wish, NEVER);
  if (s === undefined) {
    const { size } = calculateSizes({
      objectSize: wish.objectSize,
      align: wish.align,
      hwcacheAlign: (wish.flags & SLAB_HWCACHE_ALIGN) !== 0,
      cpus: 1,
    });
    s = { ...wish, size, refcount: 0, members: [] };
    caches.push(s);
  }
  s.refcount++;
  s.members.push(member);
  member.cache = s;
}

function feed(caches: Made[], row: Row): Given {
  const numbers = numbersOf(row, NUMBER_COLUMNS);
  const wish = wishOf(row, numbers);
  const members = namesOf(row).map((name): Member => ({ name }));
  for (const member of members) {
    try {
      create(caches, wish, member);
    } catch (error) {
      if (!(error instanceof RangeError)) throw error;
      member.refused = error.message;
    }
  }
  return { row, id: cell(row, 'sysfs_id'), aliases: numbers.get('aliases')!, members };
}

const listOf = (members: readonly Member[]): string =>
  members
    .map(({ name }) => name)
    .sort()
    .join(' ');

function compare({ row, id, aliases, members }: Given): MergeDifference[] {
  const at = { line: row.line, cache: cell(row, 'cache') };
  const refused = members.find((member) => member.refused !== undefined);
  if (refused !== undefined) {
    return [{ ...at, column: 'sysfs_id', expected: id, got: `refused: ${refused.refused}` }];
  }
  const differences: MergeDifference[] = [];
  const expect = (column: MergeDifference['column'], expected: string, got: string): void => {
    if (expected !== got) differences.push({ ...at, column, expected, got });
  };
  const served = new Set(members.map(({ cache }) => cache!));
  for (const s of served) {
    expect('sysfs_id', id, slabUnmergeable(s, NEVER) ? s.members[0]!.name : createUniqueId(s.flags, s.size));
    expect('merged_names', listOf(members), listOf(s.members));
    expect('aliases', String(aliases), String(s.refcount - 1));
  }
  return differences;
}

/**
 * Merges the caches of the table and compares every row.
 * @throws OracleFormatError when the text is not such a table
 */
export function checkMergeOracle(text: string): MergeReport {
  const caches: Made[] = [];
  const report: MergeReport = { agree: 0, differ: 0, differences: [] };
  const given = parseRows(text, COLUMNS).map((row) => feed(caches, row));
  for (const row of given) {
    const differences = compare(row);
    if (differences.length === 0) report.agree++;
    else report.differ++;
    report.differences.push(...differences);
  }
  return report;
}

/** One line per difference, and the count of rows as last line. */
export function formatMergeOracle(report: MergeReport): string {
  const lines = report.differences.map(
    ({ line, cache, column, expected, got }) =>
      `${cache} (line ${line}): ${column} expected ${expected}, got ${got}`,
  );
  lines.push(`${report.agree} rows agree, ${report.differ} differ`);
  return lines.join('\n');
}
