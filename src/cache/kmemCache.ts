/**
 * A cache, as one thread sees it. What is shared lies in the arena; this handle holds this CPU's way to it.
 *
 * `alloc` and `free` are in fastPath.ts, what they call when they miss in slowPath.ts. Here is the public interface of a
 * cache, and what is not hot.
 */
import {
  type StatItem,
  type Stats,
  sumLayerStats,
  sumStats,
  sumTrylockStats,
  type TrylockStats,
} from '../cpu/index.js';
import { __GFP_NOWARN, checkGfp, GFP_KERNEL, NUMA_NO_NODE, Zone, zoneOf } from '../page/index.js';
import { KmemCacheStruct, oomReport } from '../slab/index.js';
import {
  countText,
  INSPECT,
  type Layer,
  OutOfMemoryError,
  PAGE_SHIFT,
  PAGE_SIZE,
  requireInteger,
  SlabBugError,
} from '../struct/index.js';
import { Intent, loadAcquire } from '../sync/index.js';
import type { CacheContext } from './context.js';
import type { CacheDebug } from './debug/cacheDebug.js';
import { freeRetired } from './generations.js';
import { CacheHandles } from './handles.js';
import { InnerKmemCache } from './innerCache.js';
import type { PrefilledSheaf } from './prefilledSheaf.js';
import { RegistrySlot, registrySlot } from './registry.js';
import type { LeakReport, ShrinkReport } from './reports.js';

const { ALLOC } = Intent;

/**
 * A cache of objects of one size, for one thread: `arena.createCache` and `arena.openCache` give it. It ends with the thread's
 * time online. Every method throws SlabBugError once the cache was destroyed. Kernel: `struct kmem_cache`.
 * @example
 * const nodes = arena.createCache('node', { size: 96 });
 * const p = nodes.alloc();
 * if (p !== 0) nodes.free(p);
 */
export abstract class KmemCache extends InnerKmemCache {
  protected readonly serialWord: number;
  /** Byte range of this CPU's node. */
  protected readonly nodeStart: number;
  protected readonly nodeBytes: number;

  constructor(context: CacheContext, slot: number) {
    super(context, slot);
    const { geometry, views, cpu } = context;
    this.serialWord = registrySlot(geometry, slot) + RegistrySlot.serial;
    const zone = zoneOf(geometry, cpu.node);
    this.nodeStart = views.m[zone + Zone.startPfn]! << PAGE_SHIFT;
    this.nodeBytes = (views.m[zone + Zone.endPfn]! - views.m[zone + Zone.startPfn]!) * PAGE_SIZE;
  }

  /** One line for console.log. */
  [INSPECT](): string {
    const { name, objectSize, objects, layer, serial } = this.desc;
    const who = `KmemCache ${JSON.stringify(name)}`;
    // A hint: another thread may be destroying it now.
    if (this.m[this.serialWord] !== serial) return `${who} { destroyed }`;
    const front = this.mainCapacity > 0 ? `${layer} of ${this.mainCapacity}` : layer;
    const where = this.cpu.online ? `CPU ${this.cpu.id}` : 'its thread went offline';
    return `${who} { objects of ${countText(objectSize, 'byte')}, ${objects} a slab, ${front}, ${where} }`;
  }

  /** The cache whose slabs and sheaves hold its objects: itself, unless it merged into another by `merge: 'primary'`. */
  get primary(): KmemCache {
    return this;
  }

  get name(): string {
    return this.desc.name;
  }
  /** Stride in bytes. */
  get size(): number {
    return this.desc.size;
  }
  /** Bytes of an object as it was asked for. */
  get objectSize(): number {
    return this.desc.objectSize;
  }
  /** What stands in front of its slabs. */
  get layer(): Layer {
    return this.desc.layer;
  }
  /** A slab has 2^order pages. */
  get order(): number {
    return this.desc.order;
  }
  /** Objects in a slab. */
  get objsPerSlab(): number {
    return this.desc.objects;
  }
  /** Empty slabs that a node keeps; may be changed at any time. Throws when the cache was destroyed. */
  get minPartial(): number {
    this.assertAlive();
    return this.m[this.desc.ptr + KmemCacheStruct.minPartial]!;
  }
  set minPartial(value: number) {
    this.assertAlive();
    this.m[this.desc.ptr + KmemCacheStruct.minPartial] = requireInteger('minPartial', value, 0, 0x7fffffff);
  }

  /**
   * Allocates one object. Returns its address, or 0 when out of memory or when a constructor failed by returning a
   * number; throws ConstructorError when one threw. Contents are undefined unless `__GFP_ZERO`, which a cache with
   * constructors refuses with RangeError. Kernel: `kmem_cache_alloc`.
   * @example
   * const p = cache.alloc();
   * if (p !== 0) arena.i32[p >> 2] = 42;
   */
  abstract alloc(gfp?: number): number;

  /**
   * Frees one object, on any CPU. Throws SlabBugError, and changes nothing, unless `p` is an allocated object of this
   * cache (with `check: 'none'` it is not looked at). Kernel: `kmem_cache_free`.
   * @example
   * cache.free(p); // whichever thread it came from
   */
  abstract override free(p: number): void;

  /**
   * Frees an object after a grace period: readers that have it go on reading. It counts as freed at once, so a second
   * free of it is refused. `head` is the byte offset of a word of the object that no reader looks at, a multiple of 4:
   * without memory for a list the object is linked through it, where the call would otherwise wait. Kernel: `kfree_rcu`.
   * @example
   * rcu.assignPointer(slot, fresh);
   * cache.freeRcu(old);
   */
  abstract freeRcu(p: number, head?: number): void;

  /** freeRcu in a restricted context, which needs the word. Kernel: `kfree_rcu_nolock`. */
  abstract freeRcuNolock(p: number, head: number): void;

  /**
   * Waits, blocking, until what freeRcu was given is free. Throws CpuError that names the CPUs whose threads are blocked
   * within a turn, or gone, with objects in their sheaf for freeRcu; all others are free then. Kernel:
   * `kvfree_rcu_barrier_on_cache`.
   */
  abstract rcuBarrier(): void;

  /**
   * Allocates `n` objects into `out[0..n)`, or none and returns false, for n = 0 too. Throws TypeError or RangeError for a list
   * that is no Int32Array or too short, and for flags; ConstructorError as alloc does. Kernel: `kmem_cache_alloc_bulk`.
   * @example
   * const list = new Int32Array(32);
   * if (cache.allocBulk(list, 32)) cache.freeBulk(list, 32);
   */
  abstract allocBulk(out: Int32Array, n: number, gfp?: number): boolean;

  /**
   * Frees `list[0..n)`; may reorder it. Throws SlabBugError, and frees none, if one of them is not an allocated object of this
   * cache; TypeError or RangeError for a list or an `n` that cannot be. Kernel: `kmem_cache_free_bulk`.
   * @example
   * cache.freeBulk(Int32Array.of(p, q), 2);
   */
  abstract override freeBulk(list: Int32Array, n: number): void;

  /**
   * Borrows a sheaf with at least `n` objects, for a place where an allocation must not fail; null when out of memory,
   * or for n = 0. More than the cache's sheafCapacity is possible, up to 65532, and is made and freed for this once.
   * The sheaf is this thread's until return. Throws RangeError for other `n`. Kernel: `kmem_cache_prefill_sheaf`.
   * @example
   * const sheaf = cache.prefill(12);
   * if (sheaf === null) return false; // out of memory, and nothing has been begun
   * const p = sheaf.alloc(); // never 0 for the first 12
   * cache.return(sheaf);
   */
  abstract prefill(n: number, gfp?: number): PrefilledSheaf | null;

  /**
   * Fills a borrowed sheaf up so that it has at least `n` objects again. Returns the sheaf to use from now on, another
   * one if `n` needs a larger; null when out of memory, and then the old one is as it was. Kernel:
   * `kmem_cache_refill_sheaf`. Throws SlabBugError for a sheaf that this thread has not borrowed here.
   * @example
   * const refilled = cache.refill(sheaf, 12);
   * if (refilled !== null) sheaf = refilled;
   */
  abstract refill(sheaf: PrefilledSheaf, n: number, gfp?: number): PrefilledSheaf | null;

  /**
   * Takes a borrowed sheaf back, with what is left in it; it is of no use afterwards. Throws TypeError or SlabBugError for one
   * that this thread has not borrowed from this cache. Kernel: `kmem_cache_return_sheaf`.
   * @example
   * cache.return(sheaf);
   */
  abstract return(sheaf: PrefilledSheaf, gfp?: number): void;

  /**
   * Charges an allocated object that is charged to nobody, as one that was there before its thread had a group, to the
   * group that this thread works for now. False, with nothing changed, where a limit would be exceeded; one that is charged
   * stays as it is. Throws RangeError for a cache without SLAB_ACCOUNT, SlabBugError unless `p` is an allocated object of it. Kernel:
   * `kmem_cache_charge`.
   * @example
   * const p = cache.alloc(); // on behalf of nobody yet
   * arena.groups.workFor(group);
   * if (!cache.charge(p)) cache.free(p);
   */
  charge(_p: number): boolean {
    this.assertAlive();
    throw new RangeError(
      `cache ${this.name} was made without SLAB_ACCOUNT; its objects have no place for a group`,
    );
  }

  /** Like alloc, but throws OutOfMemoryError, with the report of {@link oomReport}, where alloc returns 0. */
  allocOrThrow(gfp: number = GFP_KERNEL): number {
    const p = this.alloc(gfp | __GFP_NOWARN);
    if (p === 0) throw new OutOfMemoryError(oomReport(this.cpu, this.slabs.pages, this.desc, gfp));
    return p;
  }

  /** Allocates from `node`, from others only without `__GFP_THISNODE`. Kernel: `kmem_cache_alloc_node`. */
  allocNode(node: number, gfp = GFP_KERNEL): number {
    if (node === NUMA_NO_NODE) return this.alloc(gfp);
    requireInteger('node', node, 0, this.desc.nodes - 1);
    checkGfp(gfp);
    this.assertAlive();
    this.cpu.enter(ALLOC, this.desc.slot);
    try {
      const p = this.allocCachedOn(node, gfp);
      if (this.context.policy === 'op') this.release();
      return this.handOut(p !== 0 ? p : this.allocFromSlab(gfp, node), gfp);
    } finally {
      if (this.context.policy === 'op') this.release();
      this.cpu.leave();
    }
  }

  /** Allocates for a request of `size` bytes, at most objectSize, which a cache of kmalloc may remember. @internal */
  allocRequested(_size: number, gfp: number, node: number): number {
    return this.allocNode(node, gfp);
  }

  /**
   * Fills this CPU's array, of the layer `percpu-array`, up to `count` objects. False when out of memory. It promises
   * nothing: another CPU may flush the array before it is used. Throws RangeError when there is no array or `count`
   * exceeds it. Kernel: `kmem_cache_prefill_percpu_array`.
   */
  prefillArray(count: number, _gfp = GFP_KERNEL): boolean {
    this.assertAlive();
    throw new RangeError(
      `cache ${this.name} has the layer '${this.layer}' and no array to prefill with ${count} objects`,
    );
  }

  /**
   * Puts an array of `count` objects per CPU in front of a cache that was made with the layer `none` and
   * SLAB_NO_MERGE. Returns the handle to use from now on; older ones pass the array by. Throws RangeError, or
   * OutOfMemoryError, with nothing changed. Kernel: `kmem_cache_setup_percpu_array`.
   * @example
   * const cache = arena.createCache('msg', { size: 96, layer: 'none', flags: SLAB_NO_MERGE }).setupPercpuArray(64);
   */
  setupPercpuArray(count: number): KmemCache {
    this.assertAlive();
    return this.context.setupPercpuArray(this, count);
  }

  /**
   * The cache's objects by handle: numbers that stop working when their object is freed, in every thread. Throws
   * OutOfMemoryError when there is no memory to count generations in: 4 bytes per page of the arena once, and per object.
   */
  handles(): CacheHandles {
    this.assertAlive();
    return new CacheHandles(this.context, this);
  }

  /**
   * Frees memory that nobody uses: all CPUs' sheaves, the barns, empty slabs. Says how many slabs went, and which CPUs kept
   * their sheaves because they were at them. Throws LockError when a lock is stuck. Kernel: `kmem_cache_shrink`.
   * @example
   * const { slabs } = cache.shrink();
   */
  shrink(): ShrinkReport {
    this.assertAlive();
    return this.context.shrink(this);
  }

  /**
   * Ends the cache. The report names each object that was not freed; with any, its memory stays. Throws RangeError for one of
   * the arena's own caches and for a static one, CpuError for a CPU that does not give up its sheaves: it can be tried again.
   * Kernel: `kmem_cache_destroy`.
   * @example
   * const { leaked } = cache.destroy();
   */
  destroy(): LeakReport {
    this.assertAlive();
    freeRetired(this.context, this.primary.desc, (p) => this.primary.free(p));
    return this.context.destroy(this);
  }

  /**
   * The 26 counters, summed over threads; exact when they are quiet and their turns have ended. Throws when the cache was
   * destroyed: the counters are its successor's.
   * @example
   * const { ALLOC_FASTPATH, ALLOC_SLOWPATH } = cache.stats();
   */
  stats(): Stats {
    this.assertAlive();
    this.releaseEarly();
    return sumStats(this.cpu.f64, this.context.geometry, this.desc.slot);
  }

  /** What the layer counts beyond the 26, summed like them; `{}` for sheaves and none. */
  layerStats(): Record<string, number> {
    this.releaseEarly();
    return sumLayerStats(this.cpu.f64, this.context.geometry, this.desc.slot, this.layer);
  }

  /** One of the 26. */
  stat(item: StatItem): number {
    return this.stats()[item];
  }

  /** What came of sheaves that were locked by another thread; summed and exact as the 26. */
  trylockStats(): TrylockStats {
    return sumTrylockStats(this.cpu.f64, this.context.geometry, this.desc.slot);
  }

  /** Validation, traces, count of reports. See docs/slab-debug.md. */
  get debug(): CacheDebug {
    return this.context.debug.of(this);
  }

  /** Throws unless this thread is a CPU and the cache still exists. @internal */
  assertAlive(): void {
    this.cpu.assertOnline();
    if (this.m[this.serialWord] !== this.desc.serial) {
      throw new SlabBugError('cache-destroyed', this.name, 0, 'the cache was destroyed');
    }
  }

  /** Whether the cache exists still. */
  get isAlive(): boolean {
    // G1: what is asked in a read section pairs with the store that ends the cache.
    return loadAcquire(this.m, this.serialWord) === this.desc.serial;
  }

  /** An object of `node` out of what this CPU has cached, or 0. */
  protected abstract allocCachedOn(node: number, gfp: number): number;

  /** Frees what waits in the quarantine of a CPU, or of all; most caches have none. */
  drainQuarantine(_cpu?: number): void {}

  /** Whether a sheaf of this CPU may take the object. Kernel: `can_free_to_pcs`. */
  protected isLocal(p: number): boolean {
    const near = this.desc.nodes === 1 || (p - this.nodeStart) >>> 0 < this.nodeBytes;
    return near && !this.slabs.isOfReserve(p);
  }

  /** The fast path once more, after what it missed for was mended: still the same operation. */
  protected allocAgain(gfp: number): number {
    return this.alloc(gfp);
  }

  protected freeAgain(p: number): void {
    this.free(p);
  }

  /** Has the lock for this turn, taking it if it is free. */
  protected lockForTurn(): boolean {
    if (!this.locked) {
      if (!this.trylockPcs()) return false;
      this.holdForTurn();
    }
    this.fold();
    return true;
  }
}

/** A class of such handles; the choice among them is in hotCode.ts. */
export type KmemCacheClass = new (...args: ConstructorParameters<typeof KmemCache>) => KmemCache;
