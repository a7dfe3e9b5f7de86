import { readdirSync } from 'node:fs';
import { relative } from 'node:path';
import { rolldown } from 'rolldown';

// Every module stays an entry under its own name (dist/src/cache/index.js), so that tests and workers reach each
// layer; but all code of the core lies in dist/chunks. A thread loads two files, not two hundred, and
// V8 sees the constants of all layers in one scope.
const sources = ['src', 'workers', 'bench'].flatMap((folder) =>
  readdirSync(folder, { recursive: true }).map((file) => `${folder}/${file}`),
);
const entries = sources.filter((file) => file.endsWith('.ts')).map((file) => [file.slice(0, -3), file]);

const below = (pattern) => (id) => pattern.test(relative('.', id));

const bundle = await rolldown({
  input: Object.fromEntries(entries),
  platform: 'node',
  external: /^[^./]/,
  tsconfig: 'tsconfig.json',
  resolve: { extensionAlias: { '.js': ['.ts'] } },
});

await bundle.write({
  dir: 'dist',
  sourcemap: true,
  minifyInternalExports: false,
  entryFileNames: '[name].js',
  chunkFileNames: 'chunks/[name].js',
  codeSplitting: {
    groups: [
      // A file of its own, because a stack is cut where it leaves this layer (src/sync/place.ts).
      { name: 'sync', test: below(/^src\/(struct|sync)\//), priority: 3 },
      { name: 'granary', test: below(/^src\/(?!lab|cli)/), priority: 2 },
      // What threads of the lab run, with all that it needs; without what starts and judges them.
      { name: 'jobs', test: below(/^src\/lab\/(jobs|member|stress\/stressWorker)\.ts$/), priority: 1 },
      { name: 'lab', test: below(/^src\/lab\//) },
      { name: 'litmus', test: below(/^workers\/litmus\//) },
      { name: 'peers', test: below(/^bench\/peers\//) },
    ],
  },
});
