/** The heap of an arena: kmalloc and whole pages, for the thread that is online. */
import type { Caches } from './cache/index.js';
import { __GFP_ZERO, GFP_KERNEL, NUMA_NO_NODE } from './page/index.js';
import { describe, requireInteger } from './struct/index.js';

export abstract class ArenaHeap {
  /** What this thread has open; throws CpuError while it is no CPU. */
  protected abstract get caches(): Caches;

  /** Allocates `size` bytes. Returns an address, 0 when out of memory, ZERO_SIZE_PTR for size 0. */
  kmalloc(size: number, gfp: number = GFP_KERNEL, node: number = NUMA_NO_NODE): number {
    return this.caches.kmallocs.alloc(size, gfp, node);
  }

  /** kmalloc, zeroed. */
  kzalloc(size: number, gfp: number = GFP_KERNEL): number {
    return this.caches.kmallocs.alloc(size, gfp | __GFP_ZERO);
  }

  /** Frees what kmalloc returned, on any CPU. NULL and ZERO_SIZE_PTR are nothing to free. */
  kfree(p: number): void {
    this.caches.kmallocs.free(p);
  }

  /**
   * Frees what kmalloc or a cache gave, after a grace period: threads that read it go on. Counts as freed at once.
   * Kernel: `kfree_rcu`.
   */
  kfreeRcu(p: number): void {
    this.caches.kmallocs.freeRcu(p);
  }

  /** Waits, blocking, until everything that was given to kfreeRcu and freeRcu is free. Kernel: `kvfree_rcu_barrier`. */
  kfreeRcuBarrier(): void {
    this.caches.kfreeRcu.barrierAll();
  }

  /**
   * kmalloc for callbacks that run inside the allocator, whatever lock this thread holds there: it waits for nothing.
   * Returns 0 when out of memory, when a lock that it needs is taken, and above KMALLOC_MAX_CACHE_SIZE. `gfp` may have
   * `__GFP_ZERO` and `__GFP_NOWARN`, else it throws RangeError. Kernel: `kmalloc_nolock`.
   * @example
   * const p = arena.kmallocNolock(64, __GFP_ZERO);
   * if (p !== 0) arena.kfreeNolock(p);
   */
  kmallocNolock(size: number, gfp = 0): number {
    return this.caches.nolock.alloc(size, gfp);
  }

  /**
   * kfree for the same callbacks, of what kmallocNolock or kmalloc returned. What it cannot free at once it defers: such
   * an object counts as free, and its memory comes back with the end of the turn or an operation after it. Throws
   * SlabBugError as kfree does. Kernel: `kfree_nolock`.
   */
  kfreeNolock(p: number): void {
    this.caches.nolock.free(p);
  }

  /** Frees `list[0..n)`, of any kmalloc sizes. */
  kfreeBulk(list: Int32Array, n: number): void {
    if (!(list instanceof Int32Array)) {
      throw new TypeError(`list is ${describe(list)}; it must be an Int32Array of addresses`);
    }
    requireInteger('n', n, 0, list.length);
    for (let i = 0; i < n; i++) this.caches.kmallocs.free(list[i]!);
  }

  /** Resizes; the block moves if the new size does not fit. On failure returns 0 and the old block stays. */
  krealloc(p: number, size: number, gfp: number = GFP_KERNEL): number {
    return this.caches.kmallocs.realloc(p, size, gfp);
  }

  /** Bytes usable at `p`. */
  ksize(p: number): number {
    return this.caches.kmallocs.ksize(p);
  }

  /** Allocates 2^order pages; returns their address or 0. */
  allocPages(order: number, gfp: number = GFP_KERNEL, node: number = NUMA_NO_NODE): number {
    return this.caches.pages.allocPages(order, gfp, node);
  }

  /** Frees what allocPages returned, with the same order. */
  freePages(address: number, order: number): void {
    this.caches.pages.freePages(address, order);
  }
}
