import { spawnSync } from 'node:child_process';
import { mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { checkOracle, OracleFormatError } from '#src/lab/oracle.js';

const FILE = fileURLToPath(new URL('slab-layout-linux-6.18-2cpu.csv', import.meta.url));
const CLI = fileURLToPath(new URL('../../dist/src/cli/oracle-layout.js', import.meta.url));
const TEXT = readFileSync(FILE, 'utf8');
const HEADER = TEXT.split('\n')[0]!;

/** The table with one cell of one cache replaced. */
function altered(cache: string, column: string, value: string, text = TEXT): string {
  const at = HEADER.split(',').indexOf(column);
  const lines = text.split('\n').map((line) => {
    const cells = line.split(',');
    if (cells[0] === cache) cells[at] = value;
    return cells.join(',');
  });
  return lines.join('\n');
}

const lineOf = (cache: string) => TEXT.split('\n').findIndex((line) => line.startsWith(`${cache},`)) + 1;

describe('the layouts of a running Linux 6.18', () => {
  it('are all reproduced', () => {
    expect(checkOracle(TEXT)).toEqual({ agree: 145, differ: 0, differences: [] });
  });

  it('are not those of a machine with other CPUs', () => {
    expect(checkOracle(TEXT, 64).differ).toBeGreaterThan(0);
  });

  it.each([
    ['slab_size', '576', 560],
    ['order', '2', 1],
    ['objs_per_slab', '15', 14],
    ['min_partial', '6', 5],
    ['cpu_partial', '120', 52],
  ])('differ where %s is altered', (column, value, got) => {
    const report = checkOracle(altered('taskstats', column, value));
    expect(report).toMatchObject({ agree: 144, differ: 1 });
    const line = lineOf('taskstats');
    expect(report.differences).toEqual([{ line, cache: 'taskstats', column, expected: Number(value), got }]);
  });

  it('differ in every output that an altered input reaches', () => {
    const report = checkOracle(altered('filp', 'object_size', '1600'));
    expect(report).toMatchObject({ agree: 144, differ: 1 });
    expect(report.differences.map(({ column }) => column)).toEqual([
      'slab_size',
      'order',
      'objs_per_slab',
      'cpu_partial',
    ]);
  });

  it.each([
    ['anon_vma', 'ctor', '', 104],
    ['anon_vma', 'destroy_by_rcu', '0', 104],
  ])('need the free pointer outside %s for one reason: without %s', (cache, column, value, stride) => {
    expect(checkOracle(altered(cache, column, value)).differ).toBe(0);
    const both = altered(cache, 'destroy_by_rcu', '0', altered(cache, 'ctor', ''));
    expect(checkOracle(both).differences).toContainEqual({
      line: lineOf(cache),
      cache,
      column: 'slab_size',
      expected: stride,
      got: stride - 8,
    });
  });

  it('have no free pointer outside the object where an offset was given', () => {
    const report = checkOracle(altered('vm_area_struct', 'freeptr_offset_given', '0'));
    expect(report.differences).toContainEqual(
      expect.objectContaining({ column: 'slab_size', expected: 192, got: 256 }),
    );
  });
});

describe('the reader', () => {
  it('finds columns by name, and ignores the others', () => {
    const reversed = TEXT.trimEnd()
      .split('\n')
      .map((line) => [...line.split(','), 'more'].reverse().join(','))
      .join('\r\n');
    expect(checkOracle(`\uFEFF${reversed}\r\n\r\n`)).toMatchObject({ agree: 145, differ: 0 });
  });

  it('counts a row that no kernel would accept as different', () => {
    const report = checkOracle(altered('filp', 'object_size', '0'));
    expect(report).toMatchObject({ agree: 144, differ: 1 });
    expect(report.differences[0]).toMatchObject({ column: 'slab_size', expected: 192 });
    expect(report.differences[0]!.got).toMatch(/^refused: size must be/);
  });

  it('names missing and repeated columns', () => {
    const renamed = TEXT.replace('objs_per_slab', 'objects').replace('align', 'alignment');
    expect(() => checkOracle(renamed)).toThrow('line 1: missing columns: align, objs_per_slab');
    expect(() => checkOracle('')).toThrow(/^line 1: missing columns: cache, ctor, object_size/);
    expect(() => checkOracle(TEXT.replace('aliases', 'order'))).toThrow('line 1: columns given twice: order');
  });

  it.each(['', 'x', '-8', '8.5', '0x10', '1e3', 'NaN'])(
    'names the line and column of the cell %j',
    (value) => {
      const text = altered('filp', 'order', value);
      expect(() => checkOracle(text)).toThrow(OracleFormatError);
      expect(() => checkOracle(text)).toThrow(
        `line ${lineOf('filp')}, column order: expected a whole number, got '${value}'`,
      );
    },
  );

  it('names a line with too few cells', () => {
    expect(() => checkOracle(`${TEXT}cut,off\n`)).toThrow('line 147: 2 cells, the header names 19');
  });
});

describe('the command', () => {
  let folder: string;
  const file = (name: string, text: string) => {
    const path = join(folder, name);
    writeFileSync(path, text);
    return path;
  };
  const run = (...args: string[]) => {
    const { status, stdout, stderr } = spawnSync(process.execPath, [CLI, ...args], { encoding: 'utf8' });
    return { status, lines: stdout.trimEnd().split('\n'), stderr };
  };

  beforeAll(() => {
    folder = mkdtempSync(join(tmpdir(), 'granary-oracle-'));
  });
  afterAll(() => rmSync(folder, { recursive: true, force: true }));

  it('checks the recorded table without an argument', () => {
    expect(run()).toEqual({ status: 0, lines: ['145 rows agree, 0 differ'], stderr: '' });
  });

  it('prints what differs and exits with 1', () => {
    const path = file(
      'altered.csv',
      altered('task_group', 'objs_per_slab', '24', altered('filp', 'order', '3')),
    );
    expect(run(path)).toEqual({
      status: 1,
      lines: [
        `task_group (line ${lineOf('task_group')}): objs_per_slab expected 24, got 23`,
        `filp (line ${lineOf('filp')}): order expected 3, got 0`,
        '143 rows agree, 2 differ',
      ],
      stderr: '',
    });
  });

  it('takes the number of CPUs', () => {
    expect(run('--cpus', '64', FILE).status).toBe(1);
    expect(run('--cpus', '3', FILE).status).toBe(0);
  });

  it('exits with 2 when the input is not usable', () => {
    const absent = join(folder, 'absent.csv');
    expect(run(absent)).toMatchObject({
      status: 2,
      stderr: expect.stringContaining(`cannot read ${absent}`),
    });
    const columns = file('columns.csv', TEXT.replace('min_partial', 'partial'));
    expect(run(columns)).toMatchObject({
      status: 2,
      stderr: `oracle:layout: ${columns}: line 1: missing columns: min_partial\n`,
    });
    const cell = file('cell.csv', altered('filp', 'align', '64b'));
    expect(run(cell)).toMatchObject({
      status: 2,
      stderr: `oracle:layout: ${cell}: line ${lineOf('filp')}, column align: expected a whole number, got '64b'\n`,
    });
    const header = file('header.csv', `${TEXT.split('\n')[0]}\n\n`);
    expect(run(header)).toMatchObject({
      status: 2,
      stderr: `oracle:layout: ${header}: no rows behind the header: there is nothing to compare\n`,
    });
    expect(run('--cpus', 'two')).toMatchObject({
      status: 2,
      stderr: expect.stringMatching(/--cpus.*must be a whole number from 1 to 8192/),
    });
    expect(run(FILE, FILE).status).toBe(2);
    expect(run('--unknown').status).toBe(2);
  });
});
