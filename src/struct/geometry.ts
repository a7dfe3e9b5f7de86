/**
 * Page 0, the superblock: what a thread must know to attach, written once at boot and read-only afterwards.
 * Every base is a word index, so that a reader can follow the picture in docs/memory-layout.md with a dump.
 */
import { AttachError } from './errors.js';
import { struct } from './struct.js';
import type { Words } from './views.js';

export const LOCK_POLICIES = ['turn', 'op'] as const;
/** How long a thread keeps the lock of its CPU's sheaves: for a run of JavaScript or for one operation. */
export type LockPolicy = (typeof LOCK_POLICIES)[number];
/** What newer kernels added to the slab path, a bit each; an arena can be made without, to see what each brings. */
export const REFINEMENTS = ['lazyFreelist', 'returnFreelist', 'batchDetach'] as const;
export type Refinement = (typeof REFINEMENTS)[number];

/** Whether an arena was made with a refinement. */
export const hasRefinement = (geometry: Geometry, name: Refinement): boolean =>
  (geometry.refinements & (1 << REFINEMENTS.indexOf(name))) !== 0;

/** What stands in front of a cache's slabs: the kernel's sheaves, the two designs before them, or nothing. */
export const LAYERS = ['sheaves', 'percpu-array', 'cpu-slab', 'none'] as const;
/** What stands in front of the slabs of a cache. */
export type Layer = (typeof LAYERS)[number];
/** When memory is zeroed: bits of `init`. */
export const INIT_ON_ALLOC = 1 << 0;
export const INIT_ON_FREE = 1 << 1;
/** What makes slabs harder to misuse: bits of `hardening`. */
export const FREELIST_RANDOM = 1 << 0;
export const FREELIST_HARDENED = 1 << 1;
/** Whether caches that suit each other share their slabs, and who is then whose alias. */
export const MERGE_MODES = ['off', 'kernel', 'primary'] as const;
/** Which caches share their slabs. */
export type MergeMode = (typeof MERGE_MODES)[number];
/** Types of kmalloc caches beside the normal one; an arena can have each. */
export const KMALLOC_TYPES = ['dma', 'reclaimable', 'cgroup'] as const;
/** A type of kmalloc caches beside the normal one. */
export type KmallocType = (typeof KMALLOC_TYPES)[number];

/** Whether an arena has kmalloc caches of a type. */
export const hasKmallocType = (geometry: Pick<Geometry, 'kmallocTypes'>, type: KmallocType): boolean =>
  (geometry.kmallocTypes & (1 << KMALLOC_TYPES.indexOf(type))) !== 0;

/** What chooses among the copies of the normal kmalloc caches: who calls, or the type of what is allocated. */
export const KMALLOC_COPY_RULES = ['site', 'type'] as const;
/** What chooses among the copies of the normal kmalloc caches. */
export type KmallocCopyRule = (typeof KMALLOC_COPY_RULES)[number];

export const CHECK_LEVELS = ['none', 'free', 'full'] as const;
/** What a free checks. */
export type CheckLevel = (typeof CHECK_LEVELS)[number];

/** Word 0 stays 0 for ever, since address 0 is NULL; the bootstrap sheaf is a line that nobody writes. */
export const Superblock = struct('superblock', {
  null: 16,
  bootSheaf: 16,
  magic: 1,
  abi: 1,
  booted: 1,
  bytes: 1,
  cpus: 1,
  threads: 1,
  nodes: 1,
  maxCaches: 1,
  lockPolicy: 1,
  check: 1,
  layer: 1,
  barnFull: 1,
  barnFullMax: 1,
  barnEmpty: 1,
  refinements: 1,
  sheafCapacity: 1,
  merge: 1,
  hardenedUsercopy: 1,
  nrStatics: 1,
  lockStat: 1,
  init: 1,
  hardening: 1,
  kmallocTypes: 1,
  kmallocCopies: 1,
  kmallocCopyBy: 1,
  kmallocSeed: 1,
  requestedSize: 1,
  tiny: 1,
  quarantine: 1,
  guardEvery: 1,
  guardObjects: 1,
  guards: 1,
  threadRecords: 1,
  lockStats: 1,
  lockSites: 1,
  lockdep: 1,
  percpu: 1,
  rcu: 1,
  pcpu: 1,
  pcpuUnitPages: 1,
  pcpuAreaCache: 1,
  pcpuAreaBatch: 1,
  pcpuAreaCpus: 1,
  zones: 1,
  pressure: 1,
  slabDebug: 1,
  registry: 1,
  bootCaches: 1,
  staticCaches: 1,
  memmap: 1,
  shadow: 1,
  firstPfn: 1,
  endPfn: 1,
  sum: 1,
});

/** `GRNY` in ASCII. */
export const MAGIC = 0x59_4e_52_47;

const NO_FIELDS = ['null', 'bootSheaf', 'magic', 'abi', 'booted', 'sum', 'SIZEOF'] as const;
type GeometryField = Exclude<keyof typeof Superblock, (typeof NO_FIELDS)[number]>;

/**
 * The numbers of a superblock. `shadow` is a byte address (0: no allocated-state is kept), the rest words. Regions that an
 * arena was made without are 0.
 */
export type Geometry = { readonly [K in GeometryField]: number };

const FIELDS = Object.keys(Superblock).filter(
  (field) => !(NO_FIELDS as readonly string[]).includes(field),
) as GeometryField[];

/** FNV-1a over all numbers of a superblock, so that one which is possible but not what boot wrote is noticed, too. */
export function superblockSum(geometry: Geometry): number {
  let hash = 0x811c9dc5;
  for (const field of FIELDS) {
    for (let shift = 0; shift < 32; shift += 8) {
      hash = Math.imul(hash ^ ((geometry[field] >>> shift) & 0xff), 0x01000193);
    }
  }
  return hash | 0;
}

/** Writes everything but `booted`, which the boot stores last and with release. */
export function writeSuperblock(m: Words, geometry: Geometry, abi: number): void {
  for (const field of FIELDS) m[Superblock[field]] = geometry[field];
  m[Superblock.sum] = superblockSum(geometry);
  m[Superblock.abi] = abi;
  m[Superblock.magic] = MAGIC;
}

/** Reads a superblock back, or refuses with the reason why this is no arena of this build. */
export function readSuperblock(m: Words, abi: number): Geometry {
  if (m[Superblock.magic] !== MAGIC) {
    throw new AttachError(
      `not an arena: the superblock's magic is 0x${(m[Superblock.magic]! >>> 0).toString(16)}, not 0x${MAGIC.toString(16)}`,
    );
  }
  if (m[Superblock.abi] !== abi) {
    throw new AttachError(
      `the arena was made by another build: its ABI hash is 0x${(m[Superblock.abi]! >>> 0).toString(16)}, ` +
        `this build's is 0x${(abi >>> 0).toString(16)}; load the same version of granary in every thread`,
    );
  }
  const geometry: Record<string, number> = {};
  // 2 GiB is a byte count that needs the sign bit.
  for (const field of FIELDS) geometry[field] = m[Superblock[field]]! >>> 0;
  if (geometry.bytes !== m.byteLength) {
    throw new AttachError(`the arena has ${geometry.bytes} bytes, the buffer ${m.byteLength}`);
  }
  // A copy, for the reason given in struct(): slow paths of compiled code read it.
  return { ...geometry } as Geometry;
}
