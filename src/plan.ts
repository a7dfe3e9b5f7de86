/** Where everything lies in an arena: from the options to a geometry. The picture is in docs/memory-layout.md. */
import { bootCacheWords, MAX_CACHES, registryWords } from './cache/index.js';
import { PERCPU_BLOCK_WORDS, ThreadRecord } from './cpu/index.js';
import { Page, Pressure, Zone } from './page/index.js';
import { type PercpuOptions, percpuWords, planPercpu } from './percpu/index.js';
import { rcuWords } from './rcu/index.js';
import { SHEAF_CAPACITY_MAX } from './sheaf/index.js';
import {
  alignUp,
  CHECK_LEVELS,
  type CheckLevel,
  describe,
  type Geometry,
  LAYERS,
  type Layer,
  LINE_WORDS,
  LOCK_POLICIES,
  type LockPolicy,
  optionError,
  PAGE_SIZE,
  REFINEMENTS,
  type Refinement,
  requireInteger,
  requireOneOf,
  Superblock,
  WORD_BYTES,
} from './struct/index.js';
import {
  LOCK_SITES_WORDS,
  LOCK_STAT_TIERS,
  LOCK_STAT_WORDS,
  LOCKDEP_WORDS,
  type LockStatTier,
} from './sync/index.js';

export interface ArenaOptions {
  /** Size of the arena in bytes, a multiple of 4096; reserved at once, touched when used. */
  bytes: number;
  /** CPU slots: how many sets of sheaves there are. Default 8. */
  cpus?: number;
  /**
   * How many threads may use it at a time. Default `cpus`: each is a CPU of its own. More than that share CPUs, and find
   * each other in the way at their sheaves, which needs lockPolicy 'op'.
   */
  threads?: number;
  /** Into how many NUMA-like nodes CPUs and pages are divided. Default 1. */
  nodes?: number;
  /** Caches there may be at a time, the 15 of the arena itself included. Default 200. */
  maxCaches?: number;
  /** 'turn' keeps a CPU's sheaf locks for one run of JavaScript, 'op' for one operation. Default 'turn'. */
  lockPolicy?: LockPolicy;
  /** What stands in front of the slabs of caches that do not say it themselves. Default 'sheaves'. */
  layer?: Layer;
  /** Full sheaves that a barn takes in exchange, 0 to 1000; with 0 each further full sheaf is flushed. Default 10. */
  barnFull?: number;
  /** Empty sheaves that a barn keeps after a grace period, 0 to 1000; exchanges ask for no limit. Default 10. */
  barnEmpty?: number;
  /** Newer kernels' refinements of the slab path; with one off, slabs are worked on as in 7.1. All on by default. */
  refinements?: Partial<Record<Refinement, boolean>>;
  /** What a free checks: 'none', 'free' (the address is an allocated object of the cache), 'full'. Default 'free'. */
  check?: CheckLevel;
  /** Lock statistics: 'off', 'contended', 'sampled' hold times, 'full' with all of them and call sites. Default 'off'. */
  lockStat?: LockStatTier;
  /**
   * Whether the order of locks is checked at run time, on all threads: a LockdepError names what broke a rule of
   * docs/locking.md. For tests; it makes slow paths slower and costs nothing where it is off. Default false.
   */
  lockdep?: boolean;
  /** Objects in a sheaf of every cache, whatever its own rule says; 0, the default, leaves it to the rule. For studies. */
  sheafCapacity?: number;
  /** Dynamic percpu memory: the size of its chunks, and caches of areas. For studies. */
  percpu?: PercpuOptions;
  /** Memory to use instead of a new buffer, e.g. that of a shared WebAssembly.Memory. Must be zeroed. */
  buffer?: SharedArrayBuffer;
}

/** Addresses stay small integers in V8. */
export const ARENA_BYTES_MAX = 2 ** 31;
export const CPUS_MAX = 256;
export const THREADS_MAX = 1024;
export const BARN_SHEAVES_MAX = 1000;
export const NODES_MAX = 16;
/** A node must at least hold the slabs of the first caches. */
const NODE_PAGES_MIN = 64;
/** A CPU's sheaves of the kmalloc caches come to 2240 bytes, its arrays to 4480. */
const CPU_PAGES_MIN = 0.6;
const CPU_ARRAY_PAGES_MIN = 1.1;

export function isSharedArrayBuffer(value: unknown): value is SharedArrayBuffer {
  return Object.prototype.toString.call(value) === '[object SharedArrayBuffer]';
}

/** Checks the options and lays the arena out. Throws RangeError or TypeError that names the option. */
export function planArena(options: ArenaOptions): Geometry {
  if (typeof options !== 'object' || options === null) {
    throw new TypeError(`options is ${describe(options)}; it must be an object with at least \`bytes\``);
  }
  const bytes = requireInteger('bytes', options.bytes, PAGE_SIZE, ARENA_BYTES_MAX);
  if (bytes % PAGE_SIZE !== 0) throw optionError('bytes', bytes, `a multiple of the page size, ${PAGE_SIZE}`);
  const cpus = requireInteger('cpus', options.cpus ?? 8, 1, CPUS_MAX);
  const threads = requireInteger('threads', options.threads ?? cpus, cpus, THREADS_MAX);
  const nodes = requireInteger('nodes', options.nodes ?? 1, 1, Math.min(NODES_MAX, cpus));
  const maxCaches = requireInteger('maxCaches', options.maxCaches ?? 200, 16, MAX_CACHES);
  const lockPolicy = requireOneOf('lockPolicy', options.lockPolicy ?? 'turn', LOCK_POLICIES);
  if (threads > cpus && lockPolicy !== 'op') {
    throw new RangeError(
      `threads is ${threads}, more than cpus, ${cpus}, and lockPolicy is '${lockPolicy}', which keeps the lock of a CPU's ` +
        "sheaves for a whole turn; threads can share a CPU only with lockPolicy 'op'",
    );
  }
  const layer = requireOneOf('layer', options.layer ?? 'sheaves', LAYERS);
  const barnFull = requireInteger('barnFull', options.barnFull ?? 10, 0, BARN_SHEAVES_MAX);
  const barnEmpty = requireInteger('barnEmpty', options.barnEmpty ?? 10, 0, BARN_SHEAVES_MAX);
  const sheafCapacity = requireInteger('sheafCapacity', options.sheafCapacity ?? 0, 0, SHEAF_CAPACITY_MAX);
  const check = requireOneOf('check', options.check ?? 'free', CHECK_LEVELS);
  const lockStat = requireOneOf('lockStat', options.lockStat ?? 'off', LOCK_STAT_TIERS);
  const lockdep = requireBoolean('lockdep', options.lockdep ?? false);

  const percpu = planPercpu(options.percpu);

  const shape = { cpus, threads, nodes, maxCaches, check, lockStat, lockdep, layer, percpu };
  const least = leastBytes(bytes, shape);
  if (bytes < least) {
    throw new RangeError(
      `bytes is ${bytes}; with cpus ${cpus}, threads ${threads}, nodes ${nodes} and maxCaches ${maxCaches} it must be at least ${least}`,
    );
  }
  return {
    bytes,
    cpus,
    threads,
    nodes,
    maxCaches,
    lockPolicy: LOCK_POLICIES.indexOf(lockPolicy),
    check: CHECK_LEVELS.indexOf(check),
    layer: LAYERS.indexOf(layer),
    barnFull,
    barnEmpty,
    sheafCapacity,
    refinements: refinementBits(options.refinements ?? {}),
    lockStat: LOCK_STAT_TIERS.indexOf(lockStat),
    ...percpu,
    ...layOut(bytes, shape),
  };
}

function requireBoolean(name: string, value: unknown): boolean {
  if (typeof value !== 'boolean') throw new TypeError(`${name} is ${describe(value)}; it must be a boolean`);
  return value;
}

function refinementBits(wanted: Partial<Record<Refinement, boolean>>): number {
  if (typeof wanted !== 'object' || wanted === null) {
    throw new TypeError(`refinements is ${describe(wanted)}; it must be an object of booleans`);
  }
  for (const [name, on] of Object.entries(wanted)) {
    requireOneOf('refinements', name, REFINEMENTS);
    requireBoolean(`refinements.${name}`, on);
  }
  return REFINEMENTS.reduce((bits, name, i) => bits | (wanted[name] === false ? 0 : 1 << i), 0);
}

interface Shape {
  cpus: number;
  threads: number;
  nodes: number;
  maxCaches: number;
  check: CheckLevel;
  lockStat: LockStatTier;
  lockdep: boolean;
  layer: Layer;
  percpu: ReturnType<typeof planPercpu>;
}

/** Where each region begins, in the order in which they lie. */
function layOut(bytes: number, shape: Shape) {
  const { cpus, threads, nodes, maxCaches, check, lockStat, lockdep, percpu: config } = shape;
  let end = alignUp(Superblock.SIZEOF, LINE_WORDS);
  const region = (words: number): number => {
    const at = end;
    end = alignUp(end + words, LINE_WORDS);
    return at;
  };
  const threadRecords = region(threads * ThreadRecord.SIZEOF);
  const lockStats = region(lockStat === 'off' ? 0 : threads * LOCK_STAT_WORDS);
  const lockSites = lockStat === 'full' ? region(threads * LOCK_SITES_WORDS) : 0;
  const lockdepArea = lockdep ? region(LOCKDEP_WORDS) : 0;
  const zones = region(nodes * Zone.SIZEOF);
  const pressure = region(Pressure.SIZEOF);
  const registry = region(registryWords(maxCaches));
  const bootCaches = region(bootCacheWords(nodes));
  const percpu = region(threads * maxCaches * PERCPU_BLOCK_WORDS);
  const rcu = region(rcuWords(threads));
  const pcpu = region(percpuWords(threads, cpus, config));
  const memmap = region((bytes / PAGE_SIZE) * Page.SIZEOF);
  const shadow = check === 'none' ? 0 : region(alignUp(bytes / 8, WORD_BYTES) / WORD_BYTES) * WORD_BYTES;
  const firstPfn = Math.ceil((end * WORD_BYTES) / PAGE_SIZE);
  const endPfn = bytes / PAGE_SIZE;
  return {
    threadRecords,
    lockStats,
    lockSites,
    lockdep: lockdepArea,
    percpu,
    rcu,
    pcpu,
    zones,
    pressure,
    registry,
    bootCaches,
    memmap,
    shadow,
    firstPfn,
    endPfn,
  };
}

/** `bytes` if that will do, or else the least that will: what lies before the heap grows with the arena, too. */
function leastBytes(bytes: number, shape: Shape): number {
  const cpuPages = shape.layer === 'percpu-array' ? CPU_ARRAY_PAGES_MIN : CPU_PAGES_MIN;
  const heapPages = shape.nodes * NODE_PAGES_MIN + Math.ceil(shape.cpus * cpuPages);
  for (let least = bytes; ; ) {
    const wanted = (layOut(least, shape).firstPfn + heapPages) * PAGE_SIZE;
    if (wanted <= least) return least;
    least = wanted;
  }
}

/** The buffer for an arena: the caller's, if it is one that will do, or a new one. */
export function arenaBuffer(options: ArenaOptions): SharedArrayBuffer {
  const { buffer, bytes } = options;
  if (buffer === undefined) return new SharedArrayBuffer(bytes);
  if (!isSharedArrayBuffer(buffer)) {
    throw new TypeError(`buffer is ${describe(buffer)}; it must be a SharedArrayBuffer`);
  }
  if ((buffer as SharedArrayBuffer & { growable?: boolean }).growable) {
    throw new TypeError('buffer is growable; every plain access to such a buffer is 30 times slower');
  }
  if (buffer.byteLength !== bytes) {
    throw new RangeError(`bytes is ${bytes}; the buffer has ${buffer.byteLength}, and they must be the same`);
  }
  return buffer;
}
