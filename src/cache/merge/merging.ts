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
  type CacheDesc,
  createUniqueId,
  findMergeable,
  type KmemCachePtr,
  KmemCacheStruct,
  type MergeCandidate,
  type MergeWish,
  readName,
  SLAB_KEEPS_STATE,
  slabUnmergeable,
} from '../../slab/index.js';
import { LAYERS, MERGE_MODES, type MergeMode, OutOfMemoryError, type Words } from '../../struct/index.js';
import type { Caches } from '../caches.js';
import { createAliasInSlot, createInSlot, freeStruct } from '../create.js';
import { destroyCache } from '../drain.js';
import type { KmemCache } from '../kmemCache.js';
import type { NewCache } from '../newCache.js';
import { firstDynamicSlot } from '../places.js';
import { findByName, findFreeSlot, liveSlots, publishSlot } from '../registry.js';
import type { LeakReport } from '../reports.js';
import { addLink, freeLinks, linkNames, removeLink } from './aliasLinks.js';

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

/** What became of a name, and what is still to be done about it. */
export interface Dropped {
  report: LeakReport;
  /** The cache that ended with it, if it was the last. Unless there are leaks, its memory goes when nobody looks at it. */
  ended: CacheDesc | undefined;
  leaks: boolean;
  /** Gives back what the name had, with slab_mutex held: at once, or when that memory goes. */
  release: () => void;
  /** The cache could not end: it is live again, unless another has got its name. slab_mutex held. */
  revive: () => void;
}

/** Ends a name, and with the last one the cache. slab_mutex held; throws with nothing changed. */
export function dropCache(caches: Caches, cache: KmemCache): Dropped {
  const { geometry, views } = caches;
  const { m } = views;
  const { ptr, slot, serial, name } = cache.desc;
  const primary = m[ptr + PRIMARY] as KmemCachePtr;
  if (primary !== ptr) {
    const dropped = dropStorage(caches, caches.handle(m[primary + KmemCacheStruct.slot]!), name);
    publishSlot(m, geometry, slot, -serial, ptr);
    return {
      report: { ...dropped.report, cache: name },
      ended: dropped.ended,
      leaks: dropped.leaks,
      release: () => {
        dropped.release();
        publishSlot(m, geometry, slot, 0, 0);
        freeStruct(caches, ptr);
      },
      revive: () => {
        if (findByName(m, geometry, name) >= 0) return;
        dropped.revive();
        publishSlot(m, geometry, slot, serial, ptr);
      },
    };
  }
  if (m[ptr + REFCOUNT]! > 1 && mergeMode(caches) === 'primary') m[ptr + HIDDEN] = 1;
  return dropStorage(caches, cache, name);
}

/** One user less, of that name, of a cache with storage. */
function dropStorage(caches: Caches, cache: KmemCache, user: string): Dropped {
  const { geometry, views } = caches;
  const { m } = views;
  const { desc } = cache;
  const { ptr, slot, serial, name } = desc;
  const users = m[ptr + REFCOUNT]! - 1;
  if (users > 0) {
    m[ptr + REFCOUNT] = users;
    const report = { cache: name, leaked: 0, objects: [], users };
    return { report, ended: undefined, leaks: false, release: () => {}, revive: () => {} };
  }
  const links = m[ptr + KmemCacheStruct.aliases]!;
  const report = destroyCache(caches, cache);
  return {
    report,
    ended: desc,
    leaks: report.leaked > 0 || report.sheaves !== undefined,
    release: () => freeLinks(caches, links),
    revive: () => {
      if (findByName(m, geometry, user) < 0) publishSlot(m, geometry, slot, serial, ptr);
    },
  };
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
