/** Where everything lies in an arena: from the options to a geometry. The picture is in docs/memory-layout.md. */
import {
  checkQuarantine,
  checkStaticCaches,
  GUARD_OBJECTS_MAX,
  KMALLOC_SIZES,
  MAX_CACHES,
  type StaticCache,
} from './cache/index.js';
import { type KmallocOptions, kmallocFamilyCount, planKmalloc } from './kmallocPlan.js';
import { type PercpuOptions, planPercpu } from './percpu/index.js';
import { layOut, leastBytes } from './regions.js';
import { SHEAF_CAPACITY_MAX } from './sheaf/index.js';
import { slabDebugText } from './slab/index.js';
import {
  CHECK_LEVELS,
  type CheckLevel,
  describe,
  FREELIST_HARDENED,
  FREELIST_RANDOM,
  type Geometry,
  hasKmallocType,
  INIT_ON_ALLOC,
  INIT_ON_FREE,
  LAYERS,
  type Layer,
  LOCK_POLICIES,
  type LockPolicy,
  MERGE_MODES,
  type MergeMode,
  optionError,
  PAGE_SIZE,
  REFINEMENTS,
  type Refinement,
  requireInteger,
  requireKnown,
  requireOneOf,
  WORD_BYTES,
  type Words,
} from './struct/index.js';
import { LOCK_STAT_TIERS, type LockStatTier } from './sync/index.js';

/** What {@link Arena.create} takes. All but `bytes` has a default. */
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
  /** Caches there may be at a time, static ones and the 15 of the arena itself included. Default 200. */
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
  /** Lock statistics: 'off', 'contended', 'sampled' hold times, 'full' with all of them and call sites. Default 'off'. */
  lockStat?: LockStatTier;
  /**
   * Debugging of caches, in the letters of the kernel's slab_debug: `'FZPU'` for all, `'FZPU,kmalloc-*;U,node'` for some,
   * `true` for FZPU. See docs/slab-debug.md. Default none.
   */
  slabDebug?: string | boolean;
  /**
   * Bytes of freed objects that wait, poisoned, on each CPU and in each cache before they are really free, so that a
   * write into one is found; for the caches that the program makes, but those with SLAB_ACCOUNT or SLAB_TYPESAFE_BY_RCU.
   * A cache's own option wins. Up to 16 MiB; needs `check`. Default 0: none.
   * @example
   * const arena = Arena.create({ bytes: 64 << 20, quarantine: 64 << 10 });
   * arena.onSlabReport(({ text }) => log.error(text)); // 'BUG session: Quarantine overwritten', with the bytes
   */
  quarantine?: number;
  /**
   * Guarded objects: on each thread one of `every` allocations of a cache, or of kmalloc by size, of up to a page, is served
   * from a pool of `objects` pages (1 to 255, twice as many with the pages between them), where writes out of bounds and
   * after the free are found when it is freed, when its page is used again, and by `arena.scanGuards()`. For single
   * allocations; a cache's own option says which caches. Default none. Kernel: KFENCE.
   * @example
   * const arena = Arena.create({ bytes: 64 << 20, guard: { every: 1000, objects: 63 } });
   * setInterval(() => arena.scanGuards(), 1000); // what it finds goes to arena.onSlabReport
   */
  guard?: { every: number; objects: number };
  /** Zero all memory that is handed out, except of caches with poison, constructors or SLAB_TYPESAFE_BY_RCU. Default false. */
  initOnAlloc?: boolean;
  /** Zero all memory that is freed, with the same exceptions. Default false. */
  initOnFree?: boolean;
  /**
   * Whether a new slab's objects are handed out in an order that the seed of the arena (`kmalloc.seed`) decides, from
   * another start in each slab. See docs/hardening.md. Kernel: SLAB_FREELIST_RANDOM. Default false.
   */
  freelistRandom?: boolean;
  /**
   * Whether links of freelists are stored encoded, and checked when they are read: what overwrote a free object is
   * reported instead of handed out as an address. See docs/hardening.md. Kernel: SLAB_FREELIST_HARDENED. Default false.
   */
  freelistHardened?: boolean;
  /**
   * Whether the order of locks is checked at run time, on all threads: a LockdepError names what broke a rule of
   * docs/locking.md. For tests; it makes slow paths slower and costs nothing where it is off. Default false.
   */
  lockdep?: boolean;
  /** Objects in a sheaf of every cache, whatever its own rule says; 0, the default, leaves it to the rule. For studies. */
  sheafCapacity?: number;
  /**
   * Whether caches that suit each other share their slabs. 'kernel': later ones are links to the first, with one refcount;
   * 'primary': they are caches of their own that share its storage, static ones too. Default 'off': every cache counts
   * for itself.
   */
  merge?: MergeMode;
  /** Static caches, which exist from the beginning, each at its place. Default none. */
  caches?: readonly StaticCache[];
  /** Whether copies and views check that they stay in an object, and copies in its usercopy range. Default false. */
  hardenedUsercopy?: boolean;
  /** Dynamic percpu memory: the size of its chunks, and caches of areas. For studies. */
  percpu?: PercpuOptions;
  /** Memory to use instead of a new buffer, e.g. that of a shared WebAssembly.Memory. Must be zeroed. */
  buffer?: SharedArrayBuffer;
}

/** So many bytes do not hold what the other options ask for; it is a RangeError for those who catch it. */
export class ArenaTooSmallError extends RangeError {
  /** Bytes that would do. */
  readonly least: number;

  constructor(bytes: number, least: number, what: string) {
    super(`bytes is ${bytes}; ${what} it must be at least ${least}`);
    this.least = least;
  }
}

const KNOWN = Object.keys({
  bytes: true,
  cpus: true,
  threads: true,
  nodes: true,
  maxCaches: true,
  lockPolicy: true,
  layer: true,
  barnFull: true,
  barnFullMax: true,
  barnEmpty: true,
  kmalloc: true,
  tiny: true,
  refinements: true,
  check: true,
  lockStat: true,
  slabDebug: true,
  quarantine: true,
  guard: true,
  initOnAlloc: true,
  initOnFree: true,
  freelistRandom: true,
  freelistHardened: true,
  lockdep: true,
  sheafCapacity: true,
  merge: true,
  caches: true,
  hardenedUsercopy: true,
  percpu: true,
  buffer: true,
} satisfies Record<keyof ArenaOptions, true>);

/** Largest arena, in bytes: addresses stay small integers in V8. */
export const ARENA_BYTES_MAX = 2 ** 31;
/** CPU slots of an arena. */
export const CPUS_MAX = 256;
/** Thread slots of an arena. */
export const THREADS_MAX = 1024;
const BARN_SHEAVES_MAX = 1000;
const BARN_FULL_MAX_DEFAULT = 100;
/** Nodes of an arena. */
export const NODES_MAX = 16;

export function isSharedArrayBuffer(value: unknown): value is SharedArrayBuffer {
  return Object.prototype.toString.call(value) === '[object SharedArrayBuffer]';
}

/**
 * Checks the options and lays the arena out. Throws RangeError or TypeError that names the option. `statics` is how many
 * static caches an arena has that is there already: another thread knows their definitions.
 */
export function planArena(options: ArenaOptions, statics?: number): Geometry {
  if (typeof options !== 'object' || options === null) {
    throw new TypeError(`options is ${describe(options)}; it must be an object with at least \`bytes\``);
  }
  requireKnown('options', options, KNOWN);
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
  const tiny = requireBoolean('tiny', options.tiny ?? false);
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
  const lockdep = requireBoolean('lockdep', options.lockdep ?? false);
  const slabDebug = slabDebugText(options.slabDebug);
  const merge = requireOneOf('merge', options.merge ?? 'off', MERGE_MODES);
  const hardenedUsercopy = requireBoolean('hardenedUsercopy', options.hardenedUsercopy ?? false);
  const quarantine = checkQuarantine(options.quarantine ?? 0);
  if (quarantine > 0 && check === 'none') {
    throw new RangeError(`quarantine is ${quarantine}; with check 'none' nobody knows what is free`);
  }
  const { guardEvery, guardObjects } = planGuard(options.guard);
  const staticsFor = { cpus, tiny: tiny ? 1 : 0, layer, merge, quarantine, guardEvery };
  const nrStatics =
    statics ??
    checkStaticCaches(options.caches ?? [], { ...staticsFor, check: CHECK_LEVELS.indexOf(check) }).length;
  if (nrStatics > maxCaches - ownCaches) {
    throw new RangeError(
      `caches has ${nrStatics} definitions; with maxCaches ${maxCaches} there is room for ${maxCaches - ownCaches}`,
    );
  }
  const percpu = planPercpu(options.percpu);
  const families = kmallocFamilyCount(kmalloc);
  const { requestedSize } = kmalloc;
  const slots = { cpus, threads, nodes, maxCaches, nrStatics, families };
  const shape = { ...slots, check, lockStat, lockdep, layer, slabDebug, requestedSize, percpu, guardObjects };
  const least = leastBytes(bytes, shape);
  if (bytes < least) {
    throw new ArenaTooSmallError(
      bytes,
      least,
      `with cpus ${cpus}, threads ${threads}, nodes ${nodes} and maxCaches ${maxCaches}`,
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
    merge: MERGE_MODES.indexOf(merge),
    hardenedUsercopy: hardenedUsercopy ? 1 : 0,
    nrStatics,
    lockStat: LOCK_STAT_TIERS.indexOf(lockStat),
    init: initBits(options),
    hardening: hardeningBits(options),
    ...percpu,
    ...kmalloc,
    tiny: tiny ? 1 : 0,
    quarantine,
    guardEvery,
    guardObjects,
    ...layOut(bytes, shape),
  };
}

const GUARD_KNOWN = Object.keys({
  every: true,
  objects: true,
} satisfies Record<keyof NonNullable<ArenaOptions['guard']>, true>);

function planGuard(guard: ArenaOptions['guard']): { guardEvery: number; guardObjects: number } {
  if (guard === undefined) return { guardEvery: 0, guardObjects: 0 };
  if (typeof guard !== 'object' || guard === null) {
    throw new TypeError(`guard is ${describe(guard)}; it must be an object with \`every\` and \`objects\``);
  }
  requireKnown('guard', guard, GUARD_KNOWN);
  return {
    guardEvery: requireInteger('guard.every', guard.every, 1, 0x7fffffff),
    guardObjects: requireInteger('guard.objects', guard.objects, 1, GUARD_OBJECTS_MAX),
  };
}

function requireBoolean(name: string, value: unknown): boolean {
  if (typeof value !== 'boolean') throw new TypeError(`${name} is ${describe(value)}; it must be a boolean`);
  return value;
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
  requireKnown('refinements', wanted, REFINEMENTS);
  for (const [name, on] of Object.entries(wanted)) {
    requireBoolean(`refinements.${name}`, on);
  }
  return REFINEMENTS.reduce((bits, name, i) => bits | (wanted[name] === false ? 0 : 1 << i), 0);
}

function initBits({ initOnAlloc = false, initOnFree = false }: ArenaOptions): number {
  const onAlloc = requireBoolean('initOnAlloc', initOnAlloc) ? INIT_ON_ALLOC : 0;
  return requireBoolean('initOnFree', initOnFree) ? onAlloc | INIT_ON_FREE : onAlloc;
}

function hardeningBits({ freelistRandom = false, freelistHardened = false }: ArenaOptions): number {
  const random = requireBoolean('freelistRandom', freelistRandom) ? FREELIST_RANDOM : 0;
  return requireBoolean('freelistHardened', freelistHardened) ? random | FREELIST_HARDENED : random;
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

/** A buffer that somebody gives: what an arena keeps of its own, in front of its first page, has to begin as zeros. */
export function checkZeroed(m: Words, { firstPfn }: Geometry): void {
  const end = (firstPfn * PAGE_SIZE) / WORD_BYTES;
  for (let at = 0; at < end; at++) {
    if (m[at] === 0) continue;
    const found = `buffer has 0x${(m[at]! >>> 0).toString(16)} at byte ${at * WORD_BYTES}`;
    throw new RangeError(`${found}; it must be zero up to byte ${firstPfn * PAGE_SIZE}, as a new one is`);
  }
}
