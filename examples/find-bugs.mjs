// Two threads and four bugs. One switch finds them: slabDebug.
import { once } from 'node:events';
import { isMainThread, Worker, workerData } from 'node:worker_threads';
import { Arena } from 'granary';

if (isMainThread) {
  const arena = Arena.create({ bytes: 64 << 20, cpus: 2, slabDebug: 'FZPU,ticket,buffer' }); // the switch
  arena.online();
  arena.onSlabReport((report) => show(report));
  const tickets = arena.createCache('ticket', { size: 32 });
  const buffers = arena.createCache('buffer', { size: 100 });

  const mail = new Int32Array(new SharedArrayBuffer(12)); // addresses from the other thread
  const worker = new Worker(new URL(import.meta.url), { workerData: { handle: arena.handle, mail } });
  await once(worker, 'exit');
  const [twice, long, late] = mail;

  try {
    tickets.free(twice); // BUG: the other thread has freed it
  } catch {}
  buffers.free(long); // not a bug: here it is found that somebody wrote too far
  buffers.free(late);
  arena.u8[late + 7] = 1; // BUG: it was freed in the line above
  buffers.debug.validate();

  for (const { count, stack } of tickets.debug.allocTraces()) {
    console.log(`${count} ticket still allocated, from ${line(stack)}`);
  }
} else {
  const arena = Arena.attach(workerData.handle);
  arena.online();
  const tickets = arena.openCache('ticket');
  const buffers = arena.openCache('buffer');
  tickets.alloc(); // BUG: nobody frees it
  const ticket = tickets.alloc();
  const long = buffers.alloc();
  const late = buffers.alloc();
  arena.u8.fill(0x20, long, long + 101); // BUG: the buffer has 100 bytes
  tickets.free(ticket);
  workerData.mail.set([ticket, long, late]);
  arena.offline();
}

/** What a report says in one line; report.text has all of it, as a kernel would print it. */
function show({ kind, cache, what, object }) {
  if (kind !== 'bug') return console.log(`  FIX ${cache}: ${what.replace(/0x[0-9a-f]+/g, '0x..')}`);
  console.log(`BUG ${cache}: ${what.replace(/: 0x.*/, '')}`);
  if (object?.allocated) console.log(`  allocated in ${line(object.allocated.stack)}`);
  if (object?.freed) console.log(`  freed in ${line(object.freed.stack)}`);
}

/** The innermost line of this file in a stack. */
function line(stack) {
  return /find-bugs\.mjs:\d+/.exec(stack.join('\n'))?.[0] ?? 'somewhere';
}
