/**
 * Caches some of whose objects are guarded: one of so many allocations on each thread comes from the pool of guards.ts.
 * A class of its own: other caches' paths do not know of it. Whatever frees an object comes by here, and an address of the
 * pool is told by its range.
 */
import { checkGfp, GFP_KERNEL } from '../page/index.js';
import {
  SLAB_ACCOUNT,
  SLAB_CTOR,
  SLAB_DEBUG_FLAGS,
  SLAB_DTOR,
  SLAB_RCU_DEBUG,
  SLAB_TYPESAFE_BY_RCU,
} from '../slab/index.js';
import { describe, INIT_ON_ALLOC, INIT_ON_FREE, PAGE_SIZE } from '../struct/index.js';
import type { BulkKmemCache } from './bulk.js';
import type { CacheContext } from './context.js';
import type { KmemCacheClass } from './fastPath.js';
import type { Guards } from './guards.js';
import { checkHead, HEADLESS } from './kfreeRcu.js';
import { Channel } from './kfreeRcuLists.js';

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
  if ((flags & (SLAB_CTOR | SLAB_DTOR)) !== 0) return 'guarded objects are not constructed';
  if ((flags & (SLAB_TYPESAFE_BY_RCU | SLAB_RCU_DEBUG)) !== 0) return 'readers may look at its free objects';
  return (flags & SLAB_DEBUG_FLAGS) !== 0 ? 'a debug cache checks all of its objects' : '';
}

const made = new WeakMap<KmemCacheClass, KmemCacheClass>();

/** The same class with some of its objects guarded; made once for each. */
export function withGuard(base: KmemCacheClass): KmemCacheClass {
  const known = made.get(base);
  if (known !== undefined) return known;
  // Every layer's class is one of these; what makes them says less.
  const fresh = guardedClass(base as unknown as typeof BulkKmemCache);
  made.set(base, fresh);
  return fresh;
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

    override alloc(gfp: number = GFP_KERNEL): number {
      if (--this.left > 0) return super.alloc(gfp);
      this.left = this.every;
      this.assertAlive();
      checkGfp(gfp);
      const p = this.guards.alloc(this.desc, gfp, this.zeroes);
      return p !== 0 ? p : super.alloc(gfp);
    }

    override free(p: number): void {
      if (!this.guards.owns(p)) return super.free(p);
      this.assertAlive();
      this.guards.free(this.desc, p);
    }

    /** The slow paths begin again: that is one operation. */
    protected override allocAgain(gfp: number): number {
      return super.alloc(gfp);
    }

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
      this.guards.free(this.desc, p, true);
      this.context.kfreeRcu.add(p, Channel.SLAB, word);
    }

    override freeRcuNolock(p: number, head: number): void {
      if (!this.guards.owns(p)) return super.freeRcuNolock(p, head);
      this.assertAlive();
      const word = p + checkHead(head, this.objectSize);
      this.guards.free(this.desc, p, true);
      this.context.kfreeRcu.addNolock(word);
    }

    override freeAfterGracePeriod(p: number): void {
      if (this.guards.owns(p)) this.guards.freeWaiting(p);
      else super.freeAfterGracePeriod(p);
    }

    override freeBulkAfterGracePeriod(list: Int32Array, n: number): void {
      const others = list.subarray(0, n).filter((p) => !this.guards.owns(p));
      for (const p of this.guardedOf(list, n)) this.guards.freeWaiting(p);
      if (others.length > 0) super.freeBulkAfterGracePeriod(others, others.length);
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
