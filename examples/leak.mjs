// Finding a leak: destroy() flushes every sheaf and names each object that was never freed.
import { Arena } from 'granary';

const arena = Arena.create({ bytes: 16 << 20, cpus: 1 });
arena.online();
const tickets = arena.createCache('ticket', { size: 128 });

const open = [];
for (let id = 1; id <= 5; id++) {
  const p = tickets.alloc();
  arena.i32[p >> 2] = id; // the first word is the ticket's number
  open.push(p);
}
for (const p of [open[0], open[2], open[3]]) tickets.free(p);

// The contents of a leaked object are still there: destroy() keeps the memory of a cache that leaks.
const { leaked, objects } = tickets.destroy();
const ids = objects.map((p) => arena.i32[p >> 2]).sort();
console.log(`${leaked} tickets were never freed: ${ids.join(' and ')}`);

// A second free is refused at once, and changes nothing.
const buffers = arena.createCache('buffer', { size: 64 });
const p = buffers.alloc();
buffers.free(p);
try {
  buffers.free(p);
} catch (error) {
  console.log(`${error.name} (${error.kind}): ${error.message.replace(/0x[0-9a-f]+/, 'the address')}`);
}
console.log(`findings: ${arena.validate().length}`);
