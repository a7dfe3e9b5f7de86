/** The heap of an arena: kmalloc and whole pages, for the thread that is online. */
import {
  type BucketsOptions,
  type Caches,
  callerSite,
  createBuckets,
  type Failslab,
  type FailslabOptions,
  familyOfSite,
  KmallocSite,
  type KmallocSiteOptions,
  type KmemBuckets,
  type KmemCache,
  openBuckets,
} from './cache/index.js';
import { type SlabReportHandler, SlabReports } from './debug/index.js';
import { __GFP_ZERO, GFP_KERNEL, NUMA_NO_NODE } from './page/index.js';
import type { PercpuAllocator } from './percpu/index.js';
import { requireInteger } from './struct/index.js';

/** What {@link Arena} has for memory by size and by page. */
export abstract class ArenaHeap {
  protected readonly reports = new SlabReports();
  /** What this thread has open; throws CpuError while it is no CPU. */
  protected abstract get caches(): Caches;
  /** Percpu memory: areas of which every CPU slot has a copy. */
  abstract get percpu(): PercpuAllocator;

  /**
   * Allocates `size` bytes, up to KMALLOC_MAX_SIZE. Returns an address, 0 when out of memory, ZERO_SIZE_PTR for size 0. It is
   * aligned to 8 bytes at least, for a size that is a power of two to that, up to 4096. Without `__GFP_ZERO` the bytes are
   * undefined. `__GFP_DMA`, `__GFP_RECLAIMABLE` and `__GFP_ACCOUNT` ask for caches of another type, where the arena has them
   * (`kmalloc: { types }`). Throws RangeError or TypeError for any other size or node, and where they are looked at, flags;
   * OutOfMemoryError only with `__GFP_NOFAIL`. Kernel: `kmalloc`, `kmalloc_node`.
   * @example
   * const p = arena.kmalloc(100);
   * if (p !== 0) arena.i32[p >> 2] = 42;
   */
  kmalloc(size: number, gfp: number = GFP_KERNEL, node: number = NUMA_NO_NODE): number {
    return this.caches.kmallocs.alloc(size, gfp, node);
  }

  /** kmalloc, zeroed: all that is usable. Kernel: `kzalloc`. */
  kzalloc(size: number, gfp: number = GFP_KERNEL): number {
    return this.caches.kmallocs.alloc(size, gfp | __GFP_ZERO);
  }

  /**
   * A place that calls kmalloc, in an arena with copies of the kmalloc caches (`kmalloc: { copies: 15 }`): a hash of the
   * place and of the arena's seed chooses the copy, so that what other places allocate is seldom its neighbour. Make it
   * once, where the call stands; in arenas without copies it is kmalloc. Throws RangeError or TypeError that names the
   * option. Kernel: `kmalloc_type` with CONFIG_RANDOM_KMALLOC_CACHES, or the partitions of 7.2.
   * @example
   * const site = arena.kmallocSite();
   * const p = site.alloc(64); // freed with arena.kfree
   */
  kmallocSite(options: KmallocSiteOptions = {}): KmallocSite {
    const { kmallocs, geometry } = this.caches;
    return new KmallocSite(
      kmallocs,
      familyOfSite(geometry, options, () => callerSite(this.kmallocSite)),
    );
  }

  /**
   * Makes a private set of kmalloc caches, `NAME-8` to `NAME-8k`, which never merge. Throws RangeError, TypeError or
   * OutOfMemoryError as createCache does, and then none was made. Kernel: `kmem_buckets_create`.
   * @example
   * const messages = arena.createBuckets('msg_msg');
   * const p = messages.alloc(48 + length); // freed with arena.kfree
   */
  createBuckets(name: string, options: BucketsOptions = {}): KmemBuckets {
    return createBuckets(this.caches, name, options);
  }

  /** Opens the set that any thread has made. Throws RangeError when there is none of that name. */
  openBuckets(name: string): KmemBuckets {
    return openBuckets(this.caches, name);
  }

  /**
   * Frees what kmalloc or a cache returned, on any CPU. 0 and ZERO_SIZE_PTR are nothing to free. Throws SlabBugError, and
   * changes nothing, unless `p` is allocated (with `check: 'none'` an object is not looked at). Kernel: `kfree`.
   * @example
   * arena.kfree(arena.kmalloc(100));
   */
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

  /**
   * Waits, blocking, until everything that was given to kfreeRcu and freeRcu is free. Throws CpuError as
   * {@link KmemCache.rcuBarrier} does, with all else free. Kernel: `kvfree_rcu_barrier`.
   */
  kfreeRcuBarrier(): void {
    this.caches.kfreeRcu.barrierAll();
  }

  /**
   * kmalloc for callbacks that run inside the allocator, whatever lock this thread holds there: it waits for nothing.
   * Returns 0 when out of memory, when a lock that it needs is taken, and above KMALLOC_MAX_CACHE_SIZE. `gfp` may have
   * `__GFP_ZERO`, `__GFP_NOWARN` and `__GFP_ACCOUNT`, else it throws RangeError. Kernel: `kmalloc_nolock`.
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

  /**
   * Frees `list[0..n)`, of any kmalloc sizes, one by one. Throws SlabBugError as kfree does: those before the bad entry are
   * free then, the others are not. TypeError or RangeError for a list or an `n` that cannot be, with nothing freed. Kernel:
   * `kfree_bulk`.
   */
  kfreeBulk(list: Int32Array, n: number): void {
    this.caches.kmallocs.freeBulk(list, n);
  }

  /** kfree, after all that is usable at `p` was overwritten with zeroes. Kernel: `kfree_sensitive`. */
  kfreeSensitive(p: number): void {
    this.caches.kmallocs.freeSensitive(p);
  }

  /**
   * Resizes; the block moves if the new size does not fit. On failure returns 0 and the old block stays. With `__GFP_ZERO`
   * what was not asked for before is zero, in an arena with `kmalloc: { requestedSize: true }` and for whole pages. In
   * others it is if every allocation and krealloc of the block had the flag. For `p` 0 it is kmalloc; size 0 frees, and
   * returns ZERO_SIZE_PTR. Throws RangeError or TypeError for sizes and flags, SlabBugError unless `p` is a block, with
   * nothing changed. Kernel: `krealloc`.
   * @example
   * const larger = arena.krealloc(p, 200);
   * if (larger !== 0) p = larger; // else p is as it was
   */
  krealloc(p: number, size: number, gfp: number = GFP_KERNEL): number {
    return this.caches.kmallocs.realloc(p, size, gfp);
  }

  /** What was asked for at `p` last, in bytes; 0 where it is not kept (`kmalloc: { requestedSize: true }`). */
  requestedSize(p: number): number {
    return this.caches.kmallocs.requestedSize(p);
  }

  /** Bytes usable at `p`, at least those asked for; throws SlabBugError as kfree does. Kernel: `ksize`. */
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

  /**
   * Allocates 2^order pages of 4096 bytes. Returns their address, a multiple of 4096, or 0 when out of memory. Throws RangeError or TypeError for an order that is none of 0 to 10, a node and flags; OutOfMemoryError only
   * with `__GFP_NOFAIL`. Kernel: `alloc_pages`.
   * @example
   * const p = arena.allocPages(2); // 16 KiB
   * if (p !== 0) arena.freePages(p, 2);
   */
  allocPages(order: number, gfp: number = GFP_KERNEL, node: number = NUMA_NO_NODE): number {
    return this.caches.pages.allocPages(order, gfp, node);
  }

  /**
   * Frees what allocPages returned, with the same order. Throws SlabBugError, and changes nothing, unless that is a block
   * of that order which is allocated. Kernel: `__free_pages`.
   */
  freePages(address: number, order: number): void {
    this.caches.pages.freePages(address, order);
  }

  /**
   * Refuses every `every`-th page request of this thread, to see that callers survive it; 0 ends it. Returns how many were
   * refused until now. Throws RangeError or TypeError. Kernel: `fail_page_alloc`.
   */
  failPageAlloc(every: number): { refused: number } {
    requireInteger('every', every, 0, 0x7fffffff);
    return { refused: this.caches.pages.refuseEach(every) };
  }

  /**
   * Makes allocations of this thread fail, from the caches that are marked for it (SLAB_FAILSLAB, `A` in slabDebug);
   * `{}` ends it. The object that is returned counts the failures. Kernel: failslab, fail-nth.
   * @example
   * for (let nth = 1, more = true; more; nth++) { const fault = arena.failslab({ nth }); work(); more = !fault.pending; }
   */
  failslab(options: FailslabOptions): Failslab {
    this.caches.failslab.set(options);
    return this.caches.failslab;
  }

  /**
   * Checks what surrounds the guarded objects, and the bytes of those that are free; other threads may go on. Returns how
   * many were damaged; what was wrong is reported, once. 0 in an arena without `guard`. Kernel: `kfence_check_all_canary`.
   * @example
   * arena.onSlabReport(({ what, object }) => log.error(what, object?.allocated?.stack));
   * setInterval(() => arena.scanGuards(), 1000);
   */
  scanGuards(): number {
    return this.caches.guards.scan();
  }

  /**
   * Calls `handler` with each report about debug caches that this thread makes, instead of printing them to the console.
   * The function that is returned ends it.
   */
  onSlabReport(handler: SlabReportHandler): () => void {
    return this.reports.on(handler);
  }
}
