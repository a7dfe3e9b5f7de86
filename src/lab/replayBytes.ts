/** How large an arena a trace needs. */
import { ARENA_BYTES_MAX } from '../plan.js';
import {
  OP_ARG_SHIFT,
  OP_FREE,
  OP_KMALLOC,
  OP_WORDS,
  PERCPU_SIZE_MASK,
  type TraceProgram,
} from './trace/index.js';

const MIB = 2 ** 20;
const PAGE = 4096;
const ARENA_MIN = 64 * MIB;
/** For slabs that are partly used, and for what CPUs and barns keep. */
const SLACK = 2;

/** What an allocation takes; an area of percpu memory on each CPU, the caller's among them. */
function sizeOf(program: TraceProgram, op: number): number {
  const arg = op >>> OP_ARG_SHIFT;
  if ((op & OP_KMALLOC) === 0) return program.caches[arg]!.size;
  if (op < 0) return (arg & PERCPU_SIZE_MASK) * (program.cpus + 1);
  return 2 ** Math.ceil(Math.log2(Math.max(arg, 8)));
}

/** An upper bound of the bytes that are allocated at once: the sum of what each CPU holds at its worst moment. */
export function livePeakBytes(program: TraceProgram): number {
  let total = 0;
  for (const ops of program.ops) {
    let live = 0;
    let peak = 0;
    for (let at = 0; at < ops.length; at += OP_WORDS) {
      const op = ops[at]!;
      const size = sizeOf(program, op);
      live += (op & OP_FREE) === 0 ? size : -size;
      if (live > peak) peak = live;
    }
    total += peak;
  }
  return total;
}

/** A size in whole mebibytes that is enough for the program. */
export function arenaBytesFor(programs: readonly TraceProgram[]): number {
  const need =
    programs.reduce((most, program) => Math.max(most, livePeakBytes(program)), 0) * SLACK + ARENA_MIN;
  // An eighth of the arena tells which objects are allocated, and a page of it in 64 is page structs.
  const whole = Math.ceil((need * 1.2) / MIB) * MIB;
  return Math.min(whole, ARENA_BYTES_MAX - (ARENA_BYTES_MAX % PAGE));
}
