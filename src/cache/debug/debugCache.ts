/**
 * A debug cache: nothing stands in front of its slabs, each operation is checked there under list_lock, and what is freed
 * wrongly is reported before it is refused. The caches without debug flags know nothing of this file.
 */
import { Stat } from '../../cpu/index.js';
import { __GFP_ZERO, checkGfp, GFP_KERNEL, NUMA_NO_NODE } from '../../page/index.js';
import { origSize, SLAB_CONSISTENCY_CHECKS, SLUB_RED_ACTIVE } from '../../slab/index.js';
import { requireInteger, SlabBugError } from '../../struct/index.js';
import { Intent } from '../../sync/index.js';
import { BulkKmemCache } from '../bulk.js';

const { ALLOC, FREE } = Intent;
const { ALLOC_SLOWPATH, ALLOC_NODE_MISMATCH } = Stat;

export class DebugKmemCache extends BulkKmemCache {
  override alloc(gfp: number = GFP_KERNEL): number {
    return this.allocDirect(gfp, NUMA_NO_NODE);
  }

  override allocNode(node: number, gfp: number = GFP_KERNEL): number {
    if (node !== NUMA_NO_NODE) requireInteger('node', node, 0, this.desc.nodes - 1);
    return this.allocDirect(gfp, node);
  }

  private allocDirect(gfp: number, node: number): number {
    this.assertAlive();
    checkGfp(gfp);
    this.cpu.enter(ALLOC, this.desc.slot);
    try {
      this.serve();
      if (node !== NUMA_NO_NODE && node !== this.cpu.node) this.count(ALLOC_NODE_MISMATCH);
      return this.handOut(this.allocFromSlab(gfp, node), gfp);
    } finally {
      this.cpu.leave();
    }
  }

  /**
   * Allocates for a request of `size` bytes, at most objectSize, which a kmalloc cache with SLAB_STORE_USER remembers:
   * what is behind it is red zone. Kernel: `__kmalloc_cache`.
   */
  override allocRequested(size: number, gfp: number, node: number): number {
    const p = this.allocNode(node, gfp); // of the class that this handle has, which may charge it or make it fail
    if (p === 0) return 0;
    const { checks } = this.slabs;
    checks.setOrigSize(this.desc, p, size);
    if ((gfp & __GFP_ZERO) !== 0) checks.initKmallocRedzone(this.desc, p);
    else checks.initObject(this.desc, p, SLUB_RED_ACTIVE);
    return p;
  }

  override free(p: number): void {
    this.assertAlive();
    this.cpu.enter(FREE, this.desc.slot);
    try {
      this.serve();
      this.takeBack(p);
      this.freeToSlab(p);
    } finally {
      this.cpu.leave();
    }
  }

  protected override allocAll(out: Int32Array, n: number, gfp: number): boolean {
    const { slabs, desc } = this;
    this.serve();
    const got = slabs.refillObjects(desc, out, 0, n, n, gfp);
    if (got < n) {
      slabs.freeObjects(desc, out, 0, got);
      return false;
    }
    this.count(ALLOC_SLOWPATH, n);
    for (let i = 0; i < n; i++) this.handOut(out[i]!, gfp);
    return true;
  }

  protected override freeAll(list: Int32Array, n: number): void {
    this.serve();
    for (let i = 0; i < n; i++) this.freeToSlab(list[i]!);
  }

  private serve(): void {
    if (this.m[this.request]! < 0) this.cpu.serveRequests();
  }

  /** What was asked for and no more: behind it is red zone. */
  override zero(p: number): void {
    this.context.views.u8.fill(0, p, p + origSize(this.m, this.desc, p));
  }

  protected override takeBack(p: number): void {
    try {
      super.takeBack(p);
    } catch (error) {
      throw this.reported(p, error);
    }
  }

  protected override assertFreeable(p: number): void {
    try {
      super.assertFreeable(p);
    } catch (error) {
      throw this.reported(p, error);
    }
  }

  private reported(p: number, error: unknown): unknown {
    const checked = (this.desc.flags & SLAB_CONSISTENCY_CHECKS) !== 0;
    return checked && error instanceof SlabBugError ? this.context.debug.refused(this, p, error) : error;
  }
}
