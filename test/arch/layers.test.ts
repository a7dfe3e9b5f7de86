/** The shape of the program, read from its source: who imports whom, and what may be named where. */
import { readdirSync, readFileSync } from 'node:fs';
import { dirname, join, normalize } from 'node:path';
import { fileURLToPath } from 'node:url';
import { describe, expect, it } from 'vitest';

const ROOT = fileURLToPath(new URL('../../', import.meta.url));

/** From the bottom to the top: a layer may import only from those before it. */
const LAYERS = [
  'struct',
  'sync',
  'cpu',
  'page',
  'rcu',
  'slab',
  'sheaf',
  'cache',
  'percpu',
  'view',
  'maple',
  'mm',
  'debug',
  'observe',
  '',
  'lab',
  'cli',
];
const CORE = LAYERS.slice(0, LAYERS.indexOf('') + 1);

interface Source {
  path: string;
  layer: string;
  text: string;
  imports: string[];
}

function filesUnder(folder: string): string[] {
  return readdirSync(join(ROOT, folder), { recursive: true, encoding: 'utf8' })
    .filter((name) => name.endsWith('.ts'))
    .map((name) => join(folder, name))
    .sort();
}

/** Every module that a source names in an import or a re-export, static or dynamic. */
function importsOf(text: string): string[] {
  const pattern = /\b(?:import|export)\b[^'";]*?\bfrom\s*'([^']+)'|\bimport\s*\(?\s*'([^']+)'/g;
  return [...text.matchAll(pattern)].map((match) => (match[1] ?? match[2])!);
}

function read(path: string): Source {
  const text = readFileSync(join(ROOT, path), 'utf8');
  const folder = path.split('/').slice(1, -1);
  return { path, layer: folder[0] ?? '', text, imports: importsOf(text) };
}

const sources = filesUnder('src').map(read);
const core = sources.filter(({ layer }) => CORE.includes(layer));

/** What is wrong with one import, or undefined. */
function importFault(path: string, imported: string): string | undefined {
  if (!imported.startsWith('.')) return undefined;
  const from = path.split('/').slice(1, -1)[0] ?? '';
  const target = normalize(join(dirname(path), imported));
  const parts = target.split('/').slice(1);
  const to = parts.length > 1 ? parts[0]! : '';
  // The lab starts workers and shares the types of their tasks.
  if (target.startsWith('workers/') && !CORE.includes(from)) return undefined;
  if (!target.startsWith('src/')) return `${path}: ${imported} lies outside src`;
  if (from === to) return undefined;
  if (LAYERS.indexOf(to) > LAYERS.indexOf(from))
    return `${path}: ${from || 'src'} must not import from ${to || 'src'}`;
  const hidden = to !== '' && CORE.includes(to) && parts.slice(1).join('/') !== 'index.js';
  return hidden ? `${path}: ${imported} is not the index.js of ${to}` : undefined;
}

describe('the layers of src', () => {
  it('are all known', () => {
    const unknown = sources.filter(({ layer }) => !LAYERS.includes(layer)).map(({ path }) => path);
    expect(unknown).toEqual([]);
    expect(core.length).toBeGreaterThan(40);
  });

  it('import only downwards, through the index of the other layer', () => {
    const faults = sources.flatMap(({ path, imports }) => imports.map((name) => importFault(path, name)));
    expect(faults.filter((fault) => fault !== undefined)).toEqual([]);
  });

  it('need no Node.js up to the facade: the core runs in a browser', () => {
    const named = core.flatMap(({ path, imports }) =>
      imports.filter((name) => !name.startsWith('.')).map((name) => `${path}: ${name}`),
    );
    expect(named).toEqual([]);
    const globals = core.filter(({ text }) =>
      /\b(?:process|Buffer|require|__dirname)\s*[.(]/.test(withoutComments(text)),
    );
    expect(globals.map(({ path }) => path)).toEqual([]);
  });

  it('name Atomics in one file, so that every ordering is found by searching for the wrappers', () => {
    const all = [...sources, ...filesUnder('workers').map(read), ...filesUnder('bench').map(read)];
    const named = all.filter(({ text }) => /\bAtomics\s*[.[]/.test(text)).map(({ path }) => path);
    expect(named).toEqual(['src/sync/atomic.ts']);
  });

  it('use no growable buffers, which are 30 times slower', () => {
    const named = sources.filter(({ text }) => text.includes('maxByteLength')).map(({ path }) => path);
    // The fuzzer makes some, to see them refused.
    expect(named).toEqual(['src/lab/fuzz/values.ts']);
  });
});

function withoutComments(text: string): string {
  return text.replace(/\/\*[\s\S]*?\*\//g, '').replace(/\/\/.*/g, '');
}

describe('files', () => {
  it.each(['src', 'workers'])('of %s have at most 400 lines', (folder) => {
    const long = filesUnder(folder)
      .map((path) => ({ path, lines: readFileSync(join(ROOT, path), 'utf8').split('\n').length - 1 }))
      .filter(({ lines }) => lines > 400);
    expect(long).toEqual([]);
  });
});

/** `L1  what is so`, in a list at the head of a file: the labels that the comments and documents then name. */
function factsIn(text: string): string[] {
  return [...text.matchAll(/^ \* {2}([A-Z]{1,2}\d) {2}\S/gm)].map((match) => match[1]!);
}

/** Labels that more than one fact has, each with the files. */
function sharedLabels(files: readonly Pick<Source, 'path' | 'text'>[]): string[] {
  const places = new Map<string, string[]>();
  for (const { path, text } of files) {
    for (const label of factsIn(text)) places.set(label, [...(places.get(label) ?? []), path]);
  }
  return [...places].filter(([, at]) => at.length > 1).map(([label, at]) => `${label}: ${at.join(', ')}`);
}

describe('numbered facts', () => {
  it('have labels of their own', () => {
    const all = [...sources, ...filesUnder('workers').map(read), ...filesUnder('bench').map(read)];
    expect(all.flatMap(({ text }) => factsIn(text)).length).toBeGreaterThan(50);
    expect(sharedLabels(all)).toEqual([]);
  });

  it('are found wherever they stand in a comment, and a reference is none', () => {
    const text =
      '/**\n * Head.\n *\n *  AB1  One, which\n *       B1  goes on.\n *  B2  Two.\n */\n// B2\n/** B2. */\n';
    expect(factsIn(text)).toEqual(['AB1', 'B2']);
    const other = { path: 'b.ts', text: ' *  B2  Another.\n' };
    expect(sharedLabels([{ path: 'a.ts', text }, other])).toEqual(['B2: a.ts, b.ts']);
  });
});

describe('the reading of imports itself', () => {
  it('sees every form', () => {
    const text = `import a from './a.js';\nimport {\n  b,\n} from '../x/b.js';\nexport * from './c.js';\nimport 'node:fs';
      export type { D } from './d.js';\nconst e = await import('./e.js');\nimport type { F } from '../f/f.js';`;
    expect(importsOf(text)).toEqual([
      './a.js',
      '../x/b.js',
      './c.js',
      'node:fs',
      './d.js',
      './e.js',
      '../f/f.js',
    ]);
  });

  it('finds an import upwards, past an index, and out of src', () => {
    expect(importFault('src/page/zone.ts', '../sync/index.js')).toBeUndefined();
    expect(importFault('src/page/zone.ts', './page.js')).toBeUndefined();
    expect(importFault('src/arena.ts', './cache/index.js')).toBeUndefined();
    expect(importFault('src/page/zone.ts', '../slab/index.js')).toContain('page must not import from slab');
    expect(importFault('src/cache/create.ts', '../arena.js')).toContain('cache must not import from src');
    expect(importFault('src/cache/create.ts', '../page/buddy.js')).toContain('not the index.js of page');
    expect(importFault('src/arena.ts', '../workers/x.js')).toContain('outside src');
    expect(importFault('src/lab/team.ts', '../../workers/x.js')).toBeUndefined();
  });
});
