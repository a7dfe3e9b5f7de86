/**
 * A cache that shares another's slabs and sheaves: Vlastimil Babka's `primary_cache`, from the discussion of static
 * caches. It has a name, a size and a life of its own; what is allocated through it is its primary's, and a report about
 * an object therefore names the primary.
 *
 * Every operation goes to the primary's handle, of which a thread has one: two of them would each want the lock of this
 * CPU's sheaves. Unlike a handle of a cache of its own it looks at each operation whether it has been destroyed, because
 * the sheaves that would tell live on with the primary.
 */
import type { Stats, TrylockStats } from '../../cpu/index.js';
import { GFP_KERNEL } from '../../page/index.js';
import { BulkKmemCache } from '../bulk.js';
import type { CacheContext } from '../context.js';
import type { KmemCache } from '../kmemCache.js';
import type { PrefilledSheaf } from '../prefilledSheaf.js';
import type { ShrinkReport } from '../reports.js';

export class AliasKmemCache extends BulkKmemCache {
  private readonly served: KmemCache;

  constructor(context: CacheContext, slot: number, served: KmemCache) {
    super(context, slot);
    this.served = served;
    this.sheafCapacity = served.sheafCapacity;
  }

  override get primary(): KmemCache {
    return this.served;
  }

  override alloc(gfp: number = GFP_KERNEL): number {
    return this.live().alloc(gfp);
  }

  override free(p: number): void {
    this.live().free(p);
  }

  override freeRcu(p: number): void {
    this.live().freeRcu(p);
  }

  override rcuBarrier(): void {
    this.live().rcuBarrier();
  }

  override allocBulk(out: Int32Array, n: number, gfp: number = GFP_KERNEL): boolean {
    return this.live().allocBulk(out, n, gfp);
  }

  override freeBulk(list: Int32Array, n: number): void {
    this.live().freeBulk(list, n);
  }

  override prefill(n: number, gfp: number = GFP_KERNEL): PrefilledSheaf | null {
    return this.live().prefill(n, gfp);
  }

  override refill(sheaf: PrefilledSheaf, n: number, gfp: number = GFP_KERNEL): PrefilledSheaf | null {
    return this.live().refill(sheaf, n, gfp);
  }

  override return(sheaf: PrefilledSheaf, gfp: number = GFP_KERNEL): void {
    this.live().return(sheaf, gfp);
  }

  override allocOrThrow(gfp: number = GFP_KERNEL): number {
    return this.live().allocOrThrow(gfp);
  }

  override allocNode(node: number, gfp: number = GFP_KERNEL): number {
    return this.live().allocNode(node, gfp);
  }

  override prefillArray(count: number, gfp: number = GFP_KERNEL): boolean {
    return this.live().prefillArray(count, gfp);
  }

  override allocNolock(gfp: number): number {
    return this.live().allocNolock(gfp);
  }

  override freeNolock(p: number): void {
    this.live().freeNolock(p);
  }

  override assertAllocated(p: number): void {
    this.live().assertAllocated(p);
  }

  override shrink(): ShrinkReport {
    return this.live().shrink();
  }

  override get minPartial(): number {
    return this.live().minPartial;
  }
  override set minPartial(value: number) {
    this.live().minPartial = value;
  }

  override stats(): Stats {
    return this.live().stats();
  }

  override layerStats(): Record<string, number> {
    return this.live().layerStats();
  }

  override trylockStats(): TrylockStats {
    return this.live().trylockStats();
  }

  override setupPercpuArray(count: number): KmemCache {
    return this.live().setupPercpuArray(count);
  }

  private live(): KmemCache {
    if (this.m[this.serialWord] !== this.desc.serial) this.assertAlive();
    return this.served;
  }

  /** Objects of this name may be larger than those of the primary were when its handle was opened. */
  override learnSizes(): void {
    this.served.learnSizes();
  }
}
