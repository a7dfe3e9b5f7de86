/** Working on slabs past the sheaves, as the layer above would, and cutting in between two of its steps. */
import type { KmemCache } from '#src/cache/index.js';
import { type Arena, GFP_KERNEL, NUMA_NO_NODE } from '#src/index.js';
import { LockClass, type LockClassId, type LockPtr, type Locks } from '#src/sync/index.js';
import { inside } from '../cache/support/arena.js';

export function mark(arena: Arena, cache: KmemCache, objects: number[], allocated: boolean): void {
  if (arena.geometry.shadow === 0) return;
  for (const p of objects) arena.u8[arena.geometry.shadow + (p >> 3)] = allocated ? cache.desc.tag : 0;
}

/** Allocates from the slabs alone. */
export function slabAlloc(
  arena: Arena,
  cache: KmemCache,
  n = 1,
  gfp = GFP_KERNEL,
  node = NUMA_NO_NODE,
): number[] {
  const objects = Array.from({ length: n }, () => inside(arena).slabs.allocSlow(cache.desc, gfp, node));
  const found = objects.filter((p) => p !== 0);
  mark(arena, cache, found, true);
  return objects;
}

/** Frees to the slabs alone, one by one. */
export function slabFree(arena: Arena, cache: KmemCache, objects: number[]): void {
  mark(arena, cache, objects, false);
  for (const p of objects) inside(arena).slabs.freeOne(cache.desc, p);
}

/** Frees objects of any slabs at once, as a flush does. */
export function slabFreeMany(arena: Arena, cache: KmemCache, objects: number[]): void {
  mark(arena, cache, objects, false);
  inside(arena).slabs.freeObjects(cache.desc, Int32Array.from(objects), 0, objects.length);
}

/** Full slabs, each as the list of its objects. */
export function fullSlabs(arena: Arena, cache: KmemCache, n: number): number[][] {
  return Array.from({ length: n }, () => slabAlloc(arena, cache, cache.objsPerSlab));
}

/** Refills an array of its own; returns what was got. */
export function refill(arena: Arena, cache: KmemCache, min: number, max: number, gfp = GFP_KERNEL): number[] {
  const out = new Int32Array(max);
  const got = inside(arena).slabs.refillObjects(cache.desc, out, 0, min, max, gfp);
  const objects = Array.from(out.subarray(0, got));
  mark(arena, cache, objects, true);
  return objects;
}

type Moment = 'before lock' | 'after lock' | 'after unlock';

/**
 * Runs `action` once, at the `nth` time that this CPU passes that moment of a lock class. Returns how to call it off.
 */
export function cutIn(
  arena: Arena,
  cls: LockClassId,
  moment: Moment,
  nth: number,
  action: () => void,
): () => void {
  const locks = arena.cpu.locks as Locks & { lock: Locks['lock']; unlock: Locks['unlock'] };
  const { lock, unlock } = locks;
  let seen = 0;
  const callOff = (): void => {
    delete (locks as Partial<Locks>).lock;
    delete (locks as Partial<Locks>).unlock;
  };
  const pass = (at: Moment, id: LockClassId): void => {
    if (id !== cls || at !== moment || ++seen !== nth) return;
    callOff();
    action();
  };
  locks.lock = (at: LockPtr, id: LockClassId): void => {
    pass('before lock', id);
    lock.call(locks, at, id);
    pass('after lock', id);
  };
  locks.unlock = (at: LockPtr, id: LockClassId): void => {
    unlock.call(locks, at, id);
    pass('after unlock', id);
  };
  return callOff;
}

/** How often this arena's CPUs took list_lock. The arena must keep lock statistics. */
export function listLocks(arena: Arena): number {
  return arena.lockStat()[LockClass.ListLock]!.acquisitions;
}
