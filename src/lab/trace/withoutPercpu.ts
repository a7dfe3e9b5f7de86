/** A program without the percpu memory of one kind of object: what is left when its constructor has taken that already. */
import { OP_WORDS, type TraceProgram } from './program.js';

/**
 * Leaves out all operations on percpu memory, and gives the cache with that name in the kernel another one. The summary
 * stays that of the recording: it is the same work, done in another way.
 */
export function withoutPercpu(program: TraceProgram, traceName: string, cacheName: string): TraceProgram {
  return {
    ...program,
    ops: program.ops.map(withoutAreas),
    live: withoutAreas(program.live),
    caches: program.caches.map((cache) =>
      cache.traceName === traceName ? { ...cache, name: cacheName } : cache,
    ),
  };
}

function withoutAreas(ops: Int32Array): Int32Array {
  const kept = new Int32Array(new SharedArrayBuffer(ops.byteLength));
  let length = 0;
  for (let at = 0; at < ops.length; at += OP_WORDS) {
    // The sign of the first word says percpu memory.
    if (ops[at]! < 0) continue;
    kept[length++] = ops[at]!;
    kept[length++] = ops[at + 1]!;
  }
  return kept.subarray(0, length);
}
