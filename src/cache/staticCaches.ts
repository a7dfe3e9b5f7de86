/**
 * Static caches, after Al Viro's seed: a kmem_cache that is storage of the arena, at a place that is fixed before anything
 * runs, instead of an object that somebody allocated and whose address everybody must look up.
 *
 *  SC1  The place of a cache is its number in `Arena.create({ caches })`. Registry slot, per-CPU blocks and struct
 *       follow from it and the geometry: constants of the arena.
 *  SC2  They exist before the first thread is a CPU. Nothing frees their struct: not a failed set-up, not destroy.
 *  SC3  A static cache of the arena is never destroyed. Under `merge: 'kernel'` it merges with nothing, as in the seed,
 *       since an alias would be another name for the same struct; under `merge: 'primary'` it takes part.
 *  SC4  A module is a thread that attached: it may leave. It declares no static caches; a place that the arena keeps for
 *       it (`module: true`) it sets up and must destroy before it goes. Such a cache owns no slabs that others use.
 */
import {
  type CacheDesc,
  type KmemCachePtr,
  KmemCacheStruct,
  NO_SLAB_DEBUG,
  readName,
  readSlabDebug,
  SLAB_KMALLOC,
  SLAB_NO_MERGE,
  type SlabDebugSpec,
} from '../slab/index.js';
import {
  AttachError,
  CpuError,
  describe,
  type Geometry,
  LAYERS,
  type Layer,
  MERGE_MODES,
  type MergeMode,
  requireKnown,
  type Words,
} from '../struct/index.js';
import { loadAcquire } from '../sync/index.js';
import { FIRST_KMALLOC_SLOT } from './bootstrap.js';
import type { Caches } from './caches.js';
import { withDefinition } from './callbacks.js';
import { initKmemCache } from './create.js';
import { DefinedCache } from './define.js';
import type { GuardRule } from './guard/guarded.js';
import type { QuarantineRule } from './guard/quarantine.js';
import type { KmemCache } from './kmemCache.js';
import { createAtPlace } from './merge/merging.js';
import { type NewCache, newCache, type Wanted } from './newCache.js';
import { checkName } from './options.js';
import { firstStaticSlot, placeOfSlot, placeWords, staticPlace } from './places.js';
import { findByName, liveSlots, RegistrySlot, registrySlot } from './registry.js';
import { NAMED_CACHE_OPTIONS, type StaticCache } from './setup.js';

const MODULE = KmemCacheStruct.module;
/** They come from defineCache alone, by which other threads know them. */
const FUNCTIONS = ['ctor', 'ctorSlab', 'dtor', 'dtorSlab'];
/** In a place that nobody has set up yet: a module's. */
const UNCLAIMED = -1;

export const staticCacheWords = (nodes: number, count: number): number => count * placeWords(nodes);

/** What an arena will be like, as far as its static caches depend on it. */
interface StaticShape extends QuarantineRule, GuardRule {
  readonly cpus: number;
  readonly tiny: number;
  readonly layer: Layer;
  readonly merge: MergeMode;
}

/** A definition in parts, whichever of the two forms it has. */
function wantedOf(definition: StaticCache): Wanted {
  if (definition instanceof DefinedCache) return definition;
  const { name, module: _module, ...options } = definition;
  return { name, options, callbackFlags: 0, definedIn: '' };
}

const isModule = (definition: StaticCache): boolean =>
  !(definition instanceof DefinedCache) && definition.module === true;

function staticCache(definition: StaticCache, shape: StaticShape, slabDebug: SlabDebugSpec): NewCache {
  const made = newCache(wantedOf(definition), shape, shape.layer, slabDebug);
  return shape.merge === 'primary' ? made : { ...made, flags: made.flags | SLAB_NO_MERGE };
}

/** Throws RangeError or TypeError that names the first definition that will not do; nothing has been made yet. */
export function checkStaticCaches(definitions: unknown, shape: StaticShape): readonly StaticCache[] {
  if (!Array.isArray(definitions)) {
    throw new TypeError(`caches is ${describe(definitions)}; it must be an array of definitions`);
  }
  const names = new Set<string>();
  for (const [i, definition] of (definitions as StaticCache[]).entries()) {
    if (typeof definition !== 'object' || definition === null) {
      throw new TypeError(`caches[${i}] is ${describe(definition)}; it must be what defineCache returns`);
    }
    const name = checkName(definition.name);
    const own = FUNCTIONS.find((key) => key in definition);
    if (own !== undefined) {
      throw new TypeError(
        `caches[${i}], ${name}, has a ${own}; pass what defineCache returns, so that threads find it by name`,
      );
    }
    if (!(definition instanceof DefinedCache)) {
      requireKnown(`caches[${i}], ${name},`, definition, NAMED_CACHE_OPTIONS);
    }
    if (names.has(name)) throw new RangeError(`caches has ${JSON.stringify(name)} twice; names are unique`);
    names.add(name);
    try {
      staticCache(definition, shape, NO_SLAB_DEBUG);
    } catch (error) {
      if (error instanceof Error) error.message = `caches[${i}], ${name}: ${error.message}`;
      throw error;
    }
    if (isModule(definition) && shape.merge !== 'primary') {
      throw new RangeError(
        `caches[${i}], ${name}: module is true and merge '${shape.merge}'; a static cache that may be destroyed needs merge 'primary'`,
      );
    }
  }
  return definitions;
}

const shapeOf = ({ cpus, tiny, layer, merge, quarantine, guardEvery, check }: Geometry): StaticShape => ({
  cpus,
  tiny,
  quarantine,
  guardEvery,
  check,
  layer: LAYERS[layer]!,
  merge: MERGE_MODES[merge]!,
});

/** The last step of the boot. Throws when the arena is too small for them. */
export function makeStaticCaches(caches: Caches, definitions: readonly StaticCache[]): void {
  const { geometry, views } = caches;
  for (const [i, definition] of definitions.entries()) {
    const made = staticCache(definition, shapeOf(geometry), caches.slabDebug);
    const ptr = staticPlace(geometry, i);
    if (isModule(definition)) {
      // Only what attach compares; no slot leads here before the module comes.
      initKmemCache(views.m, ptr, geometry.nodes, firstStaticSlot(geometry) + i, 0, made);
      views.m[ptr + MODULE] = UNCLAIMED;
    } else {
      createAtPlace(caches, firstStaticSlot(geometry) + i, { ...made, preallocated: ptr });
    }
  }
}

/**
 * Whether the program that attaches means the same by its static caches as the one that made the arena: SC1 is a promise
 * between programs. The build-time size check of the seed, at run time. Throws AttachError.
 */
export function checkPlaces(m: Words, geometry: Geometry, definitions: readonly StaticCache[]): void {
  if (definitions.length !== geometry.nrStatics) {
    throw new AttachError(
      `caches has ${definitions.length} definitions; the arena was made with ${geometry.nrStatics}, pass the same ones`,
    );
  }
  const K = KmemCacheStruct;
  const slabDebug = readSlabDebug(m, geometry);
  for (const [i, definition] of definitions.entries()) {
    const ptr = staticPlace(geometry, i);
    const made = staticCache(definition, shapeOf(geometry), slabDebug);
    const name = readName(m, ptr);
    const compare = (what: string, ours: number | string, theirs: number | string): void => {
      if (ours === theirs) return;
      throw new AttachError(
        `caches[${i}], ${made.name}: ${what} is ${ours} here and ${theirs} in the arena; load the same module in every thread`,
      );
    };
    compare('name', made.name, name);
    compare('size', made.objectSize, m[ptr + K.objectSize]!);
    compare('align', made.layout.align, m[ptr + K.align]!);
    compare('slab size', made.layout.size, m[ptr + K.size]!);
    compare('flags', made.flags, m[ptr + K.flags]!);
    compare('layer', made.layer, LAYERS[m[ptr + K.layer]!]!);
    compare('useroffset', made.useroffset!, m[ptr + K.useroffset]!);
    compare('usersize', made.usersize!, m[ptr + K.usersize]!);
    compare('module', isModule(definition) ? 1 : 0, m[ptr + MODULE] === 0 ? 0 : 1);
  }
}

/** Sets up a module's cache at its place. slab_mutex held. Kernel: the seed's `kmem_cache_setup`. */
function setUpModuleCache(caches: Caches, i: number, definition: StaticCache): KmemCache {
  const { geometry, views, cpu } = caches;
  const { m } = views;
  const slot = firstStaticSlot(geometry) + i;
  const ptr = staticPlace(geometry, i);
  const serial = m[registrySlot(geometry, slot) + RegistrySlot.serial]!;
  if (m[ptr + MODULE] === 0)
    throw new RangeError(`${definition.name} is a static cache of the arena: it is there already`);
  if (serial > 0) throw new RangeError(`${definition.name} is set up; destroy it before it is set up again`);
  if (serial < 0) {
    throw new RangeError(
      `${definition.name} was destroyed with objects left, which its place still describes`,
    );
  }
  if (findByName(m, geometry, definition.name) >= 0) {
    throw new RangeError(`name is ${JSON.stringify(definition.name)}; a cache of that name exists`);
  }
  const made = staticCache(definition, shapeOf(geometry), caches.slabDebug);
  createAtPlace(caches, slot, { ...made, preallocated: ptr, module: cpu.thread + 1 });
  return caches.handle(slot);
}

/** Whether the cache is a static one of the arena, and no module's. */
function isGlobalStatic({ views, geometry }: Caches, slot: number, ptr: KmemCachePtr): boolean {
  return placeOfSlot(geometry, slot) >= 0 && views.m[ptr + MODULE] === 0;
}

/** After destroy: the place is for the next thread that comes. slab_mutex held. */
export function leavePlace({ views, geometry }: Caches, ptr: KmemCachePtr): void {
  if (ptr >= geometry.staticCaches && ptr < staticPlace(geometry, geometry.nrStatics)) {
    views.m[ptr + MODULE] = UNCLAIMED;
  }
}

/** Names of the caches that the module of a thread has set up and not destroyed. slab_mutex held. */
export function modulesCaches({ views, geometry }: Caches, thread: number): string[] {
  const { m } = views;
  return [...liveSlots(m, geometry)]
    .filter(({ ptr }) => m[ptr + MODULE] === thread + 1)
    .map(({ ptr }) => readName(m, ptr));
}

/** The static caches, as one thread sees them. */
export class Statics {
  private readonly caches: Caches;
  private readonly firstSlot: number;

  constructor(caches: Caches) {
    this.caches = caches;
    this.firstSlot = firstStaticSlot(caches.geometry);
  }

  /** By number. Their slots never have others, so this needs no lock; a module's may be missing. */
  at(i: number): KmemCache | undefined {
    const { caches } = this;
    const slot = this.firstSlot + i;
    // Pairs with publishSlot.
    const serial = loadAcquire(caches.views.m, registrySlot(caches.geometry, slot) + RegistrySlot.serial);
    return serial > 0 ? withDefinition(caches, caches.handle(slot)) : undefined;
  }

  all(): ReadonlyArray<KmemCache | undefined> {
    return Array.from({ length: this.caches.geometry.nrStatics }, (_, i) => this.at(i));
  }

  /** Sets up a module's. Throws with nothing changed. */
  setUp(i: number, definition: StaticCache): KmemCache {
    return this.caches.withSlabMutex(() => setUpModuleCache(this.caches, i, definition));
  }

  /** Throws while this thread's module has caches: what it does not destroy, nobody will. */
  assertMayLeave(): void {
    const { caches } = this;
    const names = caches.withSlabMutex(() => modulesCaches(caches, caches.cpu.thread));
    if (names.length === 0) return;
    throw new CpuError(
      `this thread has set up ${names.join(', ')}, static caches of a module; destroy them before it goes offline`,
    );
  }
}

/** Throws RangeError for a cache that lives as long as the arena: one of its own, or a static one. */
export function assertMayEnd(caches: Caches, { name, slot, flags, ptr }: CacheDesc): void {
  if (slot < FIRST_KMALLOC_SLOT || (flags & SLAB_KMALLOC) !== 0) {
    throw new RangeError(`${name} is one of the arena's own caches; it lives as long as the arena`);
  }
  if (isGlobalStatic(caches, slot, ptr)) {
    throw new RangeError(`${name} is a static cache of the arena; it is never destroyed`);
  }
}
