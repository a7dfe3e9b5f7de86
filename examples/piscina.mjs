// Eight tasks on two threads of a piscina pool fill buffers in one arena; the caller reads and frees them.
import { isMainThread, threadId } from 'node:worker_threads';
import { Arena } from 'granary';
import { Piscina } from 'piscina';

let arena; // once per thread: attach compiles the fast path for this arena

/** The task: allocates `length` words, fills them, returns their address. */
export default function fill({ handle, length, value }) {
  arena ??= Arena.attach(handle);
  arena.online({ tid: threadId });
  try {
    const p = arena.kmalloc(length * 4);
    if (p === 0) throw new Error('the arena is out of memory');
    arena.i32.fill(value, p >> 2, (p >> 2) + length);
    return p;
  } finally {
    arena.offline(); // flushes this thread's sheaves and frees its CPU slot
  }
}

if (isMainThread) {
  arena = Arena.create({ bytes: 64 << 20, cpus: 3 }); // two threads and this one
  arena.online();
  const pool = new Piscina({ filename: import.meta.url, minThreads: 2, maxThreads: 2 });
  const { handle } = arena;
  const tasks = Array.from({ length: 8 }, (_, i) => pool.run({ handle, length: 100, value: i + 1 }));
  let sum = 0;
  for (const p of await Promise.all(tasks)) {
    for (let i = 0; i < 100; i++) sum += arena.i32[(p >> 2) + i];
    arena.kfree(p);
  }
  await pool.destroy();
  console.log(`sum ${sum}, CPUs online ${arena.onlineCpus.length}, findings ${arena.validate().length}`);
}
