/** Where something happened, on threads whose frames are those of the built files and on those whose are of our sources. */
import { once } from 'node:events';
import { mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { Worker } from 'node:worker_threads';
import { afterAll, expect, it } from 'vitest';
import { boot } from '../cache/support/arena.js';

const MODULES = Object.fromEntries(
  ['index', 'sync/place'].map((name) => [name, new URL(`../../dist/src/${name}.js`, import.meta.url).href]),
);

/** Holds slab_mutex while another thread waits for it: both ends of the wait note where they are. */
const CODE = `
  const { workerData, parentPort } = require('node:worker_threads');
  Promise.all(Object.values(workerData.modules).map((m) => import(m))).then(([{ Arena }, { Place }]) => {
    const arena = Arena.attach(workerData.handle);
    arena.online({ thread: workerData.thread });
    function inTheWorker() { return new Place(); }
    const { caller, text } = inTheWorker();
    function makesCaches() { for (let i = 0; i < 40; i++) arena.createCache('c' + workerData.thread + i, { size: 8 }).destroy(); }
    makesCaches();
    arena.offline();
    parentPort.postMessage({ caller, text });
  });`;

const folder = mkdtempSync(join(tmpdir(), 'granary-place-'));
const file = join(folder, 'worker.cjs');
writeFileSync(file, CODE);
afterAll(() => rmSync(folder, { recursive: true }));

it.each([[[]], [['--enable-source-maps']]])(
  'is outside of locks and of structs, with %j',
  async (execArgv) => {
    const arena = boot({ bytes: 8 << 20, cpus: 3, lockStat: 'full' });
    arena.endTurn();
    const workers = [1, 2].map((thread) => {
      const workerData = { modules: MODULES, handle: arena.handle, thread };
      return new Worker(file, { execArgv, workerData });
    });
    const places = await Promise.all(
      workers.map(async (worker) => {
        const [[place]] = await Promise.all([once(worker, 'message'), once(worker, 'exit')]);
        return place as { caller: string; text: string };
      }),
    );
    for (const { caller, text } of places) {
      expect(caller).toMatch(/^inTheWorker \(granary-place-\w+\/worker\.cjs:\d+:\d+\)$/);
      expect(text).not.toMatch(/sync\/|struct\//);
    }
    const points = arena
      .lockStat()
      .flatMap(({ contentionPoints, contendedPoints }) => [...contentionPoints, ...contendedPoints]);
    for (const point of points)
      expect(JSON.stringify(point)).not.toMatch(/(?:sync|struct)\/\w+\.(?:ts|js):|new Place/);
  },
);
