/** What the layers around a cache ask of it, and none of its users: what it holds outside of slabs comes and goes here. */
import { type PcsPtr, Stat } from '../cpu/index.js';
import type { SheafPtr } from '../sheaf/index.js';
import { relearnSizes } from '../slab/index.js';
import { ObjectMarks } from './objectMarks.js';

// Imported names are looked up at each use; module-local constants are folded.
const { FREE_SLOWPATH } = Stat;

export abstract class InnerKmemCache extends ObjectMarks {
  /** The grace period of an object that no sheaf took is over: frees it as if only now. @internal */
  abstract freeAfterGracePeriod(p: number): void;

  /** The same for `list[0..n)`. @internal */
  abstract freeBulkAfterGracePeriod(list: Int32Array, n: number): void;

  /** Whether what kfree_rcu frees is better freed one by one, as there is nothing to gain by more. @internal */
  get freesSingly(): boolean {
    return false;
  }

  /** Reads again how large its objects are: another cache may have merged into it. slab_mutex held. @internal */
  learnSizes(): void {
    relearnSizes(this.m, this.desc);
  }

  /** Visits each free object that the layer holds outside of slabs, other than in sheaves; others are quiet. @internal */
  forEachCached(_visit: (p: number, place: string) => void): void {}

  /** A restricted context's alloc: no lock is waited for. @internal */
  abstract allocNolock(gfp: number): number;

  /** A restricted context's free. @internal */
  abstract freeNolock(p: number): void;

  /** Flushes this CPU's own sheaves of this cache. @internal */
  flushThisCpu(): void {
    this.flushOwn();
  }

  /** Takes the objects out of another CPU's sheaves; the caller holds its pcs lock. @internal */
  detachPcs(pcs: PcsPtr): void {
    this.detach(pcs);
  }

  /** Takes a CPU's rcu_free sheaf; the caller holds its pcs lock, and calls flushDetachedPcs afterwards. @internal */
  detachRcuSheaf(pcs: PcsPtr): void {
    if (this.sheafCapacity > 0) this.detachRcu(pcs);
  }

  /** Gives what detachPcs took back to the slabs; the caller has given up the pcs lock. @internal */
  flushDetachedPcs(): void {
    this.flushDetached();
  }

  /** Flushes and frees the sheaves that a CPU's thread has borrowed; it is gone. @internal */
  abstract flushPrefilled(pcs: PcsPtr): void;

  /** Ends what this thread has borrowed; of a cache that is no more, the memory stays where it is. @internal */
  abstract endLoans(isLive: boolean): void;

  /** Lets go of what detachPcs took: it was a dead thread's, and cannot be told to be whole. @internal */
  forgetDetachedPcs(): void {}

  /** Frees an object straight to its slab: what reclaim frees must not fill a sheaf again. @internal */
  freePastLayer(p: number): void {
    this.takeBack(p);
    this.freeToSlab(p);
  }

  /** Gives the objects of a sheaf that nothing leads to back to the slabs, and its memory. @internal */
  flushAndFreeSheaf(sheaf: SheafPtr): void {
    this.flushSheaf(sheaf);
    this.context.freeEmptySheaf(this.desc, sheaf);
  }

  /** Throws unless `p` is an allocated object of this cache; reads only. @internal */
  assertAllocated(p: number): void {
    this.assertFreeable(p);
  }

  /** Frees an object that takeBack has accepted, past the sheaves. */
  protected freeToSlab(p: number): void {
    this.count(FREE_SLOWPATH);
    this.slabs.freeOne(this.desc, p);
  }
}
