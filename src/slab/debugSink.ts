/**
 * What the slab layer tells whoever is told about debug caches. It knows what is wrong; what becomes of it, a text or an
 * event, is for the layer above, which hands its sink in.
 */
import type { PagePtr } from '../page/index.js';
import type { CacheDesc } from './kmemCache.js';

/** Bytes that are not what they must be; `to` is the first behind them. */
export interface DamagedBytes {
  /** As the kernel calls it: `Right Redzone`, `Poison`. */
  area: string;
  from: number;
  to: number;
  expected: number;
  found: number;
}

/** One thing that is wrong. */
export interface SlabBug {
  what: string;
  /** The slab; 0 if what is wrong is that there is none. */
  page: PagePtr;
  /** The object, or 0 if it is about the slab as a whole. */
  object: number;
  damage?: DamagedBytes;
}

/** All but stack and flush may be called with list_lock held: they take notes, and flush sends them. */
export interface DebugSink {
  /** A handle for the stack of whoever called the allocator; 0 when there is no room for it, or none may be made. */
  stack(mayWait: boolean): number;
  bug(s: CacheDesc, bug: SlabBug): void;
  /** Something was repaired, or put where it does no harm. */
  fix(s: CacheDesc, what: string): void;
  /** Damage was found in an object that was to be freed: it stays where it is, allocated. */
  kept(s: CacheDesc, p: number): void;
  /** An object of a cache with SLAB_TRACE is handed out, or taken back. */
  trace(s: CacheDesc, page: PagePtr, p: number, isAlloc: boolean): void;
  /** Sends what was noted; no lock is held. */
  flush(): void;
}

/** Nobody is told; the arena sets another one before anything can go wrong. */
export const NO_SINK: DebugSink = {
  stack: () => 0,
  bug: () => {},
  fix: () => {},
  kept: () => {},
  trace: () => {},
  flush: () => {},
};
