/**
 * A trace compiled for replay: for each target CPU the operations it runs, in recorded order, as pairs of words.
 *
 *   word 0   bit 0 free (else allocate), bit 1 kmalloc (else a cache), bit 2 cross, bit 3 free by kfree_rcu,
 *            bits 4.. size or cache index;
 *            bit 31 with bit 1: percpu memory, bits 4-19 size, 20-23 its alignment as a power of 2, 24 atomic
 *   word 1   slot: the index of the object's address in the slot table
 *
 * The slot table is the only thing that CPUs of a replay share. Its rules:
 *
 *   S1  A slot that is not cross belongs to one CPU: that CPU allocates into it, frees from it and may use it
 *       again. Only this thread touches the word, in its own program order, with plain loads and stores.
 *   S2  An object that another CPU frees than the one that allocated it has a cross slot, which serves this one
 *       object. The allocating CPU stores the address once, with release; the freeing CPU waits until the word is
 *       not 0, with acquire. No address of an earlier object can be there (no ABA), because there is none.
 *   S3  The slots of each CPU, and the cross slots, start on a cache line of their own, so that plain stores of
 *       different CPUs never meet in one line.
 *   S4  After a complete replay and `finishReplay` every slot is 0 again: the table can serve another round.
 *
 * Whether an object will cross is known at its free, long after its allocation was emitted. The compiler then
 * rewrites that allocation; the CPU's own slot that it held so far goes back to that CPU.
 *
 * No deadlock: every free stands behind its allocation in the recorded order, and each CPU's list is in that
 * order. Take the first operation, in recorded order over all CPUs, that has not been done. Its CPU has done all
 * its earlier ones, so this one is next; if it waits, then for an allocation that is earlier and therefore done.
 * So some CPU can always go on. An allocation that fails stores FAILED, which ends the wait as well, and a waiting
 * thread holds no lock of the arena (see replay.ts).
 */

export const OP_WORDS = 2;
export const OP_FREE = 1;
export const OP_KMALLOC = 2;
export const OP_CROSS = 4;
/** Of a free: after a grace period. */
export const OP_RCU = 8;
/** With OP_KMALLOC: percpu memory. The sign, so that one comparison tells. */
export const OP_PERCPU = 1 << 31;
export const PERCPU_SIZE_MASK = 0xffff;
export const PERCPU_ALIGN_SHIFT = 20;
export const PERCPU_ALIGN_MASK = 0xf;
export const OP_ATOMIC = 1 << 24;
/** Shift of the cache index or size in an operation's first word. */
export const OP_ARG_SHIFT = 4;

/** In a slot: the allocation failed. No address is odd. */
export const FAILED = 1;

/** A kmem_cache that the program uses. */
export interface ProgramCache {
  /** The name to create it under. */
  name: string;
  /** The name it had in the kernel. */
  traceName: string;
  size: number;
  /** For those to which the kernel gives sheaves by name; else the arena's choice. */
  sheafCapacity?: number;
}

/** What the compiler found; `events` = allocs + frees + unknownFrees + percpuEvents + nullEvents. */
export interface TraceSummary {
  lines: number;
  events: number;
  /** Allocations to replay; `allocs` = frees + implicitFrees + liveAtEnd. */
  allocs: number;
  /** Recorded frees to replay. */
  frees: number;
  /** Frees put in because a pointer was allocated again: bulk frees leave no event. */
  implicitFrees: number;
  /** Frees of objects that were allocated before the recording; not replayed. */
  unknownFrees: number;
  /** Recorded frees on another target CPU than the allocation's. */
  crossCpuFrees: number;
  /** Recorded frees on another CPU of the kernel than the allocation's. */
  crossKernelCpuFrees: number;
  /** Implicit frees that cross target CPUs. */
  implicitCrossFrees: number;
  /** Failed allocations and kfree(NULL); not replayed. */
  nullEvents: number;
  /** `percpuEvents` = percpuAllocs + percpuFrees + percpuLeftOut; `percpuAllocs` = percpuFrees + percpuImplicitFrees + percpuLiveAtEnd. */
  percpuEvents: number;
  /** Areas of percpu memory to replay, and the bytes of one copy of all of them. */
  percpuAllocs: number;
  percpuBytes: number;
  /** Of them, by callers that could not sleep. */
  percpuAtomic: number;
  percpuFrees: number;
  percpuImplicitFrees: number;
  /** Frees of older areas, failed allocations, and areas above what an allocator takes. */
  percpuLeftOut: number;
  percpuLiveAtEnd: number;
  otherEvents: number;
  foreignLines: number;
  lostEvents: number;
  /** Recorded frees in RCU callbacks, works and other threads of the kernel's own. */
  kthreadFrees: number;
  /** Frees that are replayed by kfree_rcu. */
  rcuFrees: number;
  /** Objects alive when the recording stopped. */
  liveAtEnd: number;
  /** Most objects alive at once. */
  livePeak: number;
  /** CPUs of the kernel that the trace names. */
  kernelCpus: number;
}

/** A compiled trace. Only plain data and shared memory: it goes to workers as it is. */
export interface TraceProgram {
  /** Target CPUs; each needs a thread of its own. */
  cpus: number;
  /** Operations by target CPU, in shared memory. A CPU without any has an empty list. */
  ops: Int32Array[];
  caches: ProgramCache[];
  /** Words in the slot table. */
  slots: number;
  /** Objects alive at the end: the operation that frees each, in pairs as in `ops`. */
  live: Int32Array;
  summary: TraceSummary;
}

/** A slot table for one replay at a time. */
export function createSlotTable(program: TraceProgram): Int32Array {
  return new Int32Array(new SharedArrayBuffer(program.slots * Int32Array.BYTES_PER_ELEMENT));
}

/** How many operations a target CPU has. */
export function opCount(program: TraceProgram, cpu: number): number {
  return program.ops[cpu].length / OP_WORDS;
}
