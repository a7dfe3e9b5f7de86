import { spawnSync } from 'node:child_process';
import { mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { checkMergeOracle } from '#src/lab/oracleMerge.js';
import { OracleFormatError } from '#src/lab/oracleTable.js';

const FILE = fileURLToPath(new URL('slab-layout-linux-6.18-2cpu.csv', import.meta.url));
const CLI = fileURLToPath(new URL('../../dist/src/cli/oracle-merge.js', import.meta.url));
const TEXT = readFileSync(FILE, 'utf8');
const HEADER = TEXT.split('\n')[0]!.split(',');

const at = (column: string): number => HEADER.indexOf(column);

/** The table with cells of one cache replaced. */
function altered(cache: string, cells: Record<string, string>): string {
  const lines = TEXT.split('\n').map((line) => {
    const old = line.split(',');
    if (old[0] !== cache) return line;
    for (const [column, value] of Object.entries(cells)) old[at(column)] = value;
    return old.join(',');
  });
  return lines.join('\n');
}

const differing = (text: string): string[] => [
  ...new Set(checkMergeOracle(text).differences.map(({ cache }) => cache)),
];

describe('what a running Linux 6.18 merged', () => {
  it('is all reproduced', () => {
    expect(checkMergeOracle(TEXT)).toEqual({ agree: 145, differ: 0, differences: [] });
  });

  it('is reproduced whatever the order of the rows', () => {
    const [header, ...rows] = TEXT.trimEnd().split('\n');
    expect(checkMergeOracle([header, ...rows.reverse()].join('\n'))).toMatchObject({ agree: 145, differ: 0 });
  });

  it.each([
    ['a reason not to', 'cred', { ctor: 'init+0x0/0x10' }],
    ['a usercopy range', 'cred', { usersize: '8' }],
    ['type safety', 'cred', { destroy_by_rcu: '1' }],
    ['a sheaf capacity', 'cred', { sheaf_capacity: '32' }],
    ['an id for another stride', 'cred', { sysfs_id: ':A-0000200' }],
    ['another stride', 'cred', { slab_size: '200' }],
    ['one name too many in the count', 'cred', { aliases: '2' }],
    ['an id in spite of its constructor', 'btrfs_inode', { sysfs_id: ':a-0001016' }],
  ])('does not agree with a row that has %s', (_what, cache, cells) => {
    expect(differing(altered(cache, cells))).toEqual([cache]);
    expect(checkMergeOracle(altered(cache, cells))).toMatchObject({ agree: 144, differ: 1 });
  });

  it('has no two rows for what merges: a row that is cut in two differs twice', () => {
    const cut = altered('cred', { merged_names: 'cred', aliases: '0' });
    const row = TEXT.split('\n').find((line) => line.startsWith('cred,'))!;
    const other = row.split(',');
    other[0] = 'pid';
    other[at('merged_names')] = 'pid';
    other[at('aliases')] = '0';
    const report = checkMergeOracle(`${cut.trimEnd()}\n${other.join(',')}\n`);
    expect(report).toMatchObject({ agree: 144, differ: 2 });
    expect(report.differences).toContainEqual(
      expect.objectContaining({ column: 'merged_names', expected: 'cred', got: 'cred pid' }),
    );
  });

  it('and a row whose flags are those of another merges with it', () => {
    const text = altered('ext4_io_end', { sysfs_id: ':A-0000064' });
    expect(differing(text).sort()).toEqual(['anon_vma_chain', 'ext4_io_end']);
  });
});

describe('the reader of ids', () => {
  it.each([':x-0000064', ':A0000064', ':-0000064', ':A-', ':'])('refuses %j', (id) => {
    expect(() => checkMergeOracle(altered('cred', { sysfs_id: id }))).toThrow(OracleFormatError);
    expect(() => checkMergeOracle(altered('cred', { sysfs_id: id }))).toThrow(/^line \d+, column sysfs_id/);
  });

  it('names missing columns', () => {
    expect(() => checkMergeOracle(TEXT.replace('sysfs_id', 'id'))).toThrow('missing columns: sysfs_id');
  });
});

describe('the command', () => {
  let folder: string;
  const run = (...args: string[]) => {
    const { status, stdout, stderr } = spawnSync(process.execPath, [CLI, ...args], { encoding: 'utf8' });
    return { status, lines: stdout.trimEnd().split('\n'), stderr };
  };
  beforeAll(() => {
    folder = mkdtempSync(join(tmpdir(), 'granary-merge-'));
  });
  afterAll(() => rmSync(folder, { recursive: true, force: true }));

  it('checks the recorded table, prints what differs, and exits with 0, 1 or 2', () => {
    expect(run()).toEqual({ status: 0, lines: ['145 rows agree, 0 differ'], stderr: '' });
    const path = join(folder, 'altered.csv');
    writeFileSync(path, altered('cred', { sysfs_id: ':A-0000200' }));
    const line = TEXT.split('\n').findIndex((each) => each.startsWith('cred,')) + 1;
    expect(run(path)).toEqual({
      status: 1,
      lines: [
        `cred (line ${line}): sysfs_id expected :A-0000200, got :A-0000192`,
        '144 rows agree, 1 differ',
      ],
      stderr: '',
    });
    writeFileSync(path, altered('cred', { align: 'x' }));
    expect(run(path)).toMatchObject({ status: 2, stderr: expect.stringContaining('column align') });
    writeFileSync(path, TEXT.split('\n')[0]!);
    expect(run(path)).toMatchObject({
      status: 2,
      stderr: `oracle:merge: ${path}: no rows behind the header: there is nothing to compare\n`,
    });
    expect(run(FILE, FILE).status).toBe(2);
    expect(run(join(folder, 'absent.csv')).stderr).toContain('cannot read');
  });
});
