/**
 * Caches some of whose objects are guarded: one of so many allocations on each thread comes from the pool of guards.ts.
 * Classes of their own: other caches' paths do not know of them. Whatever frees an object comes by here, and an address of
 * the pool is told by its range.
 *
 * In the caches of kmalloc only kmalloc itself guards (guardedKmalloc.ts), which knows how much was asked for. Their `alloc`
 * serves what the allocator needs for itself, too, sheaves and the like: those last, and would use up the pool.
 */
import { __GFP_THISNODE, checkGfp, GFP_KERNEL, NUMA_NO_NODE } from '../../page/index.js';
import {
  SLAB_ACCOUNT,
  SLAB_CACHE_DMA,
  SLAB_CACHE_DMA32,
  SLAB_CTOR,
  SLAB_DEBUG_FLAGS,
  SLAB_DTOR,
  SLAB_RCU_DEBUG,
  SLAB_TYPESAFE_BY_RCU,
} from '../../slab/index.js';
import {
  describe,
  INIT_ON_ALLOC,
  INIT_ON_FREE,
  PAGE_SIZE,
  requireInteger,
  WORD_BYTES,
} from '../../struct/index.js';
import { Intent } from '../../sync/index.js';
import type { BulkKmemCache } from '../bulk.js';
import type { CacheContext } from '../context.js';
import type { KmemCacheClass } from '../kmemCache.js';
import { checkHead, HEADLESS } from '../rcu/kfreeRcu.js';
import { Channel } from '../rcu/kfreeRcuLists.js';
import type { Guards } from './guards.js';

/** What the arena says of its caches. */
export interface GuardRule {
  readonly guardEvery: number;
  /** Index in CHECK_LEVELS. */
  readonly check: number;
}

/**
 * Whether objects of a cache are guarded. `wanted` is the cache's own option: true must be possible, undefined is where it
 * is. Throws RangeError or TypeError.
 */
export function isGuarded(
  wanted: unknown,
  { guardEvery, check }: GuardRule,
  flags: number,
  size: number,
): boolean {
  if (wanted !== undefined && typeof wanted !== 'boolean') {
    throw new TypeError(`guard is ${describe(wanted)}; it must be a boolean`);
  }
  const obstacle = guardEvery === 0 ? 'the arena was made without guard' : obstacleTo(flags, size, check);
  if (wanted === true && obstacle !== '') throw new RangeError(`guard is true; ${obstacle}`);
  return wanted !== false && obstacle === '';
}

function obstacleTo(flags: number, size: number, check: number): string {
  if (size > PAGE_SIZE) return `objects of ${size} bytes do not fit into a guarded page of ${PAGE_SIZE}`;
  if (check === 0) return "it needs an arena with check 'free' or 'full'";
  if ((flags & SLAB_ACCOUNT) !== 0)
    return 'objects of a cache with SLAB_ACCOUNT have their group behind them';
  if ((flags & (SLAB_CACHE_DMA | SLAB_CACHE_DMA32)) !== 0) return 'a guarded page lies in no zone for DMA';
  if ((flags & (SLAB_CTOR | SLAB_DTOR)) !== 0) return 'guarded objects are not constructed';
  if ((flags & (SLAB_TYPESAFE_BY_RCU | SLAB_RCU_DEBUG)) !== 0) return 'readers may look at its free objects';
  return (flags & SLAB_DEBUG_FLAGS) !== 0 ? 'a debug cache checks all of its objects' : '';
}

const guarded = new WeakMap<KmemCacheClass, KmemCacheClass>();
const sampling = new WeakMap<KmemCacheClass, KmemCacheClass>();

/** The same class for objects some of which may be guarded, those of kmalloc; made once for each. */
export function withGuard(base: KmemCacheClass): KmemCacheClass {
  return once(guarded, base, guardedClass);
}

/** The same class with some of what its `alloc` gives guarded; made once for each. */
export function withSampling(base: KmemCacheClass): KmemCacheClass {
  return once(sampling, withGuard(base), samplingClass);
}

function once(
  made: WeakMap<KmemCacheClass, KmemCacheClass>,
  base: KmemCacheClass,
  make: (Base: never) => KmemCacheClass,
): KmemCacheClass {
  let known = made.get(base);
  if (known === undefined) {
    // Every layer's class is one of those that it is made from; what makes them says less.
    known = make(base as never);
    made.set(base, known);
  }
  return known;
}

/** What GuardedKmemCache adds for the class that extends it. */
interface GuardedCache extends BulkKmemCache {
  isDue(): boolean;
  allocGuarded(bytes: number, gfp: number, node: number): number;
}

function samplingClass(
  Base: new (...args: ConstructorParameters<KmemCacheClass>) => GuardedCache,
): KmemCacheClass {
  return class SamplingKmemCache extends Base {
    override alloc(gfp: number = GFP_KERNEL): number {
      const p = this.isDue() ? this.allocGuarded(this.objectSize, gfp, NUMA_NO_NODE) : 0;
      return p !== 0 ? p : super.alloc(gfp);
    }

    override allocNode(node: number, gfp: number = GFP_KERNEL): number {
      if (node === NUMA_NO_NODE) return this.alloc(gfp);
      const p = this.isDue() ? this.allocGuarded(this.objectSize, gfp, node) : 0;
      return p !== 0 ? p : super.allocNode(node, gfp);
    }

    /** The slow paths begin again: that is one operation. */
    protected override allocAgain(gfp: number): number {
      return super.alloc(gfp);
    }
  };
}

function guardedClass(Base: typeof BulkKmemCache): KmemCacheClass {
  return class GuardedKmemCache extends Base {
    private readonly guards: Guards;
    private readonly every: number;
    private readonly zeroes: boolean;
    private left: number;

    constructor(context: CacheContext, slot: number) {
      super(context, slot);
      this.guards = context.guards;
      this.every = context.geometry.guardEvery;
      this.left = this.every;
      this.zeroes = (context.geometry.init & (INIT_ON_ALLOC | INIT_ON_FREE)) !== 0;
    }

    /** Counts an allocation; true if it is to be guarded. */
    isDue(): boolean {
      if (--this.left > 0) return false;
      this.left = this.every;
      return true;
    }

    /** A guarded object for a request of `bytes` bytes, or 0 where there is none. Kernel: `kfence_alloc`. */
    allocGuarded(bytes: number, gfp: number, node: number): number {
      this.assertAlive();
      checkGfp(gfp);
      const { nodes } = this.desc;
      requireInteger('node', node, NUMA_NO_NODE, nodes - 1);
      // The pool lies on one of them.
      if ((gfp & __GFP_THISNODE) !== 0 && nodes > 1) return 0;
      return this.guards.alloc(this.desc, gfp, this.zeroes, bytes);
    }

    /** For kmalloc: the class that samples is passed by, so that this is counted once. */
    override allocRequested(size: number, gfp: number, node: number): number {
      const p = this.isDue() ? this.allocGuarded(size, gfp, node) : 0;
      if (p !== 0) return p;
      return node === NUMA_NO_NODE ? super.alloc(gfp) : super.allocNode(node, gfp);
    }

    override free(p: number): void {
      if (!this.guards.owns(p)) return super.free(p);
      this.assertAlive();
      this.guards.free(this.desc, p);
    }

    /** The slow path begins again: that is one operation. */
    protected override freeAgain(p: number): void {
      super.free(p);
    }

    override freeBulk(list: Int32Array, n: number): void {
      const guarded = list instanceof Int32Array ? this.guardedOf(list, n) : [];
      if (guarded.length === 0) return super.freeBulk(list, n);
      this.assertAlive();
      // All or none: what is wrong with a guarded one is found before the others are freed.
      for (const [i, p] of guarded.entries()) {
        if (guarded.indexOf(p) !== i) throw this.guards.refused(this.desc, p);
        this.assertFreeable(p);
      }
      const others = list.subarray(0, n).filter((p) => !this.guards.owns(p));
      super.freeBulk(others, others.length);
      for (const p of guarded) this.guards.free(this.desc, p);
    }

    private guardedOf(list: Int32Array, n: number): number[] {
      return n === (n | 0) && n >= 0 && n <= list.length
        ? [...list.subarray(0, n)].filter((p) => this.guards.owns(p))
        : [];
    }

    override freeRcu(p: number, head?: number): void {
      if (!this.guards.owns(p)) return super.freeRcu(p, head);
      this.assertAlive();
      const word = head === undefined ? HEADLESS : p + checkHead(head, this.objectSize);
      this.guards.freeLater(this.desc, p, head === undefined ? 0 : head + WORD_BYTES);
      this.m[this.context.kfreeRcu.handHead] = word;
      this.m[this.context.kfreeRcu.hand] = p; // K1
      this.context.kfreeRcu.add(p, Channel.SLAB, word);
      this.slabs.checks.sink.flush();
    }

    override freeRcuNolock(p: number, head: number): void {
      if (!this.guards.owns(p)) return super.freeRcuNolock(p, head);
      this.assertAlive();
      const word = p + checkHead(head, this.objectSize);
      this.guards.freeLater(this.desc, p, head + WORD_BYTES);
      this.m[this.context.kfreeRcu.handNolock] = word; // K1
      this.context.kfreeRcu.addNolock(word);
      this.slabs.checks.sink.flush();
    }

    override freeAfterGracePeriod(p: number): void {
      if (this.guards.owns(p)) this.guards.freeWaiting(p);
      else super.freeAfterGracePeriod(p);
    }

    override freeBulkAfterGracePeriod(list: Int32Array, n: number): void {
      const others = list.subarray(0, n).filter((p) => !this.guards.owns(p));
      if (others.length === n) return super.freeBulkAfterGracePeriod(list, n);
      this.cpu.enter(Intent.FREE, this.desc.slot); // some of them will be free before all are
      try {
        for (const p of this.guardedOf(list, n)) this.guards.freeWaiting(p);
        if (others.length > 0) super.freeBulkAfterGracePeriod(others, others.length);
      } finally {
        this.cpu.leave();
      }
    }

    override freePastLayer(p: number): void {
      if (this.guards.owns(p)) this.free(p);
      else super.freePastLayer(p);
    }

    override freeNolock(p: number): void {
      if (this.guards.owns(p)) this.free(p);
      else super.freeNolock(p);
    }

    protected override assertFreeable(p: number): void {
      if (!this.guards.owns(p)) return super.assertFreeable(p);
      const fault = this.guards.fault(this.desc, p);
      if (fault !== undefined) throw fault;
    }
  };
}
