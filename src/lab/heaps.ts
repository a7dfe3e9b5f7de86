/**
 * What a workload allocates from: the arena itself in a timed run, or a layer over it that checks cookies or takes
 * the time of some calls. A pool's threads run one kind only, so the loops' calls have one target.
 */
import type { Arena } from '../arena.js';
import type { KmemCache } from '../cache/index.js';
import type { Histogram } from './histogram.js';

/** Objects of one size; KmemCache has it. */
export interface ObjectHeap {
  readonly objsPerSlab: number;
  alloc(): number;
  free(p: number): void;
  allocBulk(out: Int32Array, n: number): boolean;
  freeBulk(list: Int32Array, n: number): void;
}

/** A sheaf that was prefilled for one thread. */
export interface PrefilledSheaf {
  /** An object's address, or 0 when it is empty. */
  alloc(): number;
}

/** Objects that can be provided for; a KmemCache with prefilled sheaves has it. */
export interface PrefilledObjects extends ObjectHeap {
  prefill(n: number): PrefilledSheaf | null;
  return(sheaf: PrefilledSheaf): void;
}

/** Objects that can be freed after a grace period; KmemCache has it. */
export interface DeferredObjects extends ObjectHeap {
  freeRcu(p: number): void;
  rcuBarrier(): void;
}

/** Objects by handle, on one thread; CacheHandles has it. */
export interface ObjectHandles {
  alloc(): number;
  at(handle: number): number;
  free(handle: number): void;
}

/** Objects that can be had by handle; KmemCache has it. */
export interface HandledObjects extends ObjectHeap {
  handles(): ObjectHandles;
}

/** Blocks of any size; Arena has it. */
export interface SizedHeap {
  kmalloc(size: number): number;
  kfree(p: number): void;
  kfreeBulk(list: Int32Array, n: number): void;
}

/** Blocks by call site; Arena has it. */
export interface SitedBlocks extends SizedHeap {
  kmallocSite(options: { site: number }): { alloc(size: number): number };
}

/** How a workload is run: as fast as it goes, with cookies checked, or with every 64th call timed. */
export const HEAP_KINDS = ['plain', 'verify', 'sampled'] as const;
export type HeapKind = (typeof HEAP_KINDS)[number];

const COOKIE_FACTOR = 0x9e3779b1;
const COOKIE_FLIP = 0x3c6ef372;
const cookieOf = (p: number): number => Math.imul(p, COOKIE_FACTOR) ^ COOKIE_FLIP;

/**
 * Cookies: the second and the last word of each allocated object say whose they are, and a free clears them. An
 * object that is handed out twice has a live cookie when it comes, one whose memory others use has lost it when it
 * goes. The first word is the workload's.
 */
export class Cookies {
  readonly #i32: Int32Array;
  errors = 0;

  constructor(i32: Int32Array) {
    this.#i32 = i32;
  }

  /** Marks the object of `bytes` at `p`, which has just been allocated. */
  put(p: number, bytes: number): void {
    const cookie = cookieOf(p);
    const i = p >> 2;
    if (this.#i32[i + 1] === cookie && this.#i32[i + (bytes >> 2) - 1] === cookie) this.errors++;
    this.#i32[i + 1] = cookie;
    this.#i32[i + (bytes >> 2) - 1] = cookie;
  }

  /** Takes the marks off the object of `bytes` at `p`, which is about to be freed. */
  take(p: number, bytes: number): void {
    const cookie = cookieOf(p);
    const i = p >> 2;
    if (this.#i32[i + 1] !== cookie || this.#i32[i + (bytes >> 2) - 1] !== cookie) this.errors++;
    this.#i32[i + 1] = 0;
    this.#i32[i + (bytes >> 2) - 1] = 0;
  }
}

class VerifiedSheaf implements PrefilledSheaf {
  readonly inner: PrefilledSheaf;
  readonly #cookies: Cookies;
  readonly #bytes: number;

  constructor(inner: PrefilledSheaf, cookies: Cookies, bytes: number) {
    this.inner = inner;
    this.#cookies = cookies;
    this.#bytes = bytes;
  }

  alloc(): number {
    const p = this.inner.alloc();
    if (p !== 0) this.#cookies.put(p, this.#bytes);
    return p;
  }
}

class VerifiedHandles implements ObjectHandles {
  readonly #inner: ObjectHandles;
  readonly #cookies: Cookies;
  readonly #bytes: number;

  constructor(inner: ObjectHandles, cookies: Cookies, bytes: number) {
    this.#inner = inner;
    this.#cookies = cookies;
    this.#bytes = bytes;
  }

  alloc(): number {
    const h = this.#inner.alloc();
    if (h !== 0) this.#cookies.put(this.#inner.at(h), this.#bytes);
    return h;
  }

  at(h: number): number {
    return this.#inner.at(h);
  }

  free(h: number): void {
    this.#cookies.take(this.#inner.at(h), this.#bytes);
    this.#inner.free(h);
  }
}

export class VerifiedObjects implements PrefilledObjects, DeferredObjects, HandledObjects {
  readonly #cache: KmemCache;
  readonly #cookies: Cookies;

  constructor(cache: KmemCache, cookies: Cookies) {
    this.#cache = cache;
    this.#cookies = cookies;
  }

  alloc(): number {
    const p = this.#cache.alloc();
    if (p !== 0) this.#cookies.put(p, this.#cache.objectSize);
    return p;
  }

  free(p: number): void {
    this.#cookies.take(p, this.#cache.objectSize);
    this.#cache.free(p);
  }

  allocBulk(out: Int32Array, n: number): boolean {
    if (!this.#cache.allocBulk(out, n)) return false;
    for (let i = 0; i < n; i++) this.#cookies.put(out[i]!, this.#cache.objectSize);
    return true;
  }

  freeBulk(list: Int32Array, n: number): void {
    for (let i = 0; i < n; i++) this.#cookies.take(list[i]!, this.#cache.objectSize);
    this.#cache.freeBulk(list, n);
  }

  freeRcu(p: number): void {
    this.#cookies.take(p, this.#cache.objectSize);
    this.#cache.freeRcu(p);
  }

  rcuBarrier(): void {
    this.#cache.rcuBarrier();
  }

  handles(): ObjectHandles {
    return new VerifiedHandles(this.#cache.handles(), this.#cookies, this.#cache.objectSize);
  }

  prefill(n: number): PrefilledSheaf | null {
    const sheaf = this.#prefilled.prefill(n);
    return sheaf === null ? null : new VerifiedSheaf(sheaf, this.#cookies, this.#cache.objectSize);
  }

  return(sheaf: PrefilledSheaf): void {
    this.#prefilled.return((sheaf as VerifiedSheaf).inner);
  }

  get objsPerSlab(): number {
    return this.#cache.objsPerSlab;
  }

  get #prefilled(): PrefilledObjects {
    return this.#cache as unknown as PrefilledObjects;
  }
}

export class VerifiedBlocks implements SitedBlocks {
  readonly #arena: Arena;
  readonly #cookies: Cookies;

  constructor(arena: Arena, cookies: Cookies) {
    this.#arena = arena;
    this.#cookies = cookies;
  }

  kmalloc(size: number): number {
    const p = this.#arena.kmalloc(size);
    if (p !== 0) this.#cookies.put(p, this.#arena.ksize(p));
    return p;
  }

  kmallocSite(options: { site: number }): { alloc(size: number): number } {
    const inner = this.#arena.kmallocSite(options);
    return {
      alloc: (size) => {
        const p = inner.alloc(size);
        if (p !== 0) this.#cookies.put(p, this.#arena.ksize(p));
        return p;
      },
    };
  }

  kfree(p: number): void {
    this.#cookies.take(p, this.#arena.ksize(p));
    this.#arena.kfree(p);
  }

  kfreeBulk(list: Int32Array, n: number): void {
    for (let i = 0; i < n; i++) this.#cookies.take(list[i]!, this.#arena.ksize(list[i]!));
    this.#arena.kfreeBulk(list, n);
  }
}

const SAMPLE_EVERY = 64;

/** Times every 64th call, one reading of the clock included. */
class Sampler {
  private left = SAMPLE_EVERY;
  private readonly histogram: Histogram;

  constructor(histogram: Histogram) {
    this.histogram = histogram;
  }

  protected due(): boolean {
    if (--this.left > 0) return false;
    this.left = SAMPLE_EVERY;
    return true;
  }

  protected record(start: number): void {
    this.histogram.record((performance.now() - start) * 1e6);
  }
}

export class SampledObjects extends Sampler implements ObjectHeap {
  private readonly cache: KmemCache;

  constructor(cache: KmemCache, histogram: Histogram) {
    super(histogram);
    this.cache = cache;
  }

  get objsPerSlab(): number {
    return this.cache.objsPerSlab;
  }

  alloc(): number {
    if (!this.due()) return this.cache.alloc();
    const start = performance.now();
    const p = this.cache.alloc();
    this.record(start);
    return p;
  }

  free(p: number): void {
    if (!this.due()) {
      this.cache.free(p);
      return;
    }
    const start = performance.now();
    this.cache.free(p);
    this.record(start);
  }

  allocBulk(out: Int32Array, n: number): boolean {
    if (!this.due()) return this.cache.allocBulk(out, n);
    const start = performance.now();
    const taken = this.cache.allocBulk(out, n);
    this.record(start);
    return taken;
  }

  freeBulk(list: Int32Array, n: number): void {
    if (!this.due()) {
      this.cache.freeBulk(list, n);
      return;
    }
    const start = performance.now();
    this.cache.freeBulk(list, n);
    this.record(start);
  }
}

export class SampledBlocks extends Sampler implements SizedHeap {
  private readonly arena: Arena;

  constructor(arena: Arena, histogram: Histogram) {
    super(histogram);
    this.arena = arena;
  }

  kmalloc(size: number): number {
    if (!this.due()) return this.arena.kmalloc(size);
    const start = performance.now();
    const p = this.arena.kmalloc(size);
    this.record(start);
    return p;
  }

  kfree(p: number): void {
    if (!this.due()) {
      this.arena.kfree(p);
      return;
    }
    const start = performance.now();
    this.arena.kfree(p);
    this.record(start);
  }

  kfreeBulk(list: Int32Array, n: number): void {
    if (!this.due()) {
      this.arena.kfreeBulk(list, n);
      return;
    }
    const start = performance.now();
    this.arena.kfreeBulk(list, n);
    this.record(start);
  }
}
