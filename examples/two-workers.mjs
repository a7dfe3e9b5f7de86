import { once } from 'node:events';
import { isMainThread, Worker, workerData } from 'node:worker_threads';
import { Arena } from 'granary';

if (isMainThread) {
  const arena = Arena.create({ bytes: 64 << 20, cpus: 3 }); // three threads at a time
  arena.online(); // this thread takes a CPU slot
  const nodes = arena.createCache('node', { size: 8 }); // word 0: next, word 1: value
  const head = arena.kzalloc(4); // the word that both workers push to
  const data = { workerData: { handle: arena.handle, head } };
  const run = () => once(new Worker(new URL(import.meta.url), data), 'exit');
  await Promise.all([run(), run()]);
  let sum = 0;
  for (let p = arena.i32[head >> 2], next = 0; p !== 0; p = next) {
    next = arena.i32[p >> 2];
    sum += arena.i32[(p >> 2) + 1];
    nodes.free(p); // allocated by a worker, freed here
  }
  console.log(`sum ${sum}, leaked ${nodes.destroy().leaked}`);
} else {
  const arena = Arena.attach(workerData.handle);
  arena.online();
  const nodes = arena.openCache('node');
  for (let value = 1; value <= 1000; value++) {
    const p = nodes.alloc(); // a byte address; 0 would mean out of memory
    arena.i32[(p >> 2) + 1] = value;
    arena.i32[p >> 2] = Atomics.exchange(arena.i32, workerData.head >> 2, p);
  }
  arena.offline();
}
