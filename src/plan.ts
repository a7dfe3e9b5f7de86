/** Where everything lies in an arena: from the options to a geometry. The picture is in docs/memory-layout.md. */
import { bootCacheWords, KMALLOC_SIZES, MAX_CACHES, registryWords } from './cache/index.js';
import { PERCPU_BLOCK_WORDS, ThreadRecord } from './cpu/index.js';
import { type KmallocOptions, kmallocFamilyCount, planKmalloc } from './kmallocPlan.js';
import { Page, Pressure, Zone } from './page/index.js';
import { rcuWords } from './rcu/index.js';
import { SHEAF_CAPACITY_MAX } from './sheaf/index.js';
import {
  alignUp,
  CHECK_LEVELS,
  type CheckLevel,
  describe,
  type Geometry,
  hasKmallocType,
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
import { LOCK_STAT_TIERS, LOCK_STAT_WORDS, type LockStatTier } from './sync/index.js';

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
  /** Caches there may be at a time, the 15 of the arena itself and those of `kmalloc` included. Default 200, or room for 50. */
  maxCaches?: number;
  /** 'turn' keeps a CPU's sheaf locks for one run of JavaScript, 'op' for one operation. Default 'turn'. */
  lockPolicy?: LockPolicy;
  /** What stands in front of the slabs of caches that do not say it themselves. Default 'sheaves'. */
  layer?: Layer;
  /** Full sheaves that a barn takes in exchange, 0 to 1000; with 0 each further full sheaf is flushed. Default 10. */
  barnFull?: number;
  /**
   * How many it takes at most where bursts show that `barnFull` is too few, `barnFull` to 1000, and at most a 128th of
   * the node's memory. With `barnFull` the limit is fixed, as in the kernel. Default 100, and `barnFull` if that is given.
   */
  barnFullMax?: number;
  /** Empty sheaves that a barn keeps after a grace period, 0 to 1000; exchanges ask for no limit. Default 10. */
  barnEmpty?: number;
  /** Which kmalloc caches there are beside the normal ones, and what they keep. Default none, nothing. */
  kmalloc?: KmallocOptions;
  /**
   * For little memory: nothing in front of the slabs, slabs of one or two pages where that will do, none kept empty, one
   * object at a time under list_lock. Kernel: CONFIG_SLUB_TINY. Default false.
   */
  tiny?: boolean;
  /** Newer kernels' refinements of the slab path; with one off, slabs are worked on as in 7.1. All on by default. */
  refinements?: Partial<Record<Refinement, boolean>>;
  /** What a free checks: 'none', 'free' (the address is an allocated object of the cache), 'full'. Default 'free'. */
  check?: CheckLevel;
  /** Lock statistics: 'off', 'contended', 'sampled' hold times, 'full'. Default 'off'. */
  lockStat?: LockStatTier;
  /** Objects in a sheaf of every cache, whatever its own rule says; 0, the default, leaves it to the rule. For studies. */
  sheafCapacity?: number;
  /** Memory to use instead of a new buffer, e.g. that of a shared WebAssembly.Memory. Must be zeroed. */
  buffer?: SharedArrayBuffer;
}

/** Addresses stay small integers in V8. */
export const ARENA_BYTES_MAX = 2 ** 31;
export const CPUS_MAX = 256;
export const THREADS_MAX = 1024;
export const BARN_SHEAVES_MAX = 1000;
const BARN_FULL_MAX_DEFAULT = 100;
export const NODES_MAX = 16;
/** A node must at least hold the slabs of the first caches. */
const NODE_PAGES_MIN = 64;
/** Structs, nodes and barns of one more family of kmalloc caches. */
const FAMILY_PAGES_MIN = 4;
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
  const kmalloc = planKmalloc(options.kmalloc ?? {});
  const ownCaches = 2 + KMALLOC_SIZES.length * kmallocFamilyCount(kmalloc);
  const enough = Math.min(MAX_CACHES, Math.max(200, ownCaches + 50));
  const maxCaches = requireInteger('maxCaches', options.maxCaches ?? enough, ownCaches + 1, MAX_CACHES);
  const lockPolicy = requireOneOf('lockPolicy', options.lockPolicy ?? 'turn', LOCK_POLICIES);
  if (threads > cpus && lockPolicy !== 'op') {
    throw new RangeError(
      `threads is ${threads}, more than cpus, ${cpus}, and lockPolicy is '${lockPolicy}', which keeps the lock of a CPU's ` +
        "sheaves for a whole turn; threads can share a CPU only with lockPolicy 'op'",
    );
  }
  const { tiny = false } = options;
  if (typeof tiny !== 'boolean') throw new TypeError(`tiny is ${describe(tiny)}; it must be a boolean`);
  const layer = requireOneOf('layer', options.layer ?? (tiny ? 'none' : 'sheaves'), LAYERS);
  if (tiny) checkTiny(layer, kmalloc);
  const barnFull = requireInteger('barnFull', options.barnFull ?? 10, 0, BARN_SHEAVES_MAX);
  const barnFullMax = requireInteger(
    'barnFullMax',
    options.barnFullMax ?? options.barnFull ?? BARN_FULL_MAX_DEFAULT,
    barnFull,
    BARN_SHEAVES_MAX,
  );
  const barnEmpty = requireInteger('barnEmpty', options.barnEmpty ?? 10, 0, BARN_SHEAVES_MAX);
  const sheafCapacity = requireInteger('sheafCapacity', options.sheafCapacity ?? 0, 0, SHEAF_CAPACITY_MAX);
  const check = requireOneOf('check', options.check ?? 'free', CHECK_LEVELS);
  const lockStat = requireOneOf('lockStat', options.lockStat ?? 'off', LOCK_STAT_TIERS);

  const families = kmallocFamilyCount(kmalloc);
  const shape = {
    cpus,
    threads,
    nodes,
    maxCaches,
    check,
    lockStat,
    layer,
    families,
    requestedSize: kmalloc.requestedSize,
  };
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
    barnFullMax,
    barnEmpty,
    sheafCapacity,
    refinements: refinementBits(options.refinements ?? {}),
    lockStat: LOCK_STAT_TIERS.indexOf(lockStat),
    ...kmalloc,
    tiny: tiny ? 1 : 0,
    ...layOut(bytes, shape),
  };
}

/** What a kernel with CONFIG_SLUB_TINY cannot be configured with. */
function checkTiny(layer: Layer, { kmallocCopies, kmallocTypes }: ReturnType<typeof planKmalloc>): void {
  if (layer !== 'none') {
    throw new RangeError(`layer is '${layer}'; a tiny arena has nothing in front of its slabs, only 'none'`);
  }
  if (kmallocCopies !== 0) {
    throw new RangeError(`kmalloc.copies is ${kmallocCopies}; a tiny arena has none`);
  }
  if (hasKmallocType({ kmallocTypes }, 'reclaimable')) {
    throw new RangeError('kmalloc.types has reclaimable; in a tiny arena the normal caches serve that');
  }
}

function refinementBits(wanted: Partial<Record<Refinement, boolean>>): number {
  if (typeof wanted !== 'object' || wanted === null) {
    throw new TypeError(`refinements is ${describe(wanted)}; it must be an object of booleans`);
  }
  for (const [name, on] of Object.entries(wanted)) {
    requireOneOf('refinements', name, REFINEMENTS);
    if (typeof on !== 'boolean')
      throw new TypeError(`refinements.${name} is ${describe(on)}; it must be a boolean`);
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
  layer: Layer;
  families: number;
  requestedSize: number;
}

/** Where each region begins, in the order in which they lie. */
function layOut(bytes: number, { threads, nodes, maxCaches, check, lockStat }: Shape) {
  let end = alignUp(Superblock.SIZEOF, LINE_WORDS);
  const region = (words: number): number => {
    const at = end;
    end = alignUp(end + words, LINE_WORDS);
    return at;
  };
  const threadRecords = region(threads * ThreadRecord.SIZEOF);
  const lockStats = region(lockStat === 'off' ? 0 : threads * LOCK_STAT_WORDS);
  const zones = region(nodes * Zone.SIZEOF);
  const pressure = region(Pressure.SIZEOF);
  const registry = region(registryWords(maxCaches));
  const bootCaches = region(bootCacheWords(nodes));
  const percpu = region(threads * maxCaches * PERCPU_BLOCK_WORDS);
  const rcu = region(rcuWords(threads));
  const memmap = region((bytes / PAGE_SIZE) * Page.SIZEOF);
  const shadow = check === 'none' ? 0 : region(alignUp(bytes / 8, WORD_BYTES) / WORD_BYTES) * WORD_BYTES;
  const firstPfn = Math.ceil((end * WORD_BYTES) / PAGE_SIZE);
  const endPfn = bytes / PAGE_SIZE;
  return {
    threadRecords,
    lockStats,
    percpu,
    rcu,
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
  const layerPages = shape.layer === 'percpu-array' ? CPU_ARRAY_PAGES_MIN : CPU_PAGES_MIN;
  // Behind a sheaf of 512 bytes its requested size makes another 512.
  const cpuPages = shape.requestedSize !== 0 ? 2 * layerPages : layerPages;
  const nodePages = NODE_PAGES_MIN + (shape.families - 1) * FAMILY_PAGES_MIN;
  const heapPages = shape.nodes * nodePages + Math.ceil(shape.cpus * cpuPages * shape.families);
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
