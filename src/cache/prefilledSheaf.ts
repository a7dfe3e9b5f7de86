/** A borrowed sheaf, as its thread sees it. Its words lie in the arena, where whoever reaps the thread finds them. */
import type { Views } from '../cpu/index.js';
import { __GFP_ZERO } from '../page/index.js';
import { BOOT_SHEAF, prefilledCapacity, SHEAF_OBJECTS, Sheaf, type SheafPtr } from '../sheaf/index.js';
import { SLAB_KEEPS_STATE, SLAB_POISON, SLAB_TYPESAFE_BY_RCU } from '../slab/index.js';
import { countText, INSPECT, SlabBugError } from '../struct/index.js';
import type { KmemCache } from './kmemCache.js';

/**
 * Objects that were set aside by {@link KmemCache.prefill}. Only the thread that borrowed it can use it. Once it has
 * been returned, or replaced by a refill, or its thread has gone offline, everything here throws SlabBugError.
 */
export abstract class PrefilledSheaf {
  /** The handle of the cache that lent it. */
  readonly cache: KmemCache;

  constructor(cache: KmemCache) {
    this.cache = cache;
  }

  /** One line for console.log. */
  [INSPECT](): string {
    const of = `PrefilledSheaf of ${JSON.stringify(this.cache.name)}`;
    if (this.ended !== '') return `${of} { over: it ${this.ended} }`;
    return `${of} { ${this.size} of ${countText(this.capacity, 'object')} left }`;
  }

  /**
   * Allocates one object: takes no lock, asks for no memory, counts nothing. Returns 0 only when the sheaf is empty,
   * which after prefill(n) or refill(n) is after n allocations at the earliest. Of `gfp`, `__GFP_ZERO` is looked at.
   * Kernel: `kmem_cache_alloc_from_sheaf`.
   */
  abstract alloc(gfp?: number): number;
  /** Objects that are left. Kernel: `kmem_cache_sheaf_size`. */
  abstract get size(): number;
  /** Objects that fit in. */
  abstract get capacity(): number;

  /** The sheaf in the arena; the bootstrap sheaf once the loan is over. @internal */
  abstract get at(): SheafPtr;
  /** Why the loan is over, or '' while it is not. @internal */
  abstract get ended(): string;
  /** The cache has taken the sheaf back; `why` goes into the error that whoever uses it now gets. @internal */
  abstract end(why: string): void;
}

export type PrefilledSheafClass = new (cache: KmemCache, sheaf: SheafPtr) => PrefilledSheaf;

/** The report for a handle whose loan is over. */
export function endedLoan(sheaf: PrefilledSheaf): SlabBugError {
  const what = `Prefilled sheaf used after it ${sheaf.ended}`;
  return new SlabBugError('bad-sheaf', sheaf.cache.name, 0, what);
}

/** Makes the class; call it once per thread and arena, as makeHotCode does, and for the same reason. */
export function makePrefilledSheaf(views: Views, checked: boolean, init: boolean): PrefilledSheafClass {
  const m = views.m;
  const shadow = views.shadow;
  const CHECKED = checked;
  const INIT = init;
  const SIZE = Sheaf.size;
  const TOP = SHEAF_OBJECTS - 1;
  const ZERO = __GFP_ZERO;

  return class HotPrefilledSheaf extends PrefilledSheaf {
    #at: SheafPtr;
    #tag: number;
    #ended = '';
    /** The arena zeroes what it hands out, and this cache's objects have no contents to keep. */
    #inits: boolean;

    constructor(cache: KmemCache, sheaf: SheafPtr) {
      super(cache);
      this.#at = sheaf;
      this.#tag = cache.desc.tag;
      this.#inits = (cache.desc.flags & (SLAB_TYPESAFE_BY_RCU | SLAB_POISON | SLAB_KEEPS_STATE)) === 0;
    }

    override alloc(gfp: number = 0): number {
      const zero = gfp & ZERO; // before anything is read: its conversion may throw, or allocate itself
      const sheaf = this.#at;
      const size = m[sheaf + SIZE]!;
      if (size === 0) return this.#allocEmpty();
      const p = m[sheaf + TOP + size]!;
      if (CHECKED) shadow[p >> 3] = this.#tag; // before the size word shrinks (B4)
      m[sheaf + SIZE] = size - 1;
      if (zero !== 0 || (INIT && this.#inits)) this.cache.zero(p);
      return p;
    }

    override get size(): number {
      this.#assertLent();
      return m[this.#at + SIZE]!;
    }

    override get capacity(): number {
      this.#assertLent();
      return prefilledCapacity(m, this.#at);
    }

    override get at(): SheafPtr {
      return this.#at;
    }

    override get ended(): string {
      return this.#ended;
    }

    override end(why: string): void {
      this.#ended = why;
      this.#at = BOOT_SHEAF; // size 0 for ever: alloc misses without a test for it
    }

    #allocEmpty(): number {
      this.#assertLent();
      return 0;
    }

    #assertLent(): void {
      if (this.#ended !== '') throw endedLoan(this);
    }
  };
}
