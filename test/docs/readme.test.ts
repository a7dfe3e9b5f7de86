/** What the documents show is what the repository has: examples run, links resolve, names exist. */
import { execFile } from 'node:child_process';
import { existsSync, readdirSync, readFileSync } from 'node:fs';
import { dirname, join, normalize } from 'node:path';
import { fileURLToPath } from 'node:url';
import { promisify } from 'node:util';
import { describe, expect, it } from 'vitest';
import * as granary from '#src/index.js';

const ROOT = fileURLToPath(new URL('../../', import.meta.url));
const text = (path: string): string => readFileSync(join(ROOT, path), 'utf8');
const README = text('README.md');
const DOCUMENTS = [
  'README.md',
  'CONTRIBUTING.md',
  'CHANGELOG.md',
  'src/README.md',
  ...readdirSync(join(ROOT, 'docs'))
    .filter((name) => name.endsWith('.md'))
    .map((name) => `docs/${name}`),
];

/** Blocks whose fence says which file they are, or whose output they are. */
function blocks(kind: 'file' | 'output'): Array<{ path: string; body: string }> {
  const fence = new RegExp(`^\`\`\`\\w+ ${kind}=(\\S+)\\n([\\s\\S]*?)^\`\`\`$`, 'gm');
  return [...README.matchAll(fence)].map((match) => ({ path: match[1]!, body: match[2]! }));
}

/** What links can lead to in a page, as GitHub names it. */
function anchorsOf(page: string): string[] {
  const headings = [...page.matchAll(/^#+ (.+)$/gm)].map(([, title]) =>
    title!
      .toLowerCase()
      .replace(/[^\w\- ]/g, '')
      .replaceAll(' ', '-'),
  );
  return [...headings, ...[...page.matchAll(/<a id="([^"]+)">/g)].map(([, id]) => id!)];
}

/** Names of the options of an interface, from its source. */
function optionsOf(path: string, name: string): string[] {
  const [, body] = text(path).split(`export interface ${name} {\n`);
  return [...body!.split('\n}')[0]!.matchAll(/^ {2}(\w+)\??:/gm)].map(([, option]) => option!);
}

async function run(path: string): Promise<string> {
  const { stdout, stderr } = await promisify(execFile)(process.execPath, [join(ROOT, path)], {
    timeout: 30_000,
  });
  expect(stderr).toBe('');
  return stdout;
}

describe('the examples of the README', () => {
  it('are there, each with its output', () => {
    expect(blocks('file').map(({ path }) => path)).toEqual(['examples/two-workers.mjs']);
    expect(blocks('output').map(({ path }) => path)).toEqual(['examples/two-workers.mjs']);
  });

  it.each(blocks('file'))('$path is shown as it is', ({ path, body }) => {
    expect(body).toBe(text(path));
  });

  it.each(blocks('output'))('$path prints what is shown', async ({ path, body }) => {
    expect(await run(path)).toBe(body);
  });
});

describe('the other examples', () => {
  it('are all run here', () => {
    expect(readdirSync(join(ROOT, 'examples')).sort()).toEqual([
      'find-bugs.mjs',
      'leak.mjs',
      'piscina.mjs',
      'rcu-hash-table.mjs',
      'two-workers.mjs',
    ]);
  });

  it('piscina.mjs reads on one thread what tasks on others wrote', async () => {
    expect(await run('examples/piscina.mjs')).toBe('sum 3600, CPUs online 1, findings 0\n');
  });

  it('rcu-hash-table.mjs answers every lookup right while it grows and shrinks', async () => {
    expect(await run('examples/rcu-hash-table.mjs')).toBe(
      '2000 keys, 2000 nodes, 0 wrong answers, 0 findings\n',
    );
  });

  it('find-bugs.mjs finds the four bugs that it plants, and names their lines', async () => {
    const source = text('examples/find-bugs.mjs').split('\n');
    const lineOf = (code: string): string =>
      `find-bugs.mjs:${source.findIndex((line) => line.trim().startsWith(code)) + 1}`;
    expect((await run('examples/find-bugs.mjs')).split('\n')).toEqual([
      'BUG ticket: Object already free',
      `  allocated in ${lineOf('const ticket = ')}`,
      `  freed in ${lineOf('tickets.free(ticket)')}`,
      '  FIX ticket: Object at 0x.. not freed',
      'BUG buffer: Right Redzone overwritten',
      `  allocated in ${lineOf('const long = ')}`,
      '  FIX buffer: Restoring Right Redzone 0x..-0x..=0x..',
      '  FIX buffer: Object at 0x.. not freed',
      'BUG buffer: Poison overwritten',
      `  allocated in ${lineOf('const late = ')}`,
      `  freed in ${lineOf('buffers.free(late)')}`,
      '  FIX buffer: Restoring Poison 0x..-0x..=0x..',
      `1 ticket still allocated, from ${lineOf('tickets.alloc()')}`,
      '',
    ]);
    expect(source.filter((line) => line.includes('// BUG: ')).length).toBe(4);
  });

  it('leak.mjs names what was never freed and refuses a second free', async () => {
    expect(await run('examples/leak.mjs')).toBe(
      '2 tickets were never freed: 2 and 5\n' +
        'SlabBugError (double-free): BUG buffer: Object already free: the address\n' +
        'findings: 0\n',
    );
  });
});

describe.each(DOCUMENTS)('%s', (document) => {
  const body = text(document);

  it('links to files that exist', () => {
    const targets = [...body.matchAll(/\]\((?!https?:)([^)#\s]+)(?:#[^)]*)?\)/g)].map((match) => match[1]!);
    const missing = targets.filter(
      (path) => !existsSync(join(ROOT, normalize(join(dirname(document), path)))),
    );
    expect(missing).toEqual([]);
  });

  it('links to headings that exist', () => {
    const targets = [...body.matchAll(/\]\((?!https?:)([^)#\s]*)#([^)]+)\)/g)];
    const missing = targets.filter(([, path, anchor]) => {
      const page = path === '' ? body : text(normalize(join(dirname(document), path!)));
      return !anchorsOf(page).includes(anchor!);
    });
    expect(missing.map(([link]) => link)).toEqual([]);
  });

  it('names scripts and source files that exist', () => {
    const { scripts } = JSON.parse(text('package.json')) as { scripts: Record<string, string> };
    const named = [...body.matchAll(/npm run ([\w:]+)/g)].map((match) => match[1]!);
    expect(named.filter((name) => !(name in scripts))).toEqual([]);
    const files = [...body.matchAll(/`((?:src|workers|bench|docs|examples)\/[\w./-]+\.\w+)`/g)].map(
      (match) => match[1]!,
    );
    expect(files.filter((path) => !path.includes('NAME') && !existsSync(join(ROOT, path)))).toEqual([]);
  });

  it('calls methods that exist', () => {
    const methods = (what: { prototype: object }): string[] => {
      const names: string[] = [];
      for (let p = what.prototype; p !== Object.prototype; p = Object.getPrototypeOf(p) as object) {
        names.push(...Object.getOwnPropertyNames(p));
      }
      return names;
    };
    // The fast paths are in a class that is made for each arena.
    const arena = granary.Arena.create({ bytes: 2 << 20, cpus: 1 });
    arena.online();
    const cache = arena.createCache('some', { size: 8 }).constructor as unknown as { prototype: object };
    const known: Record<string, string[]> = {
      Arena: Object.getOwnPropertyNames(granary.Arena),
      arena: [...methods(granary.Arena), ...Object.keys(arena)],
      cache: [...methods(cache)],
    };
    const calls = [...body.matchAll(/\b(Arena|arena|cache)\.(\w+)(?=[(`])/g)];
    const unknown = calls
      .filter(([, object, name]) => !known[object!]!.includes(name!))
      .map(([call]) => call);
    expect(unknown).toEqual([]);
  });
});

describe('figures and names that are in the source as well', () => {
  it('options have the limits that the README says', () => {
    const row = (option: string): string =>
      README.split('\n').find((line) => line.startsWith(`| \`${option}\` `)) ?? '';
    expect(row('bytes')).toContain(String(granary.ARENA_BYTES_MAX));
    expect(row('cpus')).toContain(`1 to ${granary.CPUS_MAX} | 8`);
    expect(row('nodes')).toContain(`1 to ${granary.NODES_MAX}, at most \`cpus\` | 1`);
    expect(() => granary.Arena.create({ bytes: 1 << 20, maxCaches: 0 })).toThrow(/from 16 to 254/);
    expect(row('maxCaches')).toContain('16 to 254 | 200');
    expect(row('threads')).toContain(`\`cpus\` to ${granary.THREADS_MAX},`);
    const { geometry } = granary.Arena.create({ bytes: 8 << 20 });
    expect([geometry.cpus, geometry.nodes, geometry.maxCaches]).toEqual([8, 1, 200]);
  });

  it.each([
    ['Arena.create', 'src/plan.ts', 'ArenaOptions'],
    ['createCache', 'src/cache/options.ts', 'CacheOptions'],
  ])('the README has every option of %s', (call, path, name) => {
    const [, section] = README.split(`### Options of ${call}\n`);
    const cells = [...section!.split('\n### ')[0]!.matchAll(/^\| ([^|]+) \|/gm)].map(([, cell]) => cell!);
    const named = cells.flatMap((cell) => [...cell.matchAll(/`(\w+)`/g)].map(([, option]) => option!));
    const options = optionsOf(path, name);
    expect(options.length).toBeGreaterThan(10);
    expect(options.filter((option) => !named.includes(option))).toEqual([]);
    // Functions are given to defineCache only.
    const functions = ['ctor', 'ctorSlab', 'dtor', 'dtorSlab'];
    expect(named.filter((option) => ![...options, ...functions].includes(option))).toEqual([]);
  });

  it('docs/invariants.md has every invariant', () => {
    const named = [...text('docs/invariants.md').matchAll(/^\| (I\d+|[A-Z]{5,}) \|/gm)].map(
      (match) => match[1],
    );
    const numbers = named.filter((name) => /^I\d+$/.test(name!)).map((name) => Number(name!.slice(1)));
    expect(numbers).toEqual([...numbers].sort((a, b) => a - b));
    expect(named.sort()).toEqual(Object.keys(granary.INVARIANTS).sort());
  });

  it('the README has every error', () => {
    const errors = Object.keys(granary).filter((name) => name.endsWith('Error') && name !== 'GranaryError');
    expect(errors.filter((name) => !README.includes(`\`${name}\``))).toEqual([]);
  });

  it('the picture and the table of the memory layout have the regions of an arena', () => {
    const page = text('docs/memory-layout.md');
    const { geometry } = granary.Arena.create({ bytes: 64 << 20 });
    const bytes = (from: number, to: number): string => `| ${(to - from) * 4} |`;
    expect(page).toContain(
      `| 448 x threads x maxCaches | \`Pcs\` and counters ${bytes(geometry.percpu, geometry.rcu)}`,
    );
    expect(page).toContain(`\`RcuCpu\`, \`KfreeRcuCpu\` ${bytes(geometry.rcu, geometry.pcpu)}`);
    expect(page).toContain(`a pointer for each of 1024 chunks ${bytes(geometry.pcpu, geometry.memmap)}`);
    expect(page).toContain(`| \`Page\` ${bytes(geometry.memmap, geometry.shadow / 4)}`);
    expect(page).toContain(`| ${geometry.bytes / 8} |`);
    expect(page).toContain(`| ${(geometry.endPfn - geometry.firstPfn) * 4096} |`);
  });
});
