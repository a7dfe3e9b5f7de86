/**
 * Whether a superblock is one that Arena.create could have written. An arena follows from its options: they are read back,
 * checked as if somebody had asked for them, and laid out again. A thread that attached to anything else would read
 * and write where something else lies.
 */
import { MAX_CACHES } from './cache/index.js';
import type { KmallocOptions } from './kmallocPlan.js';
import { type ArenaOptions, planArena } from './plan.js';
import { readSlabDebugText } from './slab/index.js';
import {
  AttachError,
  CHECK_LEVELS,
  FREELIST_HARDENED,
  FREELIST_RANDOM,
  type Geometry,
  hasKmallocType,
  hasRefinement,
  INIT_ON_ALLOC,
  INIT_ON_FREE,
  KMALLOC_COPY_RULES,
  KMALLOC_TYPES,
  LAYERS,
  LOCK_POLICIES,
  MERGE_MODES,
  optionError,
  REFINEMENTS,
  type Refinement,
  requireInteger,
  Superblock,
  superblockSum,
  type Words,
} from './struct/index.js';
import { LOCK_STAT_TIERS } from './sync/index.js';

const hex = (word: number): string => `0x${(word >>> 0).toString(16)}`;

const damaged = (what: string): AttachError => new AttachError(`the superblock is damaged: ${what}`);

/** Throws AttachError that names the field, its value, and what it would have to be. */
export function checkSuperblock(m: Words, geometry: Geometry): void {
  let planned: Geometry;
  try {
    requireInteger('nrStatics', geometry.nrStatics, 0, MAX_CACHES);
    const options = optionsOf(geometry);
    // What lies in front of the text does not depend on it, and so the text is looked for where it must be.
    const { slabDebug } = planArena(options, geometry.nrStatics);
    compare(geometry, { slabDebug });
    planned = planArena({ ...options, slabDebug: readSlabDebugText(m, geometry) }, geometry.nrStatics);
  } catch (error) {
    if (error instanceof RangeError || error instanceof TypeError) throw damaged(error.message);
    throw error;
  }
  compare(geometry, planned);
  const sum = m[Superblock.sum]!;
  const right = superblockSum(geometry);
  if (sum !== right) {
    throw damaged(
      `sum is ${hex(sum)}; for the options there it must be ${hex(right)}: one of them was changed, or it was`,
    );
  }
  for (let at = Superblock.bootSheaf; at < Superblock.magic; at++) {
    if (m[at] !== 0)
      throw damaged(`bootSheaf has ${hex(m[at]!)} in word ${at}; it must be 0, which nobody writes`);
  }
}

function compare(geometry: Geometry, planned: Partial<Geometry>): void {
  const { cpus, threads, nodes, maxCaches } = geometry;
  for (const [field, right] of Object.entries(planned)) {
    const value = geometry[field as keyof Geometry];
    if (value === right) continue;
    throw damaged(
      `${field} is ${value}; with cpus ${cpus}, threads ${threads}, nodes ${nodes}, maxCaches ${maxCaches} and the other ` +
        `options there it must be ${right}`,
    );
  }
}

/** A word that stands for one of a list; what stands for none is refused. */
function named<T extends string>(field: keyof Geometry, index: number, names: readonly T[]): T {
  const name = names[index];
  if (name === undefined)
    throw optionError(field, index, `0 to ${names.length - 1}, for ${names.join(', ')}`);
  return name;
}

function flag(field: keyof Geometry, value: number): boolean {
  if (value > 1) throw optionError(field, value, '0 or 1');
  return value === 1;
}

/** The options that an arena was made with, but for its static caches and slabDebug. */
function optionsOf(geometry: Geometry): ArenaOptions {
  const { bytes, cpus, threads, nodes, maxCaches, barnFull, barnFullMax, barnEmpty } = geometry;
  const { sheafCapacity, quarantine, guardEvery, guardObjects, init, hardening } = geometry;
  const guarded = guardEvery !== 0 || guardObjects !== 0;
  return {
    ...{
      bytes,
      cpus,
      threads,
      nodes,
      maxCaches,
      barnFull,
      barnFullMax,
      barnEmpty,
      sheafCapacity,
      quarantine,
    },
    lockPolicy: named('lockPolicy', geometry.lockPolicy, LOCK_POLICIES),
    layer: named('layer', geometry.layer, LAYERS),
    check: named('check', geometry.check, CHECK_LEVELS),
    merge: named('merge', geometry.merge, MERGE_MODES),
    lockStat: named('lockStat', geometry.lockStat, LOCK_STAT_TIERS),
    lockdep: geometry.lockdep !== 0,
    tiny: flag('tiny', geometry.tiny),
    hardenedUsercopy: flag('hardenedUsercopy', geometry.hardenedUsercopy),
    initOnAlloc: (init & INIT_ON_ALLOC) !== 0,
    initOnFree: (init & INIT_ON_FREE) !== 0,
    freelistRandom: (hardening & FREELIST_RANDOM) !== 0,
    freelistHardened: (hardening & FREELIST_HARDENED) !== 0,
    ...(guarded ? { guard: { every: guardEvery, objects: guardObjects } } : {}),
    refinements: Object.fromEntries(
      REFINEMENTS.map((name) => [name, hasRefinement(geometry, name)]),
    ) as Record<Refinement, boolean>,
    kmalloc: kmallocOf(geometry),
    percpu: {
      unitPages: geometry.pcpuUnitPages,
      areaCache: geometry.pcpuAreaCache,
      areaBatch: geometry.pcpuAreaBatch,
      cpusPerAreaCache: geometry.pcpuAreaCpus,
    },
  };
}

const kmallocOf = (geometry: Geometry): KmallocOptions => ({
  types: KMALLOC_TYPES.filter((type) => hasKmallocType(geometry, type)),
  copies: geometry.kmallocCopies,
  copyBy: named('kmallocCopyBy', geometry.kmallocCopyBy, KMALLOC_COPY_RULES),
  seed: geometry.kmallocSeed,
  requestedSize: flag('requestedSize', geometry.requestedSize),
});
