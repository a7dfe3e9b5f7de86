/**
 * A cache, as one thread sees it. What is shared lies in the arena; this handle holds this CPU's way to it.
 *
 * `alloc` and `free` are in fastPath.ts, in a class that is made once per arena and thread. Here is what they call
 * when they miss, and everything that is not hot.
 */
import { type PcsPtr, Stat, type StatItem, type Stats, sumStats } from '../cpu/index.js';
import {
  __GFP_NOWARN,
  __GFP_ZERO,
  checkGfp,
  GFP_KERNEL,
  NUMA_NO_NODE,
  virtToPage,
  Zone,
  zoneOf,
} from '../page/index.js';
import { PcsLayer, SHEAF_OBJECTS, Sheaf, type SheafPtr, SIZE_MASK } from '../sheaf/index.js';
import { KmemCacheStruct, oomReport } from '../slab/index.js';
import {
  type Bytes,
  type Layer,
  OutOfMemoryError,
  PAGE_SHIFT,
  PAGE_SIZE,
  requireInteger,
  SlabBugError,
} from '../struct/index.js';
import { cmpxchgByte, Intent } from '../sync/index.js';
import { badFree } from './checkFree.js';
import type { CacheContext } from './context.js';
import { RegistrySlot, registrySlot } from './registry.js';

const { size: SIZE } = Sheaf;
const { ALLOC, FREE } = Intent;
// Imported names are looked up at each use; module-local constants are folded.
const { ALLOC_FASTPATH, FREE_FASTPATH, FREE_SLOWPATH, ALLOC_NODE_MISMATCH } = Stat;
const OBJECTS = SHEAF_OBJECTS;

/** What destroy found: a cache is gone when nothing leaked, else it is unlinked and its memory stays. */
export interface LeakReport {
  cache: string;
  leaked: number;
  /** Addresses of the objects that were never freed. */
  objects: number[];
}

export interface ShrinkReport {
  /** Slabs that remain. */
  slabs: number;
  /** CPUs that did not give up their sheaves in time. */
  skippedCpus: number[];
}

export abstract class KmemCache extends PcsLayer {
  protected readonly context: CacheContext;
  protected readonly shadow: Bytes;
  protected readonly checked: boolean;
  private readonly exact: boolean;
  private readonly serialWord: number;
  /** Byte range of this CPU's node. */
  protected readonly nodeStart: number;
  protected readonly nodeBytes: number;

  constructor(context: CacheContext, slot: number) {
    super(context.cpu, context.slabs, context, context.describe(slot));
    const { geometry, views, cpu } = context;
    this.context = context;
    this.shadow = views.shadow;
    this.checked = context.check !== 'none';
    this.exact = context.check === 'full';
    this.serialWord = registrySlot(geometry, slot) + RegistrySlot.serial;
    const zone = zoneOf(geometry, cpu.node);
    this.nodeStart = views.m[zone + Zone.startPfn]! << PAGE_SHIFT;
    this.nodeBytes = (views.m[zone + Zone.endPfn]! - views.m[zone + Zone.startPfn]!) * PAGE_SIZE;
  }

  get name(): string {
    return this.desc.name;
  }
  /** Stride in bytes. */
  get size(): number {
    return this.desc.size;
  }
  get objectSize(): number {
    return this.desc.objectSize;
  }
  get layer(): Layer {
    return this.desc.layer;
  }
  get order(): number {
    return this.desc.order;
  }
  get objsPerSlab(): number {
    return this.desc.objects;
  }
  /** Empty slabs that a node keeps; may be changed at any time. */
  get minPartial(): number {
    return this.m[this.desc.ptr + KmemCacheStruct.minPartial]!;
  }
  set minPartial(value: number) {
    // The struct of a destroyed cache is somebody else's memory.
    this.assertAlive();
    this.m[this.desc.ptr + KmemCacheStruct.minPartial] = requireInteger('minPartial', value, 0, 0x7fffffff);
  }

  /**
   * Allocates one object. Returns its address, or 0 when out of memory. Contents are undefined unless `__GFP_ZERO`.
   * Kernel: `kmem_cache_alloc`.
   * @example
   * const p = cache.alloc();
   * if (p !== 0) arena.i32[p >> 2] = 42;
   */
  abstract alloc(gfp?: number): number;

  /**
   * Frees one object, on any CPU. Throws SlabBugError, and changes nothing, unless `p` is an allocated object of this
   * cache (with `check: 'none'` it is not looked at). Kernel: `kmem_cache_free`.
   */
  abstract free(p: number): void;

  /** Allocates `n` objects into `out[0..n)`, or none and returns false. Kernel: `kmem_cache_alloc_bulk`. */
  abstract allocBulk(out: Int32Array, n: number, gfp?: number): boolean;

  /** Frees `list[0..n)`; may reorder it. Throws, and frees none, if one of them is not an allocated object. */
  abstract freeBulk(list: Int32Array, n: number): void;

  /**
   * Like alloc, but throws OutOfMemoryError, with the report of {@link oomReport}, where alloc returns 0.
   */
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
      let p = 0;
      if (node === this.cpu.node) p = this.allocIfTopIsOn(node);
      else this.count(ALLOC_NODE_MISMATCH);
      if (this.context.policy === 'op') this.release();
      return this.handOut(p !== 0 ? p : this.allocFromSlab(gfp, node), gfp);
    } finally {
      if (this.context.policy === 'op') this.release();
      this.cpu.leave();
    }
  }

  /** Frees memory that nobody uses: all CPUs' sheaves, the barns, empty slabs. Kernel: `kmem_cache_shrink`. */
  shrink(): ShrinkReport {
    this.assertAlive();
    return this.context.shrink(this);
  }

  /** Ends the cache. The report names each object that was not freed. Kernel: `kmem_cache_destroy`. */
  destroy(): LeakReport {
    this.assertAlive();
    return this.context.destroy(this);
  }

  /** The 26 counters, summed over CPUs; exact when they are quiet and their turns have ended. */
  stats(): Stats {
    this.releaseEarly();
    return sumStats(this.cpu.f64, this.context.geometry, this.desc.slot);
  }

  /** One of the counters. */
  stat(item: StatItem): number {
    return this.stats()[item];
  }

  /** Throws unless this thread is a CPU and the cache still exists. */
  assertAlive(): void {
    this.cpu.assertOnline();
    if (this.m[this.serialWord] !== this.desc.serial) {
      throw new SlabBugError('cache-destroyed', this.name, 0, 'the cache was destroyed');
    }
  }

  /** Visits each free object that the layer holds outside of slabs, other than in sheaves; others are quiet. */
  forEachCached(_visit: (p: number, place: string) => void): void {}

  /** Flushes this CPU's own sheaves of this cache. */
  flushThisCpu(): void {
    this.flushOwn();
  }

  /** Takes the objects out of another CPU's sheaves; the caller holds its pcs lock. */
  detachPcs(pcs: PcsPtr): void {
    if (this.sheafCapacity > 0) this.detach(pcs);
  }

  /** Gives what detachPcs took back to the slabs; the caller has given up the pcs lock. */
  flushDetachedPcs(): void {
    this.flushDetached();
  }

  /** Frees an object straight to its slab: what reclaim frees must not fill a sheaf again. */
  freePastLayer(p: number): void {
    this.takeBack(p);
    this.freeToSlab(p);
  }

  flushAndFreeSheaf(sheaf: SheafPtr): void {
    this.flushSheaf(sheaf);
    this.context.freeEmptySheaf(this.desc, sheaf);
  }

  /** Throws unless `p` is an allocated object of this cache; reads only. */
  assertAllocated(p: number): void {
    this.assertFreeable(p);
  }

  /** The fast path missed: lock not ours, main empty, a request, or a full count. What it missed for is mended. */
  protected allocSlow(gfp: number): number {
    this.assertAlive();
    checkGfp(gfp);
    this.cpu.enter(ALLOC, this.desc.slot);
    try {
      if (this.m[this.request]! < 0) this.cpu.serveRequests();
      if (this.lockForTurn() && (this.m[this.main + SIZE] !== 0 || this.replaceEmptyMain(gfp))) {
        return this.alloc(gfp);
      }
      return this.handOut(this.allocFromSlab(gfp), gfp);
    } finally {
      this.cpu.leave();
    }
  }

  /** The fast path missed: bad address, lock not ours, or main full. */
  protected freeSlow(p: number): void {
    this.assertAlive();
    this.assertFreeable(p);
    this.cpu.enter(FREE, this.desc.slot);
    try {
      if (this.m[this.request]! < 0) this.cpu.serveRequests();
      const room =
        this.isLocal(p) &&
        this.lockForTurn() &&
        (this.m[this.main + SIZE] !== this.capacity || this.replaceFullMain());
      if (room && this.capacity !== 0) return this.free(p);
      this.takeBack(p);
      this.freeToSlab(p);
    } finally {
      this.cpu.leave();
    }
  }

  /** alloc under the 'op' policy: the lock is taken and given back around each operation. */
  protected allocOp(gfp: number): number {
    this.assertAlive();
    checkGfp(gfp);
    this.cpu.enter(ALLOC, this.desc.slot);
    try {
      const p = this.trylockPcs() ? this.popMain(gfp) : 0;
      this.release();
      return this.handOut(p !== 0 ? p : this.allocFromSlab(gfp), gfp);
    } finally {
      this.release();
      this.cpu.leave();
    }
  }

  protected freeOp(p: number): void {
    this.assertAlive();
    this.cpu.enter(FREE, this.desc.slot);
    try {
      this.takeBack(p);
      if (this.isLocal(p) && this.trylockPcs() && this.pushMain(p)) return;
      this.release();
      this.freeToSlab(p);
    } finally {
      this.release();
      this.cpu.leave();
    }
  }

  /** Frees an object that takeBack has accepted, past the sheaves. */
  protected freeToSlab(p: number): void {
    this.count(FREE_SLOWPATH);
    this.slabs.freeOne(this.desc, p);
  }

  protected isLocal(p: number): boolean {
    return this.desc.nodes === 1 || (p - this.nodeStart) >>> 0 < this.nodeBytes;
  }

  /** Marks an object as allocated and zeroes it if asked; 0 passes through. */
  protected handOut(p: number, gfp: number): number {
    if (p === 0) return 0;
    if (this.checked) this.shadow[p >> 3] = this.tag;
    if ((gfp & __GFP_ZERO) !== 0) this.zero(p);
    return p;
  }

  protected zero(p: number): void {
    // Unsigned: the end of the last object of a 2 GiB arena needs the sign bit.
    this.m.fill(0, p >> 2, (p + this.desc.inuse) >>> 2);
  }

  /** Throws the report of what is wrong with an address that is not an allocated object; reads only. */
  private assertFreeable(p: number): void {
    if (this.checked && !this.isMarked(p)) throw badFree(this.context, this.desc, p);
  }

  private isMarked(p: number): boolean {
    const { shadow } = this;
    return p === (p | 0) && (p & 7) === 0 && p > 0 && p >> 3 < shadow.length && shadow[p >> 3] === this.tag;
  }

  /** Marks an object as free, or throws the report of what is wrong with the address. */
  protected takeBack(p: number): void {
    if (!this.checked) return;
    const { shadow, tag } = this;
    // An address is its own 32-bit integer: what is not, the shift would fold onto somebody's object.
    const i = typeof p === 'number' && p === (p | 0) && (p & 7) === 0 ? p >> 3 : 0;
    if (i > 0 && i < shadow.length && shadow[i] === tag) {
      // 'full': of two threads that free the same object at once, exactly one wins.
      if (this.exact ? cmpxchgByte(shadow, i, tag, 0) === tag : this.clearTag(i)) return;
    }
    throw badFree(this.context, this.desc, p);
  }

  private clearTag(i: number): true {
    this.shadow[i] = 0;
    return true;
  }

  /** Puts marks back after a bulk free met a bad address. */
  protected takeBackAll(list: Int32Array, n: number): void {
    let i = 0;
    try {
      for (; i < n; i++) this.takeBack(list[i]!);
    } catch (error) {
      while (--i >= 0) this.shadow[list[i]! >> 3] = this.tag;
      throw error;
    }
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

  /** Lock held. Pops one object off main, which may have to be replaced; 0 means use the slabs. */
  private popMain(gfp: number): number {
    const { m } = this;
    if (m[this.main + SIZE] === 0 && !this.replaceEmptyMain(gfp)) return 0;
    const size = m[this.main + SIZE]!;
    m[this.main + SIZE] = size - 1;
    this.rebase(size - 1);
    this.count(ALLOC_FASTPATH);
    return m[this.main + OBJECTS + size - 1]!;
  }

  /** Lock held. Pushes one object onto main, which may have to be replaced; false means use the slabs. */
  private pushMain(p: number): boolean {
    const { m } = this;
    if (m[this.main + SIZE] === this.capacity && !this.replaceFullMain()) return false;
    const size = m[this.main + SIZE]!;
    m[this.main + OBJECTS + size] = p;
    m[this.main + SIZE] = size + 1;
    this.rebase(size + 1);
    this.count(FREE_FASTPATH);
    return true;
  }

  /** The top object, if it lies on `node`; otherwise it stays. Kernel: the node test in `alloc_from_pcs`. */
  private allocIfTopIsOn(node: number): number {
    const { m } = this;
    if (!this.lockForTurn()) return 0;
    const size = m[this.main + SIZE]! & SIZE_MASK;
    if (size === 0)
      return this.capacity !== 0 && this.replaceEmptyMain(GFP_KERNEL) ? this.allocIfTopIsOn(node) : 0;
    const top = m[this.main + OBJECTS + size - 1]!;
    const pages = this.slabs.pages;
    if (pages.nodeOf(virtToPage(this.context.geometry, top)) !== node) {
      this.count(ALLOC_NODE_MISMATCH);
      return 0;
    }
    return this.popMain(GFP_KERNEL);
  }
}
