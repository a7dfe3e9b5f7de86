/**
 * Caches that share slabs and sheaves. Two ways, chosen when the arena is made:
 *
 * | `merge`   | an alias is                                  | its end                                                    |
 * |-----------|----------------------------------------------|------------------------------------------------------------|
 * | `kernel`  | a link: another name for the same handle     | refcount - 1, whoever it was; the names go with the cache  |
 * | `primary` | a kmem_cache of its own, with the storage of its primary | its own; the storage goes with the last user   |
 *
 * In both, `refcount` counts the names in use. A primary whose own name was destroyed is hidden until its aliases are gone.
 *
 * Who writes what: all of it is written under slab_mutex. An alias's struct is complete before its slot is published.
 */
import {
  createUniqueId,
  findMergeable,
  type KmemCachePtr,
  KmemCacheStruct,
  type MergeCandidate,
  type MergeWish,
  readName,
  SLAB_KEEPS_STATE,
  slabUnmergeable,
} from '../slab/index.js';
import { LAYERS, MERGE_MODES, type MergeMode, OutOfMemoryError, type Words } from '../struct/index.js';
import { addLink, freeLinks, linkNames, removeLink } from './aliasLinks.js';
import type { Caches } from './caches.js';
import { createAliasInSlot, createInSlot, freeStruct } from './create.js';
import { destroyCache } from './drain.js';
import type { KmemCache } from './kmemCache.js';
import type { NewCache } from './newCache.js';
import { firstDynamicSlot } from './places.js';
import { findFreeSlot, liveSlots, publishSlot } from './registry.js';
import type { LeakReport } from './reports.js';

const {
  refcount: REFCOUNT,
  primary: PRIMARY,
  hidden: HIDDEN,
  inuse: INUSE,
  objectSize: OBJECT_SIZE,
} = KmemCacheStruct;

interface Candidate extends MergeCandidate {
  readonly slot: number;
  readonly ptr: KmemCachePtr;
  readonly serial: number;
}

const mergeMode = ({ geometry }: Caches): MergeMode => MERGE_MODES[geometry.merge]!;

/** What the words of a kmem_cache say of merging. */
function candidateAt(m: Words, ptr: KmemCachePtr): MergeCandidate {
  const K = KmemCacheStruct;
  return {
    size: m[ptr + K.size]!,
    flags: m[ptr + K.flags]!,
    hasCtor: (m[ptr + K.flags]! & SLAB_KEEPS_STATE) !== 0,
    usersize: m[ptr + K.usersize]!,
    layer: LAYERS[m[ptr + K.layer]!]!,
    refcount: m[ptr + REFCOUNT]!,
  };
}

/** Caches with storage of their own, the oldest first. */
function candidates({ views, geometry }: Caches): Candidate[] {
  const { m } = views;
  const found: Candidate[] = [];
  for (const { slot, ptr } of liveSlots(m, geometry)) {
    if (m[ptr + PRIMARY] !== ptr) continue;
    found.push({ ...candidateAt(m, ptr), slot, ptr, serial: m[ptr + KmemCacheStruct.serial]! });
  }
  return found.sort((a, b) => a.serial - b.serial);
}

function wishOf({ objectSize, layout, flags, layer, usersize = 0 }: NewCache): MergeWish {
  return {
    objectSize,
    align: layout.align,
    flags,
    hasCtor: (flags & SLAB_KEEPS_STATE) !== 0,
    usersize,
    layer,
  };
}

/** The slot of the cache that can serve the new one, or -1. slab_mutex held. */
function findServer(caches: Caches, made: NewCache): number {
  if (mergeMode(caches) === 'off') return -1;
  return findMergeable(candidates(caches), wishOf(made))?.slot ?? -1;
}

/** A slot for a cache that is made now. Throws RangeError when there is none. */
export function takeSlot({ views, geometry }: Caches): number {
  const slot = findFreeSlot(views.m, geometry, firstDynamicSlot(geometry));
  if (slot >= 0) return slot;
  throw new RangeError(
    `all ${geometry.maxCaches} cache slots are taken; make the arena with more \`maxCaches\``,
  );
}

/** Makes a cache, or another name for one that can serve it. slab_mutex held; throws with nothing made. */
export function createOrMerge(caches: Caches, made: NewCache): KmemCache {
  const server = findServer(caches, made);
  if (server < 0) {
    const slot = takeSlot(caches);
    removeLink(caches, made.name);
    createInSlot(caches, slot, made);
    return caches.handle(slot);
  }
  return mergeMode(caches) === 'kernel' ? link(caches, server, made) : alias(caches, server, made);
}

/** Kernel: `__kmem_cache_alias`. */
function link(caches: Caches, server: number, made: NewCache): KmemCache {
  const cache = caches.handle(server);
  removeLink(caches, made.name);
  if (!addLink(caches, cache.desc.ptr, made.name)) {
    throw new OutOfMemoryError(`no memory for the name ${made.name} of cache ${cache.name}`);
  }
  const { m } = caches.views;
  const { ptr } = cache.desc;
  m[ptr + REFCOUNT] = m[ptr + REFCOUNT]! + 1;
  m[ptr + OBJECT_SIZE] = Math.max(m[ptr + OBJECT_SIZE]!, made.objectSize);
  grow(m, ptr, made.layout.inuse);
  cache.learnSizes();
  return cache;
}

/** What is zeroed must reach as far as the largest object. */
function grow(m: Words, ptr: KmemCachePtr, inuse: number): void {
  m[ptr + INUSE] = Math.max(m[ptr + INUSE]!, inuse);
}

function alias(caches: Caches, server: number, made: NewCache, slot = takeSlot(caches)): KmemCache {
  const { m } = caches.views;
  const primary = caches.handle(server).desc.ptr;
  createAliasInSlot(caches, slot, { ...made, primary });
  m[primary + REFCOUNT] = m[primary + REFCOUNT]! + 1;
  grow(m, primary, made.layout.inuse);
  caches.handle(server).learnSizes();
  return caches.handle(slot);
}

/**
 * Makes a static cache at its place. One of the arena itself may serve others; that of a module may not, since it goes
 * while they stay: where it would be the first of its kind, a cache without a name comes before it, to own the slabs.
 */
export function createAtPlace(caches: Caches, slot: number, made: NewCache): void {
  let server = findServer(caches, made);
  if (server < 0 && made.module !== undefined && !slabUnmergeable(wishOf(made))) {
    server = takeSlot(caches);
    const { preallocated: _place, module: _module, ...own } = made;
    const id = createUniqueId(made.flags, made.layout.size);
    createInSlot(caches, server, { ...own, name: id, hidden: true, refcount: 0 });
  }
  if (server < 0) createInSlot(caches, slot, made);
  else alias(caches, server, made, slot);
}

/** Ends a name, and with the last one the cache. slab_mutex held; throws with nothing changed. */
export function dropCache(caches: Caches, cache: KmemCache): LeakReport {
  const { m } = caches.views;
  const { ptr, slot, name } = cache.desc;
  const primary = m[ptr + PRIMARY] as KmemCachePtr;
  if (primary !== ptr) {
    const report = dropStorage(caches, caches.handle(m[primary + KmemCacheStruct.slot]!));
    publishSlot(m, caches.geometry, slot, 0, 0);
    freeStruct(caches, ptr);
    return { ...report, cache: name };
  }
  if (m[ptr + REFCOUNT]! > 1 && mergeMode(caches) === 'primary') m[ptr + HIDDEN] = 1;
  return dropStorage(caches, cache);
}

/** One user less of a cache with storage. */
function dropStorage(caches: Caches, cache: KmemCache): LeakReport {
  const { m } = caches.views;
  const { ptr, name } = cache.desc;
  const users = m[ptr + REFCOUNT]! - 1;
  if (users > 0) {
    m[ptr + REFCOUNT] = users;
    return { cache: name, leaked: 0, objects: [], users };
  }
  const links = m[ptr + KmemCacheStruct.aliases]!;
  const report = destroyCache(caches, cache);
  freeLinks(caches, links);
  return report;
}

/** The name that a cache's attributes have in sysfs. */
export function sysfsId(caches: Caches, ptr: KmemCachePtr, name: string): string {
  const candidate = candidateAt(caches.views.m, ptr);
  const alone = mergeMode(caches) === 'off' || slabUnmergeable(candidate);
  return alone ? name : createUniqueId(candidate.flags, candidate.size);
}

/** All names that use a cache's storage, sorted; its own unless it is hidden. slab_mutex held. */
export function namesOf({ views, geometry }: Caches, { desc }: KmemCache): string[] {
  const { m } = views;
  const names = linkNames(m, desc.ptr);
  for (const { ptr } of liveSlots(m, geometry)) {
    if (m[ptr + PRIMARY] === desc.ptr && m[ptr + HIDDEN] === 0) names.push(readName(m, ptr));
  }
  return names.sort();
}
