/** Every command: --help ends well, and what cannot be asked for is refused in one line, with status 2. */
import { execFile } from 'node:child_process';
import { readFileSync } from 'node:fs';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { describe, expect, it } from 'vitest';

const ROOT = fileURLToPath(new URL('../..', import.meta.url));
const { scripts, bin, version } = JSON.parse(readFileSync(join(ROOT, 'package.json'), 'utf8')) as {
  scripts: Record<string, string>;
  bin: Record<string, string>;
  version: string;
};

interface Ended {
  status: number;
  stdout: string;
  stderr: string;
}

function run(file: string, args: readonly string[]): Promise<Ended> {
  return new Promise((resolve) => {
    const options = { cwd: ROOT, encoding: 'utf8', timeout: 60_000 } as const;
    execFile(process.execPath, [file, ...args], options, (error, stdout, stderr) =>
      resolve({ status: error === null ? 0 : Number(error.code ?? -1), stdout, stderr }),
    );
  });
}

const programOf = (script: string): string | undefined => / node (dist\/\S+)/.exec(scripts[script]!)?.[1];
const NAMES = Object.keys(scripts).filter((name) => name !== 'start' && programOf(name) !== undefined);
const granary = bin.granary!;
const TRACE = 'bench/traces/git.ftrace.txt.gz';

/** What is wrong for each, and which words the line must have: the option, the value, what is right. */
const WRONG: Record<string, Array<[args: string[], line: RegExp]>> = {
  'oracle:layout': [
    [['--cpus', '0'], /--cpus <n>' argument '0' is invalid\. It must be a whole number from 1 to 8192\./],
    [['absent.csv'], /^oracle:layout: cannot read absent\.csv: ENOENT/],
    [['a', 'b'], /Expected 1 argument but got 2/],
  ],
  'oracle:merge': [[['absent.csv'], /^oracle:merge: cannot read absent\.csv: ENOENT/]],
  stress: [
    [
      ['--threads', '61'],
      /--threads <n>' argument '61' is invalid\. It must be a whole number from 1 to 60\./,
    ],
    [['--layer', 'x'], /--layer <name>' argument 'x' is invalid\. Allowed choices are sheaves, percpu-array/],
  ],
  fuzz: [
    [['--calls', '1.5'], /--calls <n>' argument '1\.5' is invalid\. It must be a whole number from 1 to /],
    [
      ['--seed', '-1'],
      /--seed <n>' argument '-1' is invalid\. It must be a whole number from 0 to 4294967295\./,
    ],
    [['--limit', '0'], /--limit <s>' argument '0' is invalid\. It must be a whole number from 1 to 86400\./],
  ],
  bench: [
    [['--suite', '('], /^bench: --suite takes a regular expression, got "\("/],
    [['--suite', '--json'], /^bench: .*'--suite/],
    [['--suite', 'nothing'], /^bench: --suite nothing matches no case/],
  ],
  'bench:peers': [
    [['--rounds', '0'], /^bench:peers: --rounds takes a whole number from 1 to 10000, got "0"/],
    [['--filter', '('], /^bench:peers: --filter takes a regular expression, got "\("/],
    [['--filter', 'nothing'], /^bench:peers: --filter .*nothing.* matches none of pair, batch-16/],
  ],
  'bench:growth': [
    [['--rounds', '14'], /argument '14' is invalid\. It must be a whole number from 15 to 10000\./],
  ],
  'bench:rcu': [
    [['--rounds', 'x'], /argument 'x' is invalid\. It must be a whole number from 15 to 10000\./],
  ],
  'bench:accounting': [
    [['--rounds', ''], /argument '' is invalid\. It must be a whole number from 15 to 10000\./],
  ],
  'bench:maple': [
    [['--rounds', '4'], /argument '4' is invalid\. It must be a whole number from 5 to 10000\./],
  ],
};

/** In the user's numbers: the lab's own thread, which is one more, is nobody's. */
const GRANARY_WRONG: Array<[args: string[], line: RegExp]> = [
  [
    ['study', '--threads', '65'],
    /--threads <list>' argument '65' is invalid\. It must be a whole number from 1 to 64\./,
  ],
  [
    ['replay', TRACE, '--cpus', '65'],
    /--cpus <n>' argument '65' is invalid\. It must be a whole number from 1 to 64\./,
  ],
  [
    ['replay', TRACE, '--nodes', '2'],
    /^granary: nodes is 2, more than cpus, 1; each node has at least one CPU\n/,
  ],
  [
    ['info', '--cpus', '2', '--nodes', '3'],
    /^granary: nodes is 3, more than cpus, 2; each node has at least one CPU\n/,
  ],
  [
    ['info', '--threads', '8'],
    /^granary: threads is 8, more than cpus, 2, and the policy is 'turn', .*only with policy 'op'\n/,
  ],
  [
    ['replay', TRACE, '--cpus', '3', '--bytes', '64k'],
    /^granary: bytes is 65536; with 3 threads and the main thread it must be at least \d+\n/,
  ],
  [
    ['info', '--cpus', '1', '--bytes', '64k'],
    /^granary: bytes is 65536; with 1 thread and the main thread it must be at least \d+\n/,
  ],
  [['experiment', 'nothing'], /^granary: no experiment is named "nothing"; there are layers, /],
  [
    ['experiment', 'layers', '--threads', '1,x'],
    /--threads <list>' argument '1,x' is invalid\. It must be a whole number/,
  ],
  [['stduy'], /^error: unknown command 'stduy' \(Did you mean study\?\) \(granary --help\)\n/],
];

async function refuses(file: string, args: readonly string[], line: RegExp): Promise<void> {
  const { status, stdout, stderr } = await run(file, args);
  expect({ status, stdout }).toEqual({ status: 2, stdout: '' });
  expect(stderr).toMatch(/^[^\n]+\n$/);
  expect(stderr).toMatch(line);
}

it('every command of package.json is in this table', () => {
  expect(NAMES.sort()).toEqual(Object.keys(WRONG).sort());
  expect(programOf('start')).toBe(granary.replace('./', ''));
  expect(Object.keys(bin)).toEqual(['granary']);
});

describe.concurrent('npm run', () => {
  it.each(Object.keys(WRONG))('%s -- --help says how it is called, and ends with status 0', async (name) => {
    const { status, stdout, stderr } = await run(programOf(name)!, ['--help']);
    expect({ status, stderr }).toEqual({ status: 0, stderr: '' });
    expect(stdout).toMatch(new RegExp(`^usage: npm run ${name} -- \\[options\\]`, 'i'));
    expect(stdout).toMatch(/^ {2}-h, --help /m);
  });

  it.each(Object.keys(WRONG))('%s refuses an option that it has not', async (name) => {
    await refuses(programOf(name)!, ['--bogus'], /unknown option '--bogus'/i);
  });

  it.each(Object.entries(WRONG).flatMap(([name, all]) => all.map(([args, line]) => ({ name, args, line }))))(
    '$name $args is refused',
    async ({ name, args, line }) => refuses(programOf(name)!, args, line),
  );
});

describe.concurrent('granary', () => {
  it.each(['study', 'experiment', 'replay', 'info'])('%s refuses an option that it has not', async (name) => {
    const hint = new RegExp(`^error: unknown option '--bogus' \\(granary ${name} --help\\)\n`);
    await refuses(granary, [name, '--bogus'], hint);
  });

  it.each(GRANARY_WRONG)('%j is refused', async (args, line) => refuses(granary, args, line));

  it('prints its version, and has it in the help', async () => {
    const outputs = await Promise.all([['--version'], ['-V'], ['--help']].map((args) => run(granary, args)));
    expect(outputs.map(({ status }) => status)).toEqual([0, 0, 0]);
    expect(outputs[0]!.stdout).toBe(`${version}\n`);
    expect(outputs[1]!.stdout).toBe(`${version}\n`);
    expect(outputs[2]!.stdout).toMatch(new RegExp(`^granary ${version}\n`));
    expect(outputs[2]!.stdout).toMatch(/-V, --version +print the version/);
  });
});
