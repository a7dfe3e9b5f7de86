/**
 * Caches with SLAB_ACCOUNT: an object is charged to the group that its thread works for when it is allocated, and given
 * back to that group when it is freed, on whatever thread. Which group that is stands behind the object, in padding where
 * there is some. A class of its own: other caches' paths do not know of it. Kernel: `memcg_slab_post_alloc_hook`,
 * `memcg_slab_free_hook`, `SLAB_OBJ_EXT_IN_OBJ`.
 */
import { ThreadRecord } from '../../cpu/index.js';
import { GFP_KERNEL, NUMA_NO_NODE } from '../../page/index.js';
import { objExtOffset } from '../../slab/index.js';
import type { Words } from '../../struct/index.js';
import type { BulkKmemCache } from '../bulk.js';
import type { CacheContext } from '../context.js';
import type { KmemCache, KmemCacheClass } from '../kmemCache.js';
import type { PrefilledSheafClass } from '../prefilledSheaf.js';
import { checkHead } from '../rcu/kfreeRcu.js';
import { type GroupPtr, STOCK_BYTES } from './memoryGroup.js';

/** The same kind of cache, charged. Call once per class and arena for the thread that has this record. */
export function withAccounting(base: KmemCacheClass, m: Words, record: number): KmemCacheClass {
  // Every layer's class is one of these; what makes them says less.
  const Base = base as unknown as typeof BulkKmemCache;
  const STOCK_MAX = 2 * STOCK_BYTES;
  // Constants, and so at addresses that need no bounds check.
  const STOCK_OF = record + ThreadRecord.stockOf;
  const STOCK = record + ThreadRecord.stockBytes;

  class AccountedKmemCache extends Base {
    // What is charged. Properties of the prototype, which V8 knows from the receiver's map: `super` is looked up, and a
    // constant function's `call` needs a look at that function.
    declare allocUncharged: (gfp: number) => number;
    declare freeUncharged: (p: number) => void;
    /** Byte offset of an object's group behind the object. */
    private readonly ext: number;
    private readonly cost: number;

    constructor(context: CacheContext, slot: number) {
      super(context, slot);
      this.ext = objExtOffset(this.desc);
      this.cost = this.desc.size;
    }

    override alloc(gfp: number = GFP_KERNEL): number {
      const p = this.allocUncharged(gfp);
      const left = (m[STOCK]! - this.cost) | 0;
      // Negative, too, without an object: addresses are less than 2^31.
      if ((left | (p - 1)) < 0) return this.chargeOne(p);
      m[STOCK] = left;
      m[(p + this.ext) >> 2] = m[STOCK_OF]!;
      return p;
    }

    override free(p: number): void {
      const owner = m[(p + this.ext) >> 2]!;
      this.freeUncharged(p);
      const stock = m[STOCK]!; // what is more than 0 goes back at the end of the turn; nobody has a stock of nobody
      // In one branch: another group's, 0, or more than STOCK_MAX, which is a power of two.
      const slow = (owner ^ m[STOCK_OF]!) | ((stock - 1) & -STOCK_MAX);
      if (slow !== 0) return this.unchargeSlow(owner, this.cost);
      m[STOCK] = stock + this.cost;
    }

    /** The slow paths begin again: that is one allocation, charged once. */
    protected override allocAgain(gfp: number): number {
      return super.alloc(gfp);
    }

    protected override freeAgain(p: number): void {
      super.free(p);
    }

    override allocNode(node: number, gfp = GFP_KERNEL): number {
      return node === NUMA_NO_NODE ? this.alloc(gfp) : this.chargeOne(super.allocNode(node, gfp));
    }

    /** Takes the charge for an object, or gives it back and returns 0. */
    private chargeOne(p: number): number {
      if (p === 0) return 0;
      if (!this.context.accounting.charge(this.cost)) {
        super.free(p);
        return 0;
      }
      m[(p + this.ext) >> 2] = m[STOCK_OF]!;
      return p;
    }

    override charge(p: number): boolean {
      this.assertAlive();
      this.assertAllocated(p);
      const at = (p + this.ext) >> 2;
      if (m[at] !== 0) return true;
      if (!this.context.accounting.charge(this.cost)) return false;
      m[at] = m[STOCK_OF]!;
      return true;
    }

    private unchargeSlow(owner: number, bytes: number): void {
      this.context.accounting.uncharge(owner as GroupPtr, bytes);
    }

    override allocBulk(out: Int32Array, n: number, gfp: number = GFP_KERNEL): boolean {
      if (!super.allocBulk(out, n, gfp)) return false;
      if (!this.context.accounting.charge(n * this.cost)) {
        super.freeBulk(out, n);
        return false;
      }
      const owner = m[STOCK_OF]!;
      for (let i = 0; i < n; i++) m[(out[i]! + this.ext) >> 2] = owner;
      return true;
    }

    override freeBulk(list: Int32Array, n: number): void {
      const owed = this.owedBy(list, n);
      super.freeBulk(list, n);
      for (const [owner, objects] of owed) this.unchargeSlow(owner, objects * this.cost);
    }

    /** Objects by group; of a list that may be wrong, as freeBulk is about to find out. */
    private owedBy(list: Int32Array, n: number): Map<number, number> {
      const owed = new Map<number, number>();
      const most = Math.min(n, list?.length ?? 0);
      for (let i = 0; i < most; i++) {
        const owner = m[(list[i]! + this.ext) >> 2] ?? 0;
        owed.set(owner, (owed.get(owner) ?? 0) + 1);
      }
      return owed;
    }

    /** Counts as freed at once; the free after the grace period finds no group. */
    override freeRcu(p: number, head?: number): void {
      const owner = this.leaveGroup(p, head);
      super.freeRcu(p, head);
      this.unchargeSlow(owner, this.cost);
    }

    override freeRcuNolock(p: number, head: number): void {
      const owner = this.leaveGroup(p, head);
      super.freeRcuNolock(p, head);
      this.unchargeSlow(owner, this.cost);
    }

    /** Throws what freeRcu throws, with nothing changed; then the object belongs to nobody. Returns whom it belonged to. */
    private leaveGroup(p: number, head: number | undefined): number {
      this.assertAlive();
      if (head !== undefined) checkHead(head, this.objectSize);
      this.assertAllocated(p);
      const at = (p + this.ext) >> 2;
      const owner = m[at]!;
      m[at] = 0;
      return owner;
    }

    /** Charges wait for no lock, and nothing that they change is in hand where a restricted context cuts in. */
    override allocNolock(gfp: number): number {
      const p = super.allocNolock(gfp);
      if (p === 0) return 0;
      if (!this.context.accounting.charge(this.cost)) {
        super.freeNolock(p);
        return 0;
      }
      m[(p + this.ext) >> 2] = m[STOCK_OF]!;
      return p;
    }

    /** What is put off counts as free: its group is not looked for again. */
    override freeNolock(p: number): void {
      const owner = m[(p + this.ext) >> 2]!;
      super.freeNolock(p);
      this.unchargeSlow(owner, this.cost);
    }

    override zero(p: number): void {
      m[(p + this.ext) >> 2] = 0; // not charged yet, should it go back
      super.zero(p);
    }

    protected override zeroAll(list: Int32Array, n: number): void {
      for (let i = 0; i < n; i++) m[(list[i]! + this.ext) >> 2] = 0;
      super.zeroAll(list, n);
    }

    /** An object of a prefilled sheaf is promised: it is charged whatever the limit. */
    chargeForced(p: number): void {
      this.context.accounting.force(this.cost);
      m[(p + this.ext) >> 2] = m[STOCK_OF]!;
    }

    protected override sheafClass(): PrefilledSheafClass {
      return this.context.accountedSheaf;
    }
  }
  AccountedKmemCache.prototype.allocUncharged = Base.prototype.alloc;
  AccountedKmemCache.prototype.freeUncharged = Base.prototype.free;
  return AccountedKmemCache;
}

interface ConcreteSheaf {
  readonly cache: KmemCache;
  alloc(gfp?: number): number;
}

/** Objects out of a prefilled sheaf of an accounted cache. */
export function withForcedCharge(Sheaf: PrefilledSheafClass): PrefilledSheafClass {
  // It is no abstract class: PrefilledSheaf is only its type.
  const Base = Sheaf as unknown as new (...args: ConstructorParameters<PrefilledSheafClass>) => ConcreteSheaf;
  class AccountedSheaf extends Base {
    override alloc(gfp?: number): number {
      const p = super.alloc(gfp);
      if (p !== 0) (this.cache as unknown as { chargeForced(p: number): void }).chargeForced(p);
      return p;
    }
  }
  return AccountedSheaf as unknown as PrefilledSheafClass;
}
