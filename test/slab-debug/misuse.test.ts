/** The calls of the corruption matrix with other checks than those of its columns, and by another thread. */
import { Worker } from 'node:worker_threads';
import { describe, expect, it } from 'vitest';
import { SlabBugError } from '#src/index.js';
import { expectSound } from '../cache/support/arena.js';
import { CALLS, MISUSE } from './matrix/calls.js';
import { runCase } from './matrix/run.js';
import { COLUMN_NAMES, COLUMNS, LAYOUTS, setScene } from './matrix/scene.js';

const LAYOUT = LAYOUTS[3]!;

describe.each([
  ['plain, checked exactly', 'plain', { check: 'full' }],
  ['F', 'debug', { slabDebug: 'F,victim*', check: 'full' }],
  ['plain, without sheaves', 'plain', { layer: 'none' }],
  ['hardened, on cpu slabs', 'hardened', { layer: 'cpu-slab' }],
] as const)('%s', (_name, column, options) => {
  it.each(CALLS.map((test) => [test.name, test] as const))('%s', (_what, test) =>
    runCase(test, column, LAYOUT, options),
  );
});

describe('without allocated-state, found by the checks of F', () => {
  const FOUND = MISUSE.filter(([what]) =>
    /^double free (at once|of one freed|after)|into an object$|NULL|below|behind/.test(what),
  );
  it.each(FOUND)('%s', (_what, kind, call) => {
    const scene = setScene('debug', LAYOUT, { slabDebug: 'F,victim', check: 'none' });
    const expected =
      kind === 'misaligned' ? 'invalid-pointer' : kind === 'invalid-pointer' ? 'not-a-slab' : kind;
    expect(() => call(scene)).toThrow(expect.objectContaining({ kind: expected }));
    expect(scene.cache.debug.errors).toBe(2);
    expect(scene.cache.debug.validate().errors).toBe(0);
  });
});

/** Frees each address that it is sent, and says as what that was refused. */
const FREER = `
  const { Arena } = await import(${JSON.stringify(import.meta.resolve('#src/index.js'))});
  const { parentPort, workerData } = await import('node:worker_threads');
  const arena = Arena.attach(workerData.handle);
  arena.online();
  arena.onSlabReport(() => {});
  const cache = arena.openCache('victim');
  parentPort.postMessage(workerData.objects.map((p) => {
    try {
      cache.free(p);
      return 'freed';
    } catch (error) {
      return error.kind;
    }
  }));
  arena.offline();`;

describe.each(COLUMN_NAMES)('by another thread, %s', (column) => {
  it('double free, of what this thread has freed and of what itself has freed', async () => {
    const scene = setScene(column, LAYOUT, COLUMNS[column]);
    const { arena, cache, p, free, objects } = scene;
    const own = objects.find((q) => q !== p && q !== free)!;
    scene.endTurns();
    const url = new URL(`data:text/javascript,${encodeURIComponent(FREER)}`);
    const workerData = { handle: arena.handle, objects: [free, p, p, own + 8] };
    const worker = new Worker(url, { workerData, execArgv: [] });
    const exited = new Promise((resolve) => worker.once('exit', resolve));
    const said = await new Promise((resolve, reject) =>
      worker.once('message', resolve).once('error', reject),
    );
    await exited;
    expect(said).toEqual(['double-free', 'freed', 'double-free', 'misaligned']);
    expect(() => cache.free(p), 'of what the other has freed').toThrow(SlabBugError);
    const refused = column === 'debug' ? 4 : 0;
    expect(cache.debug.errors).toBe(2 * refused);
    if (column === 'debug') expect(cache.debug.validate().errors).toBe(0);
    cache.free(own);
    scene.endTurns();
    expectSound(arena);
  });
});
