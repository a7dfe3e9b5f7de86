/** The heap of an arena: kmalloc and whole pages, for the thread that is online. */
import type { Caches, KmemCache } from './cache/index.js';
import { __GFP_ZERO, checkGfp, GFP_KERNEL, NUMA_NO_NODE } from './page/index.js';
import type { PercpuAllocator } from './percpu/index.js';
import { type Bytes, type Geometry, requireInteger } from './struct/index.js';

export abstract class ArenaHeap {
  abstract readonly u8: Bytes;
  abstract readonly geometry: Geometry;
  /** What this thread has open; throws CpuError while it is no CPU. */
  protected abstract get caches(): Caches;
  /** Percpu memory: areas of which every CPU slot has a copy. */
  abstract get percpu(): PercpuAllocator;

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
   * Frees what kmalloc or a cache gave, after a grace period: threads that read it go on. Counts as freed at once. `head`
   * as for {@link KmemCache.freeRcu}. Kernel: `kfree_rcu`.
   */
  kfreeRcu(p: number, head?: number): void {
    this.caches.kmallocs.freeRcu(p, head);
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

  /**
   * kfreeRcu for the same callbacks, which needs the word: what the CPU's sheaf does not take is linked through it. Kernel:
   * `kfree_rcu_nolock`.
   * @example arena.kfreeRcuNolock(p, 4);
   */
  kfreeRcuNolock(p: number, head: number): void {
    this.caches.nolock.freeRcu(p, head);
  }

  /** Frees `list[0..n)`, of any kmalloc sizes. */
  kfreeBulk(list: Int32Array, n: number): void {
    this.caches.kmallocs.freeBulk(list, n);
  }

  /** Resizes; the block moves if the new size does not fit. On failure returns 0 and the old block stays. */
  krealloc(p: number, size: number, gfp: number = GFP_KERNEL): number {
    return this.caches.kmallocs.realloc(p, size, gfp);
  }

  /** Bytes usable at `p`. */
  ksize(p: number): number {
    return this.caches.kmallocs.ksize(p);
  }

  /** `percpu.alloc`: a percpu address, or 0 when out of memory. Kernel: `__alloc_percpu_gfp`. */
  allocPercpu(size: number, align = 8, gfp: number = GFP_KERNEL): number {
    return this.percpu.alloc(size, align, gfp);
  }

  /** `percpu.free`: gives a percpu area back. Kernel: `free_percpu`. */
  freePercpu(p: number): void {
    this.percpu.free(p);
  }

  /** `percpu.ptr`: the address of a CPU's copy. Kernel: `per_cpu_ptr`. */
  perCpuPtr(p: number, cpu: number): number {
    return this.percpu.ptr(p, cpu);
  }

  /** Allocates 2^order pages; returns their address or 0. */
  allocPages(order: number, gfp: number = GFP_KERNEL, node: number = NUMA_NO_NODE): number {
    requireInteger('order', order, 0, 10);
    requireInteger('node', node, NUMA_NO_NODE, this.geometry.nodes - 1);
    checkGfp(gfp);
    const { pages } = this.caches;
    const page = pages.alloc(order, gfp, node);
    if (page === 0) return 0;
    const address = pages.address(page);
    if ((gfp & __GFP_ZERO) !== 0) this.u8.fill(0, address, address + (4096 << order));
    return address;
  }

  /** Frees what allocPages returned, with the same order. */
  freePages(address: number, order: number): void {
    this.caches.pages.freePages(address, order);
  }
}
