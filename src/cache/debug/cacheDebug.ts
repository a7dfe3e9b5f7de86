/** Debugging as a cache offers it. What is behind it lies in src/debug, which imports this layer. */

import type { CacheDesc } from '../../slab/index.js';
import type { SlabBugError } from '../../struct/index.js';
import type { GuardBug } from '../guard/guardBug.js';
import type { KmemCache } from '../kmemCache.js';

/** Who did something to an object, as plain data. */
export interface TrackInfo {
  /** Frames of the caller, the innermost first, as the engine prints them. */
  stack: string[];
  cpu: number;
  /** The thread slot. */
  thread: number;
  /** What the thread called itself in online(). */
  tid: number;
  /** Milliseconds since then. */
  age: number;
}

/** Allocated objects that have the same stack and waste the same. */
export interface TraceGroup {
  count: number;
  stack: string[];
  /** Bytes that the object is larger than what kmalloc was asked for, of each object; in kmalloc caches. */
  waste?: number;
  /** Milliseconds. */
  age: { min: number; average: number; max: number };
  tids: { min: number; max: number };
  cpus: number[];
  nodes: number[];
}

/** Validation and traces of one cache: {@link KmemCache.debug}. */
export interface CacheDebug {
  /** Reports about this cache so far, of all threads; a repair counts as one of its own. */
  readonly errors: number;
  /**
   * Checks every slab of the cache and every object in it, reports what is wrong and repairs it. Other threads may go
   * on. Throws RangeError for a cache without debug flags: `arena.validate()` checks those. Kernel:
   * `validate_slab_cache`.
   */
  validate(): { slabs: number; errors: number };
  /** Who allocated what is allocated now, the most frequent first. Needs SLAB_STORE_USER. Kernel: `alloc_traces`. */
  allocTraces(): TraceGroup[];
  /** Who freed these objects the last time before. Kernel: `free_traces`. */
  freeTraces(): TraceGroup[];
  /** Who allocated and who freed this object the last time. Needs SLAB_STORE_USER. */
  tracks(p: number): { allocated?: TrackInfo; freed?: TrackInfo };
}

/** What the layer above does for the caches of a thread. */
export interface DebugServices {
  of(cache: KmemCache): CacheDebug;
  /** A free was refused: reports it, and gives the error to throw. */
  refused(cache: KmemCache, p: number, error: SlabBugError): SlabBugError;
  /** Something is wrong with a guarded object of the cache. */
  guarded(s: CacheDesc, bug: GuardBug): void;
  /** A cache was destroyed with these objects left. */
  leaked(cache: KmemCache, objects: readonly number[]): void;
}

/** Until the arena has connected the layer above. */
export const NO_DEBUG_SERVICES: DebugServices = {
  of: () => {
    throw new RangeError('debugging of caches is not connected: this is no arena');
  },
  refused: (_cache, _p, error) => error,
  guarded: () => {},
  leaked: () => {},
};
