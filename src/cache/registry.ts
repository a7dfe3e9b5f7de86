/**
 * The registry: which caches there are. A slot's number + 1 is the tag that marks its objects in the shadow, so there
 * are at most 254 caches, and a byte there tells exactly whose object an address is.
 *
 * | serial | state of the slot                                                                |
 * |--------|----------------------------------------------------------------------------------|
 * | 0      | free                                                                             |
 * | > 0    | a live cache; handles keep the serial and so notice that theirs was destroyed     |
 * | < 0    | destroyed with objects left: the slot stays taken, since its tag is still in use  |
 *
 * Changes happen under slab_mutex; the serial is stored last and read first.
 */
import { type KmemCachePtr, KmemCacheStruct, readName } from '../slab/index.js';
import { type Geometry, type Ptr, struct, type Words } from '../struct/index.js';
import { Lock, type LockPtr, loadAcquire, OWNER_DIED, storeRelease } from '../sync/index.js';

export const Registry = struct('registry', { slabMutex: Lock.SIZEOF, nextSerial: 1, groups: 1 });
export const RegistrySlot = struct('registry_slot', { serial: 1, cache: 1 });
type RegistrySlotPtr = Ptr<'registry_slot'>;

/** Tags are bytes, and 0 means free. */
export const MAX_CACHES = 254;
/** In place of the cache's tag: an allocated object of a slab that was made of the reserve. */
export const RESERVE_MARK = 255;

export const registryWords = (maxCaches: number): number => Registry.SIZEOF + maxCaches * RegistrySlot.SIZEOF;

export const slabMutex = (geometry: Geometry): LockPtr =>
  (geometry.registry + Registry.slabMutex) as unknown as LockPtr;

/** Whether its holder died, of which nobody knows how far it came: no thread will have it again. */
export const slabMutexDied = (m: Words, geometry: Geometry): boolean =>
  (loadAcquire(m, slabMutex(geometry)) & OWNER_DIED) !== 0;

export const registrySlot = (geometry: Geometry, slot: number): RegistrySlotPtr =>
  (geometry.registry + Registry.SIZEOF + slot * RegistrySlot.SIZEOF) as RegistrySlotPtr;

/** Slots of live caches, aliases and hidden ones too, in the order of the table. */
export function* liveSlots(m: Words, geometry: Geometry): Generator<{ slot: number; ptr: KmemCachePtr }> {
  for (let slot = 0; slot < geometry.maxCaches; slot++) {
    const at = registrySlot(geometry, slot);
    // Pairs with publishSlot: a serial that is seen means a cache that is complete.
    if (loadAcquire(m, at + RegistrySlot.serial) > 0) {
      yield { slot, ptr: m[at + RegistrySlot.cache] as KmemCachePtr };
    }
  }
}

/** Caches that have a name, aliases too: as many as a thread that is online is told the names of. */
export function countCaches(m: Words, geometry: Geometry): number {
  let n = 0;
  for (const { ptr } of liveSlots(m, geometry)) if (m[ptr + KmemCacheStruct.hidden] === 0) n++;
  return n;
}

/** The slot of the live cache `name`, or -1. A hidden cache has no name. */
export function findByName(m: Words, geometry: Geometry, name: string): number {
  for (const { slot, ptr } of liveSlots(m, geometry)) {
    if (m[ptr + KmemCacheStruct.hidden] === 0 && readName(m, ptr) === name) return slot;
  }
  return -1;
}

/** A free slot from `first` on, or -1. slab_mutex held. */
export function findFreeSlot(m: Words, geometry: Geometry, first: number): number {
  for (let slot = first; slot < geometry.maxCaches; slot++) {
    if (m[registrySlot(geometry, slot) + RegistrySlot.serial] === 0) return slot;
  }
  return -1;
}

/** A serial that no cache has had. slab_mutex held. */
export function nextSerial(m: Words, geometry: Geometry): number {
  const at = geometry.registry + Registry.nextSerial;
  const serial = (m[at]! + 1) & 0x7fffffff || 1;
  m[at] = serial;
  return serial;
}

export function publishSlot(m: Words, geometry: Geometry, slot: number, serial: number, ptr: number): void {
  const at = registrySlot(geometry, slot);
  m[at + RegistrySlot.cache] = ptr;
  storeRelease(m, at + RegistrySlot.serial, serial);
}
