/**
 * SLUB_RCU_DEBUG: in a cache with SLAB_TYPESAFE_BY_RCU, an object that is freed may be somebody else's a moment later, and
 * a reader that goes on using it after its read section has ended may never notice. With this on, each object is
 * freed a grace period late: a reader finds in its section what it found at the beginning, and what changes under it
 * changes after the section.
 */
import type { BulkKmemCache } from '../bulk.js';
import type { KmemCacheClass } from '../kmemCache.js';
import { HEADLESS } from '../rcu/kfreeRcu.js';

/** The same kind of cache with late frees. Call once per class, thread and arena. */
export function withRcuDebug(base: KmemCacheClass): KmemCacheClass {
  // Every layer's class is one of these; what makes them says less.
  const Base = base as unknown as typeof BulkKmemCache;
  return class RcuDebugKmemCache extends Base {
    /** Whether the grace period of what is freed now is over. */
    private due = false;

    override free(p: number): void {
      if (this.due) return super.free(p);
      this.assertAlive();
      this.takeBack(p); // it counts as free from now on: a second free is refused
      this.m[this.context.kfreeRcu.handHead] = HEADLESS;
      this.m[this.context.kfreeRcu.hand] = p; // K1
      this.context.kfreeRcu.add(p);
    }

    override freeBulk(list: Int32Array, n: number): void {
      if (this.due) return super.freeBulk(list, n);
      this.freeBulkSlow(list, n);
    }

    /** They are marked as free. */
    protected override freeAll(list: Int32Array, n: number): void {
      if (this.due) return super.freeAll(list, n);
      for (let i = 0; i < n; i++) {
        this.m[this.context.kfreeRcu.handHead] = HEADLESS;
        this.m[this.context.kfreeRcu.hand] = list[i]!;
        this.context.kfreeRcu.add(list[i]!);
      }
    }

    /** kfree_rcu has waited already. */
    override freeAfterGracePeriod(p: number): void {
      this.whenDue(() => super.freeAfterGracePeriod(p));
    }

    override freeBulkAfterGracePeriod(list: Int32Array, n: number): void {
      this.whenDue(() => super.freeBulkAfterGracePeriod(list, n));
    }

    private whenDue(free: () => void): void {
      this.due = true;
      try {
        free();
      } finally {
        this.due = false;
      }
    }
  };
}
