/**
 * Handles: numbers in place of addresses, each of which means one allocation and no other, so that whoever uses an object
 * after it was freed gets an error at that access, and not somebody else's bytes. They are plain numbers, the same in every
 * thread. What they count is in generations.ts; caches whose handles nobody asks for know nothing of this.
 *
 * A handle is generation * 2^b + index: the index is the address in units of the largest power of two that divides the
 * addresses of all objects of the cache, b the bits of the largest one. What is left of 53 bits, at most 30, counts
 * allocations of the place. A place that has used them all up is retired: its object stays out of use until the cache is
 * destroyed.
 */
import { GFP_KERNEL } from '../page/index.js';
import { SLAB_CTOR, SLAB_DTOR } from '../slab/index.js';
import {
  type Bytes,
  describe,
  hexAddress,
  INSPECT,
  OutOfMemoryError,
  PAGE_SHIFT,
  SlabBugError,
  type Words,
} from '../struct/index.js';
import { cmpxchg, fetchAdd, Intent, loadAcquire } from '../sync/index.js';
import type { CacheContext } from './context.js';
import { GenerationRoot, Generations } from './generations.js';
import type { KmemCache } from './kmemCache.js';

const HANDLE_BITS = 53;
const GENERATION_BITS_MAX = 30;
const LOW_WORD = 2 ** 32;

/**
 * A handle as two words, for an Int32Array; whoever reads them needs a lock, or whatever else keeps both together.
 * @example
 * words.set(splitHandle(h), 8);
 * const again = joinHandle(words[8], words[9]);
 */
export function splitHandle(handle: number): [low: number, high: number] {
  return [handle | 0, Math.floor(handle / LOW_WORD)];
}

/** The handle that splitHandle has split. */
export function joinHandle(low: number, high: number): number {
  return high * LOW_WORD + (low >>> 0);
}

/**
 * The objects of one cache by handle, on this thread. Any number of threads may have theirs; the handles are the same.
 * An object that came from here is freed here: the cache's own free works, but only the next allocation of the place
 * makes the handle void for sure.
 * @example
 * const sessions = arena.createCache('session', { size: 96 }).handles();
 * const h = sessions.alloc(); // 0 when out of memory
 * new Float64Array(shared)[0] = h; // any thread may have it
 * arena.i32[sessions.at(h) >> 2] = 1;
 * sessions.free(h);
 * sessions.at(h); // throws SlabBugError, kind 'use-after-free', also when the place is in use again
 */
export class CacheHandles {
  readonly cache: KmemCache;
  /** Times that one place can be given out. @internal */
  readonly generations: number;
  private readonly context: CacheContext;
  private readonly m: Words;
  private readonly shadow: Bytes;
  private readonly words: Generations;
  /** An allocated object's byte in the shadow. */
  private readonly tag: number;
  private readonly checked: boolean;
  private readonly unit: number;
  /** 2^b. */
  private readonly span: number;

  constructor(context: CacheContext, cache: KmemCache) {
    const { desc } = cache.primary;
    const words = Generations.of(context, desc);
    if (words === undefined) throw new OutOfMemoryError(`no memory for the handles of cache ${cache.name}`);
    this.cache = cache;
    this.context = context;
    this.m = context.views.m;
    this.shadow = context.views.shadow;
    this.words = words;
    this.tag = desc.tag;
    this.checked = context.check !== 'none';
    this.unit = unitOf(desc.size | desc.redLeftPad);
    const indexBits = 32 - Math.clz32((context.geometry.bytes - 1) >>> this.unit);
    this.span = 2 ** indexBits;
    this.generations = 2 ** Math.min(GENERATION_BITS_MAX, HANDLE_BITS - indexBits) - 1;
  }

  /** One line for console.log. */
  [INSPECT](): string {
    return `CacheHandles of ${JSON.stringify(this.cache.name)} { ${this.generations} generations }`;
  }

  /** Allocates an object. Returns its handle, or 0 when out of memory. `gfp` and contents as those of the cache's alloc. */
  alloc(gfp: number = GFP_KERNEL): number {
    for (;;) {
      const p = this.cache.alloc(gfp);
      if (p === 0) return 0;
      const at = this.words.findOrMake(p);
      if (at === 0) {
        this.cache.free(p);
        return 0;
      }
      const generation = this.renew(at);
      if (generation <= this.generations) return generation * this.span + (p >> this.unit);
      this.retire(p);
    }
  }

  /**
   * The address of a handle's object, for use at once: what another thread frees in the meantime is not noticed. Throws
   * SlabBugError: `use-after-free` when the object was freed, whoever has its place now, `invalid-pointer` for what was
   * never a handle of this cache, `cache-destroyed`.
   */
  at(handle: number): number {
    const generation = Math.floor(handle / this.span);
    const p = (handle - generation * this.span) << this.unit;
    const word = this.words.find(p);
    const out = word !== 0 && this.m[word] === 2 * generation - 1;
    // data race, intended: who frees it while we look may as well have done so a moment later.
    const marked = !this.checked || this.shadow[p >> 3] === this.tag;
    if (out && marked && this.cache.isAlive) return p;
    return this.look(handle, 'use-after-free');
  }

  /** Frees a handle's object; of threads that free it at once, one does. Throws as `at` does, but `double-free`. */
  free(handle: number): void {
    const p = this.look(handle, 'double-free');
    const generation = Math.floor(handle / this.span);
    const { cpu } = this.context;
    // Whoever dies in here leaves an object that has no handle; its reaper says so.
    cpu.enter(Intent.FREE, this.cache.desc.slot);
    try {
      // Pairs with itself: one thread's succeeds.
      const odd = 2 * generation - 1;
      if (cmpxchg(this.m, this.words.find(p), odd, odd + 1) !== odd) throw this.wrong(handle, 'double-free');
      if (generation === this.generations) this.retire(p);
      else this.cache.free(p);
    } finally {
      cpu.leave();
    }
  }

  /** Whether `at` would give an address. */
  has(handle: number): boolean {
    try {
      this.at(handle);
      return true;
    } catch (error) {
      if (error instanceof SlabBugError) return false;
      throw error;
    }
  }

  /** Objects that are out of use because their places have been given out as often as there are handles for. */
  get retired(): number {
    this.cache.assertAlive();
    return this.m[this.words.root + GenerationRoot.nrRetired]!;
  }

  /** The next generation of an object that was allocated just now; more than there are when its place is used up. */
  private renew(at: number): number {
    for (;;) {
      const word = loadAcquire(this.m, at);
      // Odd: it was freed past its handle, which ends now.
      const generation = ((word + 1) >> 1) + 1;
      if (generation > this.generations) return generation;
      // Pairs with that of a free past whose handle the object was freed: one of them counts.
      if (cmpxchg(this.m, at, word, 2 * generation - 1) === word) return generation;
    }
  }

  /** Keeps an object allocated, with those before it behind it. A constructed one is left as it is, in no list. */
  private retire(p: number): void {
    const { m } = this;
    const head = this.words.root + GenerationRoot.retired;
    fetchAdd(m, this.words.root + GenerationRoot.nrRetired, 1);
    if ((this.cache.desc.flags & (SLAB_CTOR | SLAB_DTOR)) !== 0) return;
    for (;;) {
      const next = loadAcquire(m, head);
      m[p >> 2] = next;
      // Pairs with itself and with the exchange in freeRetired.
      if (cmpxchg(m, head, next, p) === next) return;
    }
  }

  /** Everything that can be wrong with a handle, in the order in which it can be told. */
  private look(handle: number, kind: 'use-after-free' | 'double-free'): number {
    this.cache.assertAlive();
    const generation = Math.floor(handle / this.span);
    const p = (handle - generation * this.span) << this.unit;
    const word = Number.isSafeInteger(handle) && handle > 0 ? this.words.find(p) : 0;
    if (word === 0 || this.m[word] !== 2 * generation - 1) throw this.wrong(handle, kind);
    try {
      this.cache.primary.assertAllocated(p); // was it freed past its handle?
    } catch (error) {
      if (!(error instanceof SlabBugError) || error.kind !== 'double-free') throw error;
      const what = `Object of handle ${handle} already free: ${hexAddress(p)} was freed by its address`;
      throw new SlabBugError(kind, this.cache.name, p, what);
    }
    return p;
  }

  private wrong(handle: number, kind: 'use-after-free' | 'double-free'): SlabBugError {
    const { name } = this.cache;
    if (!Number.isSafeInteger(handle) || handle <= 0) {
      const what = `Invalid handle ${describe(handle)}: no positive safe integer`;
      return new SlabBugError('invalid-pointer', name, 0, what);
    }
    const generation = Math.floor(handle / this.span);
    const p = (handle - generation * this.span) << this.unit;
    const hex = hexAddress(p);
    const word = this.words.find(p);
    const now = word === 0 ? 0 : loadAcquire(this.m, word);
    if (generation === 0 || now < 2 * generation - 1) {
      const what = `Invalid handle ${handle}: ${hex} has been given out ${(now + 1) >> 1} times, and this would be number ${generation}`;
      return new SlabBugError('invalid-pointer', name, p, what);
    }
    const later = ((now + 1) >> 1) - generation;
    const since = later === 0 ? 'is free' : `has been allocated ${later} times since`;
    const what = `Object of handle ${handle} already free: ${hex} was freed as number ${generation}, and ${since}`;
    return new SlabBugError(kind, name, p, what);
  }
}

/** Exponent of the largest power of two, 8 to a page, that divides what all addresses are sums of. */
const unitOf = (sizes: number): number => Math.min(PAGE_SHIFT, 31 - Math.clz32(sizes & -sizes));
