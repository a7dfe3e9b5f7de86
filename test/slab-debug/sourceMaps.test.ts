/** Stacks of threads whose frames are those of our sources. */
import { once } from 'node:events';
import { Worker } from 'node:worker_threads';
import { expect, it } from 'vitest';
import { boot, expectSound } from '../cache/support/arena.js';

const CODE = `
  const { workerData } = require('node:worker_threads');
  import(workerData.module).then(({ Arena }) => {
    const arena = Arena.attach(workerData.handle);
    arena.online();
    function inTheWorker() { return arena.openCache('c').alloc(); }
    inTheWorker();
    arena.offline();
    process.exit();
  });`;

it.each([[[]], [['--enable-source-maps']]])('leave out the allocator, with %j', async (execArgv) => {
  const arena = boot({ slabDebug: 'U,c' });
  const cache = arena.createCache('c', { size: 64 });
  const module = new URL('../../dist/src/index.js', import.meta.url).href;
  await once(
    new Worker(CODE, { eval: true, execArgv, workerData: { module, handle: arena.handle } }),
    'exit',
  );
  const [group] = cache.debug.allocTraces();
  expect(group!.stack[0]).toMatch(/^at inTheWorker \(\[worker eval\]/);
  expect(group!.stack.join('\n')).not.toMatch(/src\/(debug|slab|cache)\//);
  expectSound(arena);
});
