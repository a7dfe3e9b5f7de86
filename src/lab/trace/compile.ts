/** From the events of a trace to a program; the rules of slots stand in program.ts. */
import { KMALLOC_SIZES, MAX_CACHES } from '../../cache/index.js';
import { PCPU_MIN_UNIT_SIZE } from '../../percpu/index.js';
import { NAME_BYTES_MAX } from '../../slab/index.js';
import { PAGE_SIZE } from '../../struct/index.js';
import { TraceError } from './error.js';
import { EventKind, type ParserOptions, type TraceEvent } from './event.js';
import {
  OP_ARG_SHIFT,
  OP_ATOMIC,
  OP_CROSS,
  OP_FREE,
  OP_KMALLOC,
  OP_PERCPU,
  OP_RCU,
  OP_WORDS,
  PERCPU_ALIGN_SHIFT,
  type ProgramCache,
  type TraceProgram,
  type TraceSummary,
} from './program.js';
import { PtrTable } from './ptrTable.js';
import { type ReadCounts, readTrace, readTraceText } from './reader.js';
import { WordList } from './words.js';

const CPUS_MAX = 1024;
/** Slots of one CPU start on a cache line of their own, and its neighbour: 128 bytes. */
const SLOT_ALIGN = 32;

/** The kernel asks for sheaves of this size for these caches, by name. */
const SHEAF_CAPACITY: Readonly<Record<string, number>> = { vm_area_struct: 32, maple_node: 32 };
/** Names that an arena has caches of its own for. */
const RESERVED_NAME = /^(?:(?:dma-)?kmalloc-|kmem_cache$|kmem_cache_node$)/;

/** Those of the arena itself: kmem_cache, kmem_cache_node and kmalloc's. */
const OWN_CACHES = 2 + KMALLOC_SIZES.length;
/** Distinct caches of one trace. */
export const TRACE_CACHES_MAX = MAX_CACHES - OWN_CACHES;

/** A name with something in front of it, or with its number where that is too long for a cache. */
export const prefixedName = (prefix: string, name: string, index: number): string =>
  Buffer.byteLength(prefix + name) <= NAME_BYTES_MAX ? prefix + name : `${prefix}#${index}`;

export interface CompileOptions extends ParserOptions {
  /** Target CPUs: a CPU of the kernel becomes its number modulo this. */
  cpus: number;
  /**
   * Frees that the kernel did in a context of its own, recorded as `kthread`, are replayed by kfree_rcu: mostly they are
   * RCU callbacks. Default false: they are frees like others.
   */
  kthreadRcu?: boolean | undefined;
}

/** What one target CPU has so far. */
class CpuProgram {
  readonly ops = new WordList();
  /** Own slots (S1) that hold nothing now. */
  readonly freeSlots = new WordList();
  slots = 0;

  takeSlot(): number {
    return this.freeSlots.length > 0 ? this.freeSlots.pop() : this.slots++;
  }

  /** Appends an operation; returns where its first word stands. */
  emit(word: number, slot: number): number {
    const at = this.ops.length;
    this.ops.push(word);
    this.ops.push(slot);
    return at;
  }
}

/** Flips the sign of the upper half of a pointer: the kernel's own are all negative there, hashes all positive. */
const PERCPU_KEY = 1 << 31;

/** The first word of the operation that allocates an area. */
function percpuWord({ percpuSize, percpuAlign, percpuAtomic }: TraceEvent): number {
  const align = Math.ceil(Math.log2(Math.max(1, percpuAlign)));
  const how = OP_PERCPU | OP_KMALLOC | (percpuAtomic ? OP_ATOMIC : 0);
  return how | (align << PERCPU_ALIGN_SHIFT) | (percpuSize << OP_ARG_SHIFT);
}

const emptySummary = (): TraceSummary => ({
  lines: 0,
  events: 0,
  allocs: 0,
  frees: 0,
  implicitFrees: 0,
  unknownFrees: 0,
  crossCpuFrees: 0,
  crossKernelCpuFrees: 0,
  implicitCrossFrees: 0,
  nullEvents: 0,
  percpuEvents: 0,
  percpuAllocs: 0,
  percpuBytes: 0,
  percpuAtomic: 0,
  percpuFrees: 0,
  percpuImplicitFrees: 0,
  percpuLeftOut: 0,
  percpuLiveAtEnd: 0,
  otherEvents: 0,
  foreignLines: 0,
  lostEvents: 0,
  kthreadFrees: 0,
  rcuFrees: 0,
  liveAtEnd: 0,
  livePeak: 0,
  kernelCpus: 0,
});

/** Takes the events of one trace in order; `finish` makes the program. */
export class TraceCompiler {
  readonly #cpus: CpuProgram[];
  readonly #live = new PtrTable();
  readonly #caches: ProgramCache[] = [];
  readonly #cacheByName = new Map<string, number>();
  readonly #kernelCpus = new Set<number>();
  readonly #summary = emptySummary();
  readonly #kthreadRcu: boolean;
  readonly #file: string;
  #crossSlots = 0;
  #lastKernelCpu = -1;
  #percpuLive = 0;

  /** `file` is the name that errors give the trace. */
  constructor(cpus: number, kthreadRcu = false, file = '<text>') {
    this.#kthreadRcu = kthreadRcu;
    this.#file = file;
    if (!Number.isInteger(cpus) || cpus < 1 || cpus > CPUS_MAX) {
      throw new RangeError(`cpus must be an integer from 1 to ${CPUS_MAX}, got ${cpus}`);
    }
    this.#cpus = Array.from({ length: cpus }, () => new CpuProgram());
  }

  add(event: TraceEvent): void {
    const summary = this.#summary;
    summary.events++;
    if (event.cpu !== this.#lastKernelCpu) this.#kernelCpus.add(event.cpu);
    this.#lastKernelCpu = event.cpu;
    if (event.kind === EventKind.percpuAlloc || event.kind === EventKind.percpuFree) this.#percpu(event);
    else if (event.isNull) summary.nullEvents++;
    else if (event.kind === EventKind.cacheAlloc) {
      this.#alloc(event, this.#cacheIndex(event) << OP_ARG_SHIFT);
    } else if (event.kind === EventKind.kmalloc) {
      this.#alloc(event, ((event.bytesReq || event.bytesAlloc) << OP_ARG_SHIFT) | OP_KMALLOC);
    } else this.#recordedFree(event);
  }

  finish(counts: ReadCounts): TraceProgram {
    const summary = this.#summary;
    summary.lines = counts.lines;
    summary.otherEvents = counts.otherEvents;
    summary.foreignLines = counts.foreignLines;
    summary.lostEvents = counts.lostEvents;
    summary.percpuLiveAtEnd = this.#percpuLive;
    summary.liveAtEnd = this.#live.size - this.#percpuLive;
    summary.kernelCpus = this.#kernelCpus.size;
    const { bases, crossBase } = this.#slotBases();
    this.#cpus.forEach((cpu, i) => {
      const { words, length } = cpu.ops;
      for (let at = 0; at < length; at += OP_WORDS) {
        words[at + 1] += (words[at] & OP_CROSS) === 0 ? bases[i] : crossBase;
      }
    });
    return {
      cpus: this.#cpus.length,
      ops: this.#cpus.map((cpu) => cpu.ops.toShared()),
      caches: this.#caches,
      slots: crossBase + this.#crossSlots,
      live: this.#liveOps(),
      summary: { ...summary },
    };
  }

  #alloc(event: TraceEvent, word: number): void {
    const summary = this.#summary;
    const target = event.cpu % this.#cpus.length;
    const known = this.#live.find(event.ptrLow, event.ptrHigh);
    if (known >= 0) {
      summary.implicitFrees++;
      if (this.#emitFree(known, target)) summary.implicitCrossFrees++;
    }
    const cpu = this.#cpus[target];
    this.#live.insert(event.ptrLow, event.ptrHigh, cpu.emit(word, cpu.takeSlot()), event.cpu);
    summary.allocs++;
    summary.livePeak = Math.max(summary.livePeak, this.#live.size - this.#percpuLive);
  }

  /** Percpu areas share the table of pointers with objects, under keys that no pointer of an object has. */
  #percpu(event: TraceEvent): void {
    const summary = this.#summary;
    summary.percpuEvents++;
    const high = event.ptrHigh ^ PERCPU_KEY;
    const known = this.#live.find(event.ptrLow, high);
    const target = event.cpu % this.#cpus.length;
    if (event.kind === EventKind.percpuFree) {
      if (known < 0) summary.percpuLeftOut++;
      else {
        summary.percpuFrees++;
        this.#percpuLive--;
        this.#emitFree(known, target);
      }
      return;
    }
    const { percpuSize: size, percpuAlign: align } = event;
    if (event.isNull || size === 0 || size > PCPU_MIN_UNIT_SIZE || align > PAGE_SIZE) {
      summary.percpuLeftOut++;
      return;
    }
    if (known >= 0) {
      summary.percpuImplicitFrees++;
      this.#percpuLive--;
      this.#emitFree(known, target);
    }
    const cpu = this.#cpus[target];
    this.#live.insert(event.ptrLow, high, cpu.emit(percpuWord(event), cpu.takeSlot()), event.cpu);
    this.#percpuLive++;
    summary.percpuAllocs++;
    summary.percpuBytes += size;
    if (event.percpuAtomic) summary.percpuAtomic++;
  }

  #recordedFree(event: TraceEvent): void {
    const summary = this.#summary;
    const known = this.#live.find(event.ptrLow, event.ptrHigh);
    if (known < 0) {
      summary.unknownFrees++;
      return;
    }
    summary.frees++;
    if (this.#live.cpu(known) !== event.cpu) summary.crossKernelCpuFrees++;
    if (event.isKthread) summary.kthreadFrees++;
    const how = event.isKthread && this.#kthreadRcu ? OP_RCU : 0;
    if (how !== 0) summary.rcuFrees++;
    if (this.#emitFree(known, event.cpu % this.#cpus.length, how)) summary.crossCpuFrees++;
  }

  /** Emits the free of a live object on target CPU `by`; says whether it crosses. How to free follows the allocation. */
  #emitFree(entry: number, by: number, how = 0): boolean {
    const op = this.#live.op(entry);
    const allocatedBy = this.#live.cpu(entry) % this.#cpus.length;
    this.#live.remove(entry);
    const allocator = this.#cpus[allocatedBy];
    const { words } = allocator.ops;
    const ownSlot = words[op + 1];
    allocator.freeSlots.push(ownSlot);
    if (allocatedBy === by) {
      allocator.emit(words[op] | OP_FREE | how, ownSlot);
      return false;
    }
    words[op] |= OP_CROSS;
    words[op + 1] = this.#crossSlots++;
    this.#cpus[by].emit(words[op] | OP_FREE | how, words[op + 1]);
    return true;
  }

  #cacheIndex(event: TraceEvent): number {
    const { name: traceName, bytesAlloc: size } = event;
    const known = this.#cacheByName.get(traceName);
    if (known === undefined) {
      this.#checkCache(event);
      const name = RESERVED_NAME.test(traceName)
        ? prefixedName('trace-', traceName, this.#caches.length)
        : traceName;
      const cache: ProgramCache = { name, traceName, size };
      const capacity = SHEAF_CAPACITY[traceName];
      if (capacity !== undefined) cache.sheafCapacity = capacity;
      this.#cacheByName.set(traceName, this.#caches.length);
      return this.#caches.push(cache) - 1;
    }
    // Two caches of one name, or two kernels in one file: the larger objects must fit.
    const cache = this.#caches[known];
    if (cache.size < size) cache.size = size;
    return known;
  }

  /** What createCache would refuse is refused where it stands in the trace. */
  #checkCache({ name, line }: TraceEvent): void {
    const bytes = Buffer.byteLength(name);
    if (bytes > NAME_BYTES_MAX) {
      const problem = `the cache name "${name}" has ${bytes} bytes; a cache's name may have at most ${NAME_BYTES_MAX}`;
      throw new TraceError(this.#file, line, problem);
    }
    if (/\s/.test(name)) {
      const problem = `the cache name ${JSON.stringify(name)} has white space; a cache's name must be free of it`;
      throw new TraceError(this.#file, line, problem);
    }
    if (this.#caches.length < TRACE_CACHES_MAX) return;
    const problem =
      `"${name}" is cache number ${TRACE_CACHES_MAX + 1} of the trace; it may have at most ${TRACE_CACHES_MAX}: an arena has ` +
      `${MAX_CACHES}, ${OWN_CACHES} of them its own`;
    throw new TraceError(this.#file, line, problem);
  }

  /** Where each CPU's slots start in the table (S3), and where the cross slots do. */
  #slotBases(): { bases: number[]; crossBase: number } {
    let next = 0;
    const bases = this.#cpus.map((cpu) => {
      const base = next;
      next += Math.ceil(cpu.slots / SLOT_ALIGN) * SLOT_ALIGN;
      return base;
    });
    return { bases, crossBase: next };
  }

  /** Slots of live objects are final only after `finish` has placed them. */
  #liveOps(): Int32Array {
    const live = new WordList();
    this.#live.forEach((op, kernelCpu) => {
      const { words } = this.#cpus[kernelCpu % this.#cpus.length].ops;
      live.push(words[op] | OP_FREE);
      live.push(words[op + 1]);
    });
    return live.toShared();
  }
}

/** Compiles a trace file for `options.cpus` target CPUs. Rejects with a TraceError naming file and line. */
export async function compileTrace(file: string, options: CompileOptions): Promise<TraceProgram> {
  const compiler = new TraceCompiler(options.cpus, options.kthreadRcu, file);
  return compiler.finish(await readTrace(file, (event) => compiler.add(event), options));
}

/** Compiles a trace that is already in memory; `file` is the name that errors give it. */
export function compileTraceText(
  text: string | Uint8Array,
  options: CompileOptions,
  file?: string,
): TraceProgram {
  const compiler = new TraceCompiler(options.cpus, options.kthreadRcu, file);
  return compiler.finish(readTraceText(text, (event) => compiler.add(event), options, file));
}
