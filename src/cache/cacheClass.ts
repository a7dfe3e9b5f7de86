/** Classes of handles that do more before and after than those that they extend: failslab, initOnAlloc, initOnFree. */
import { __GFP_ZERO, GFP_KERNEL } from '../page/index.js';
import { SLAB_KEEPS_STATE, SLAB_POISON, SLAB_TYPESAFE_BY_RCU } from '../slab/index.js';
import { INIT_ON_ALLOC, INIT_ON_FREE } from '../struct/index.js';
import type { BulkKmemCache } from './bulk.js';
import type { KmemCacheClass } from './kmemCache.js';
import type { PrefilledSheaf } from './prefilledSheaf.js';

type BulkClass = new (...args: ConstructorParameters<typeof BulkKmemCache>) => BulkKmemCache;

const failingClasses = new WeakMap<KmemCacheClass, KmemCacheClass>();

/** The same class with failslab in front of its allocations; made once for each. */
export function withFailslab(base: KmemCacheClass): KmemCacheClass {
  const known = failingClasses.get(base);
  if (known !== undefined) return known;
  const made = failingClass(base as BulkClass);
  failingClasses.set(base, made);
  return made;
}

function failingClass(Base: BulkClass): KmemCacheClass {
  return class FailingKmemCache extends Base {
    /** A slow path ends in the fast one: that is the same allocation. */
    private within = false;

    private allocUnlessFailed<T>(gfp: number, failed: T, alloc: () => T): T {
      if (this.within) return alloc();
      this.assertAlive();
      if (this.context.failslab.shouldFail(gfp)) return failed;
      this.within = true;
      try {
        return alloc();
      } finally {
        this.within = false;
      }
    }

    override alloc(gfp: number = GFP_KERNEL): number {
      return this.allocUnlessFailed(gfp, 0, () => super.alloc(gfp));
    }

    override allocNode(node: number, gfp: number = GFP_KERNEL): number {
      return this.allocUnlessFailed(gfp, 0, () => super.allocNode(node, gfp));
    }

    override allocRequested(size: number, gfp: number, node: number): number {
      return this.allocUnlessFailed(gfp, 0, () => super.allocRequested(size, gfp, node));
    }

    override allocBulk(out: Int32Array, n: number, gfp: number = GFP_KERNEL): boolean {
      return this.allocUnlessFailed(gfp, false, () => super.allocBulk(out, n, gfp));
    }

    /** One allocation, however many objects: the kernel's hook passes it by, the stubs of its tests do not. */
    override prefill(n: number, gfp: number = GFP_KERNEL): PrefilledSheaf | null {
      return this.allocUnlessFailed(gfp, null, () => super.prefill(n, gfp));
    }

    override refill(sheaf: PrefilledSheaf, n: number, gfp: number = GFP_KERNEL): PrefilledSheaf | null {
      return this.allocUnlessFailed(gfp, null, () => super.refill(sheaf, n, gfp));
    }
  };
}

/**
 * A layer's class in an arena with initOnAlloc or initOnFree. `init` is the arena's; a cache whose free objects have
 * contents to keep is left out of it. Kernel: `slab_want_init_on_alloc`, `slab_want_init_on_free`.
 */
export function withInit(base: KmemCacheClass, init: number): KmemCacheClass {
  if (init === 0) return base;
  return initClass(base as BulkClass, (init & INIT_ON_ALLOC) !== 0, (init & INIT_ON_FREE) !== 0);
}

function initClass(Base: BulkClass, onAlloc: boolean, onFree: boolean): KmemCacheClass {
  return class InitKmemCache extends Base {
    private readonly keeps =
      (this.desc.flags & (SLAB_TYPESAFE_BY_RCU | SLAB_POISON | SLAB_KEEPS_STATE)) !== 0;
    private readonly wipes = onFree && !this.keeps;
    private readonly zeroes = onAlloc && !this.keeps ? __GFP_ZERO : 0;

    override alloc(gfp: number = GFP_KERNEL): number {
      return this.unlinked(super.alloc(gfp | this.zeroes));
    }

    override allocNode(node: number, gfp: number = GFP_KERNEL): number {
      return this.unlinked(super.allocNode(node, gfp | this.zeroes));
    }

    override allocNolock(gfp: number): number {
      return this.unlinked(super.allocNolock(gfp | this.zeroes));
    }

    override allocBulk(out: Int32Array, n: number, gfp: number = GFP_KERNEL): boolean {
      if (!super.allocBulk(out, n, gfp | this.zeroes)) return false;
      for (let i = 0; i < n; i++) this.unlinked(out[i]!);
      return true;
    }

    override free(p: number): void {
      this.wipe(p);
      super.free(p);
    }

    override freeNolock(p: number): void {
      this.wipe(p);
      super.freeNolock(p);
    }

    override freeBulk(list: Int32Array, n: number): void {
      if (this.wipes) this.freeBulkSlow(list, n);
      else super.freeBulk(list, n);
    }

    /** Their marks are gone: none is refused any more, and a batch that is refused has lost nothing. */
    protected override freeAll(list: Int32Array, n: number): void {
      if (this.wipes) for (let i = 0; i < n; i++) this.zero(list[i]!);
      super.freeAll(list, n);
    }

    /** An rcu_free sheaf goes back to the barn as it is: what it holds would not be wiped after its grace period. */
    protected override pushRcu(p: number): boolean {
      return this.wipes ? false : super.pushRcu(p);
    }

    protected override pushRcuNolock(p: number): boolean {
      return this.wipes ? false : super.pushRcuNolock(p);
    }

    override freePastLayer(p: number): void {
      this.wipe(p);
      super.freePastLayer(p);
    }

    /** A free object holds a link in its middle, which a wipe at its free came too early for. */
    private unlinked(p: number): number {
      if (p !== 0 && this.wipes) this.m[(p + this.desc.offset) >> 2] = 0;
      return p;
    }

    private wipe(p: number): void {
      if (!this.wipes) return;
      this.assertAlive();
      this.assertFreeable(p);
      this.zero(p);
    }
  };
}
