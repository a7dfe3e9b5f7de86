import { spawnSync } from 'node:child_process';
import { mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { afterAll, describe, expect, it } from 'vitest';
import { LONG } from '../cache/support/arena.js';

const ROOT = fileURLToPath(new URL('../..', import.meta.url));
const MAIN = join(ROOT, 'dist/src/cli/main.js');
const TRACE = join(ROOT, 'bench/traces/git.ftrace.txt.gz');
const directory = mkdtempSync(join(tmpdir(), 'granary-cli-'));
afterAll(() => rmSync(directory, { recursive: true }));

function run(file: string, args: readonly string[]) {
  const { status, stdout, stderr } = spawnSync(process.execPath, [file, ...args], {
    encoding: 'utf8',
    cwd: ROOT,
  });
  return { status, stdout, stderr };
}
const granary = (...args: string[]) => run(MAIN, args);

function fileWith(name: string, content: string | Uint8Array): string {
  const path = join(directory, name);
  writeFileSync(path, content);
  return path;
}

describe('help', () => {
  it.each(['study', 'experiment', 'replay', 'info'])('of %s has examples and exit statuses', (command) => {
    const { status, stdout, stderr } = granary(command, '--help');
    expect({ status, stderr }).toEqual({ status: 0, stderr: '' });
    expect(stdout).toMatch(/^Usage: granary /);
    expect(stdout).toContain(`\n  granary ${command}`);
    expect(stdout).toContain('Exit status: 0');
  });

  it('of the whole lists the commands', () => {
    const { status, stdout } = granary('--help');
    expect(status).toBe(0);
    for (const command of ['study', 'experiment', 'replay', 'info'])
      expect(stdout).toMatch(new RegExp(`^ {2}${command} `, 'm'));
  });
});

/** Each starts a process of its own: GRANARY_LONG=1 tries these as well. */
const MORE_WRONG: Array<[string[], RegExp]> = [
  [['study', '--workloads', '('], /It must be a regular expression/],
  [['replay', TRACE, '--policy', 'x'], /Allowed choices are turn, op/],
  [['experiment', 'layers', '--rounds', '0'], /must be a whole number from 1 to 10000/],
  [['experiment', 'layers', '--workloads', 'x^'], /^granary: workloads is .* matches none of pair, /],
  [['info', '--bytes', 'many'], /It must be a size like/],
  [['info', '--threads', '1'], /^granary: threads is 1; it must be an integer from 2 to 64\n$/],
];

describe('wrong options', () => {
  it.each([
    [[], /Usage: granary/],
    [['bogus'], /unknown command 'bogus'/],
    [
      ['study', '--workloads', 'nothing'],
      /^granary: workloads is \/nothing\/; it matches none of pair, .*\n$/,
    ],
    [['replay'], /missing required argument 'file'/],
    ...(LONG ? MORE_WRONG : []),
  ])('%j end with status 2 and a reason', (args, reason) => {
    const { status, stdout, stderr } = granary(...args);
    expect({ status, stdout }).toEqual({ status: 2, stdout: '' });
    expect(stderr).toMatch(reason);
    expect(stderr).not.toMatch(/^ +at /m);
  });
});

describe('replay', () => {
  it('prints one JSON object that tells a sound replay', () => {
    const { status, stdout, stderr } = granary('replay', TRACE, '--cpus', '2', '--rounds', '2', '--json');
    expect({ status, stderr }).toEqual({ status: 0, stderr: '' });
    const report = JSON.parse(stdout) as Record<string, never>;
    expect(report).toMatchObject({
      events: 45305,
      allocs: 24663,
      frees: 20440,
      implicitFrees: 2097,
      liveAtEnd: 2126,
      percpuAllocs: 101,
      replayedPercpuAllocs: 101,
      replayedPercpuFrees: 101,
    });
    expect(report).toMatchObject({
      lost: 0,
      findings: [],
      problems: [],
      cookieErrors: 0,
      failures: 0,
      cpus: 2,
    });
    expect(report.crossCpuFrees).toBeGreaterThan(0);
    expect(report.eventsPerSecond).toBeGreaterThan(0);
    expect(report.perRound).toHaveLength(2);
    const { objectsBefore, objectsAfter } = report.memory as Record<string, unknown>;
    expect(objectsAfter).toEqual(objectsBefore);
  });

  it('prints counts, caches, memory and locks', () => {
    const { status, stdout } = granary('replay', TRACE, '--rounds', '1', '--policy', 'op', '--check', 'full');
    expect(status).toBe(0);
    for (const line of [
      /^events +45305 on 2 CPUs/m,
      /^speed .* events\/s/m,
      /^memory /m,
      /^names_cache +4096/m,
    ]) {
      expect(stdout).toMatch(line);
    }
    expect(stdout).toMatch(/^cpu_sheaves->lock +0 /m);
    expect(stdout).toMatch(/^sound +0 objects lost, 0 findings of validate\n$/m);
  });

  it('says when the arena is too small, with status 1', () => {
    const { status, stdout } = granary('replay', TRACE, '--rounds', '1', '--bytes', '1500k');
    expect(status).toBe(1);
    expect(stdout).toMatch(/^UNSOUND +allocations failed: the arena is too small for this trace$/m);
  });

  it.each([
    ['missing', () => join(directory, 'absent'), /absent: no such file/],
    ['a directory', () => directory, /is a directory/],
    ['empty', () => fileWith('empty', ''), /empty: is empty/],
    [
      'truncated',
      () => fileWith('cut.gz', readFileSync(TRACE).subarray(0, 100_000)),
      /cut\.gz:\d+: .*truncated/,
    ],
    ['no trace', () => fileWith('text', 'hello\nworld\n'), /text:1: not a trace: .*found "hello"/],
    [
      'binary',
      () =>
        fileWith(
          'binary',
          Uint8Array.from({ length: 5000 }, (_, i) => i % 251),
        ),
      /not a trace/,
    ],
  ])('refuses a file that is %s in one line, with status 2', (_, file, reason) => {
    const { status, stdout, stderr } = granary('replay', file());
    expect({ status, stdout }).toEqual({ status: 2, stdout: '' });
    expect(stderr).toMatch(/^granary: [^\n]+\n$/);
    expect(stderr).toMatch(reason);
  });
});

describe('info', () => {
  it('prints what is in an arena, and lock statistics as the kernel does when asked', () => {
    const { status, stdout } = granary('info', '--bytes', '16m', '--locks');
    expect(status).toBe(0);
    expect(stdout).toContain('lock_stat version 0.4\n');
    expect(stdout).toMatch(/^ +n->list_lock: +\d+ +\d+ +\d+\.\d\d /m);
    expect(stdout).toMatch(/^ +Name +acquired +contended +avg wait +total wait +max wait +min wait$/m);
    expect(stdout).toContain('slabinfo - version: 2.1');
    expect(stdout).toMatch(/^MemUsedMax: +\d+ kB$/m);
    expect(stdout).toMatch(/^ALLOC_FASTPATH +\d+$/m);
    expect(stdout).toContain('validate: 0 findings\n');
    // The lab's threads have source maps: a caller is whoever took the lock there, too.
    expect(stdout).not.toMatch(/(?:sync|struct)\/\w+\.(?:ts|js):\d+:\d+\) of /);
    expect(stdout).toMatch(/^ contended +total wait +max wait +avg wait +type +(caller|symbol)$/m);
  });

  it('prints it as JSON, with what came of CPUs that are shared', () => {
    const shape = ['--policy', 'op', '--cpus', '2', '--nodes', '2', '--threads', '5'];
    const { status, stdout } = granary('info', ...shape, '--json');
    expect(status).toBe(0);
    const report = JSON.parse(stdout) as {
      caches: Array<Record<string, number>>;
      meminfo: { nodes: unknown[] };
    };
    expect(report).toMatchObject({ cpus: 2, nodes: 2, threads: 5, locks: [], findings: [], problems: [] });
    expect(report.meminfo.nodes).toHaveLength(2);
    for (const cache of report.caches) {
      for (const item of ['trylockFailures', 'allocBypasses', 'freeBypasses'])
        expect(cache[item]).toBeGreaterThanOrEqual(0);
    }
  });
});

describe('study', () => {
  it('prints one JSON object and writes the same to a file', () => {
    const out = join(directory, 'study.json');
    const args = [
      '--seconds',
      '2',
      '--threads',
      '1',
      '--workloads',
      '^(pair|mixed)$',
      '--seed',
      '3',
      '--json',
    ];
    const { status, stdout, stderr } = granary('study', ...args, '--out', out);
    expect({ status, stderr }).toEqual({ status: 0, stderr: '' });
    const result = JSON.parse(stdout) as { rows: unknown[] };
    expect(result).toMatchObject({
      schemaVersion: 1,
      seed: 3,
      sound: true,
      environment: { node: process.version },
    });
    expect(result.rows).toHaveLength(4);
    expect(JSON.parse(readFileSync(out, 'utf8'))).toEqual(result);
  });
});

describe('npm run bench', () => {
  it('times a case with tinybench', () => {
    const { status, stdout } = run(join(ROOT, 'dist/bench/main.js'), [
      '--quick',
      '--json',
      '--suite',
      '^pair: pair, 1',
    ]);
    expect(status).toBe(0);
    const { results } = JSON.parse(stdout) as {
      results: Array<{ name: string; state: string; latency: { p50: number } }>;
    };
    expect(results.map(({ name }) => name)).toEqual([
      'pair: pair, 1 thread, turn, check free',
      'pair: pair, 1 thread, op, check free',
    ]);
    for (const { state, latency } of results) {
      expect(state).toBe('completed');
      expect(latency.p50 * 1e6).toBeGreaterThan(1);
      expect(latency.p50 * 1e6).toBeLessThan(100_000);
    }
  });

  it('refuses what it does not know', () => {
    const { status, stderr } = run(join(ROOT, 'dist/bench/main.js'), ['--suite', 'nothing']);
    expect({ status, stderr }).toEqual({ status: 2, stderr: 'bench: --suite nothing matches no case\n' });
  });
});
