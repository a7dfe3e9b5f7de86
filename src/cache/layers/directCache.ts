/**
 * A cache of layer 'none': every operation goes to a slab, an allocation under list_lock. It takes no pcs lock, its own
 * CPU's least of all, and counts each operation as a slow one. The caches that caches are made of are of this kind.
 */
import { Stat } from '../../cpu/index.js';
import { checkGfp, GFP_KERNEL, NUMA_NO_NODE } from '../../page/index.js';
import { requireInteger } from '../../struct/index.js';
import { Intent } from '../../sync/index.js';
import { BulkKmemCache } from '../bulk.js';
import type { KmemCacheClass } from '../kmemCache.js';

const { ALLOC, FREE } = Intent;
// Imported names are looked up at each use; module-local constants are folded.
const { ALLOC_SLOWPATH, ALLOC_NODE_MISMATCH } = Stat;

/** Call once per thread and arena, as for the other layers. */
export function directClass(): KmemCacheClass {
  return class DirectKmemCache extends BulkKmemCache {
    override alloc(gfp: number = GFP_KERNEL): number {
      return this.allocDirect(gfp, NUMA_NO_NODE);
    }

    override allocNode(node: number, gfp: number = GFP_KERNEL): number {
      if (node !== NUMA_NO_NODE) requireInteger('node', node, 0, this.desc.nodes - 1);
      return this.allocDirect(gfp, node);
    }

    override free(p: number): void {
      this.assertAlive();
      this.cpu.enter(FREE, this.desc.slot);
      try {
        if (this.m[this.request]! < 0) this.cpu.serveRequests();
        this.takeBack(p);
        this.freeToSlab(p);
      } finally {
        this.cpu.leave();
      }
    }

    private allocDirect(gfp: number, node: number): number {
      this.assertAlive();
      checkGfp(gfp);
      this.cpu.enter(ALLOC, this.desc.slot);
      try {
        if (this.m[this.request]! < 0) this.cpu.serveRequests();
        if (node !== NUMA_NO_NODE && node !== this.cpu.node) this.count(ALLOC_NODE_MISMATCH);
        return this.handOut(this.allocFromSlab(gfp, node), gfp);
      } finally {
        this.cpu.leave();
      }
    }

    protected override allocAll(out: Int32Array, n: number, gfp: number): boolean {
      const { slabs, desc } = this;
      if (this.m[this.request]! < 0) this.cpu.serveRequests();
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
      if (this.m[this.request]! < 0) this.cpu.serveRequests();
      this.slabs.freeObjectsSlow(this.desc, list, 0, n);
    }
  };
}
