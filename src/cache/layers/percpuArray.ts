/**
 * Caches of the layer `percpu-array` (seed 003). The array is a main sheaf without a spare and without a barn, so what
 * is here is what happens when it is empty or full: half of it, in batches of 32 through a scratch array, and the lock
 * given up around the work on slabs.
 *
 * Where the posted patch lost objects or had no end, this does not: what a CPU has in hand when it does not get the lock
 * back goes to the slabs, and a call that got the lock back finishes under it instead of starting over.
 */
import { layerStats, nodeOfCpu, Pcs, pcsOf } from '../../cpu/index.js';
import { __GFP_DIRECT_RECLAIM, __GFP_NOMEMALLOC, GFP_KERNEL } from '../../page/index.js';
import {
  ARRAY_BATCH_MAX,
  type MainCounters,
  NO_EMPTY,
  PercpuArray,
  type PercpuArrayPtr,
  percpuArrayBytes,
} from '../../sheaf/index.js';
import { type CacheDesc, KmemCacheStruct } from '../../slab/index.js';
import { requireInteger, WORD_BYTES } from '../../struct/index.js';
import { Intent } from '../../sync/index.js';
import { BulkKmemCache } from '../bulk.js';
import type { Caches } from '../caches.js';

const { used: USED, SIZEOF: OBJECTS } = PercpuArray;
const { ALLOC_PCA, FREE_PCA, PCA_REFILL, PCA_FLUSH } = layerStats('percpu-array');
const COUNTERS: MainCounters = { alloc: ALLOC_PCA, free: FREE_PCA, flush: PCA_FLUSH };
const BATCH = ARRAY_BATCH_MAX;

export class ArrayKmemCache extends BulkKmemCache {
  /** Stands for the kernel's stack array; undefined while one call has it, for what a shrinker frees meanwhile. */
  private scratch: Int32Array | undefined = new Int32Array(BATCH);

  override learnCapacity(): void {
    this.mainCapacity = this.m[this.desc.ptr + KmemCacheStruct.arraySize]!;
  }

  protected override mainCounters(): MainCounters {
    return COUNTERS;
  }

  /** Half of the array, and never nothing: with an array of one, the patch would flush 0 objects for ever. */
  private get half(): number {
    return Math.max(1, this.mainCapacity >> 1);
  }

  /**
   * The array is empty and the lock held. True with the lock held and objects in the array; false means use the slabs.
   * Kernel: `alloc_from_pca` from `used == 0` on.
   */
  protected override replaceEmptyMain(gfp: number): boolean {
    // One object from the slabs is less to wait for than half an array.
    if ((gfp & __GFP_DIRECT_RECLAIM) === 0 || this.mainCapacity === 0) return false;
    this.unlockPcs();
    this.refillArray(this.half, gfp);
    return this.locked && this.m[this.main + USED] !== 0;
  }

  /**
   * Fetches `count` objects from the slabs, or as many as find room; the lock is not ours. Whoever frees into the array
   * meanwhile makes it need fewer. Returns false when memory ran out first. The lock is held afterwards, unless
   * somebody else has it. Kernel: `refill_pca`.
   */
  private refillArray(count: number, gfp: number): boolean {
    const scratch = this.takeScratch();
    try {
      return this.refillThrough(scratch, count, gfp);
    } finally {
      this.scratch = scratch;
    }
  }

  private takeScratch(): Int32Array {
    const scratch = this.scratch ?? new Int32Array(BATCH);
    this.scratch = undefined;
    return scratch;
  }

  private refillThrough(scratch: Int32Array, count: number, gfp: number): boolean {
    const { slabs, desc } = this;
    for (let left = count; left > 0; ) {
      const batch = Math.min(left, BATCH);
      // Nothing of the reserve gets into the array, where anybody could take it.
      const got = slabs.refillObjects(desc, scratch, 0, batch, batch, gfp | __GFP_NOMEMALLOC);
      if (got < batch) {
        slabs.freeObjects(desc, scratch, 0, got);
        // An earlier batch may be in the array, and serve the caller where the slabs cannot.
        this.relock();
        return false;
      }
      const put = this.relock() ? this.putIntoArray(scratch, got) : 0;
      left -= put;
      if (put === got && left > 0) this.unlockPcs();
      if (put < got) {
        if (this.locked) this.unlockPcs();
        slabs.freeObjects(desc, scratch, put, got - put);
        this.relock();
        return true;
      }
    }
    return true;
  }

  /** Takes the lock back after work on slabs. */
  private relock(): boolean {
    if (!this.trylockPcs()) return false;
    this.holdForTurn();
    return true;
  }

  /** Lock held. Moves what there is room for out of scratch; returns how much. */
  private putIntoArray(scratch: Int32Array, n: number): number {
    const { m, main } = this;
    const used = m[main + USED]!;
    const put = Math.min(n, this.capacity - used);
    const top = main + OBJECTS + used;
    for (let i = 0; i < put; i++) m[top + i] = scratch[i]!;
    // Last: whoever reaps this CPU finds nothing below `used` that is not in the array.
    m[main + USED] = used + put;
    this.rebase(used + put);
    this.count(PCA_REFILL, put);
    return put;
  }

  /**
   * The array is full and the lock held. True with the lock held and room in the array; false means use the slabs.
   * Kernel: `free_to_pca` from `used == count` on.
   */
  protected override replaceFullMain(): boolean {
    if (this.mainCapacity === 0) return false;
    this.flushArray(this.half);
    return this.locked && this.m[this.main + USED]! < this.capacity;
  }

  /** Gives the topmost `count` objects back to the slabs; lock held at first, and then unless somebody has it. */
  private flushArray(count: number): void {
    const scratch = this.takeScratch();
    try {
      this.flushThrough(scratch, count);
    } finally {
      this.scratch = scratch;
    }
  }

  private flushThrough(scratch: Int32Array, count: number): void {
    const { slabs, desc } = this;
    for (let left = count; left > 0; ) {
      const taken = this.takeFromArray(scratch, Math.min(left, BATCH));
      this.unlockPcs();
      slabs.freeObjects(desc, scratch, 0, taken);
      this.count(PCA_FLUSH, taken);
      left -= taken;
      if (!this.relock() || taken === 0) return;
    }
  }

  /** Lock held. Moves up to `n` objects off the top into scratch; returns how many. */
  private takeFromArray(scratch: Int32Array, n: number): number {
    const { m, main } = this;
    const used = m[main + USED]!;
    const taken = Math.min(n, used);
    const first = main + OBJECTS + used - taken;
    for (let i = 0; i < taken; i++) scratch[i] = m[first + i]!;
    m[main + USED] = used - taken;
    this.rebase(used - taken);
    return taken;
  }

  override prefillArray(count: number, gfp = GFP_KERNEL): boolean {
    this.assertAlive();
    requireInteger('count', count, 0, this.mainCapacity);
    this.cpu.enter(Intent.ALLOC, this.desc.slot);
    try {
      if (this.m[this.request]! < 0) this.cpu.serveRequests();
      // Without the lock the array is somebody else's now, and what it holds a guess.
      const used = this.lockForTurn() ? this.m[this.main + USED]! : 0;
      if (this.locked) this.unlockPcs();
      return used >= count || this.refillArray(count - used, gfp) || this.noObject() !== 0;
    } finally {
      if (this.context.policy === 'op') this.release();
      this.cpu.leave();
    }
  }

  /** Bulk calls use what the array has and has room for, no more. */
  protected override getFullMain(): boolean {
    return false;
  }

  protected override getEmptyMain(): number {
    return NO_EMPTY;
  }

  /** The array first, so that its order and its counters are as they were. */
  protected override undoBulk(out: Int32Array, popped: number, refilled: number): void {
    this.slabs.freeObjects(this.desc, out, popped, refilled);
    const pushed = this.pushBulk(out, 0, popped);
    if (pushed < popped) this.slabs.freeObjectsSlow(this.desc, out, pushed, popped - pushed);
  }

  /** The array does not know nodes: a request for one passes it by. */
  protected override allocCachedOn(_node: number): number {
    return 0;
  }

  override forEachCached(visit: (p: number, place: string) => void): void {
    const { m, desc, mainCapacity } = this;
    const { geometry } = this.context;
    if (mainCapacity === 0) return;
    for (let cpu = 0; cpu < geometry.cpus; cpu++) {
      const array = m[pcsOf(geometry, cpu, desc.slot) + Pcs.main]!;
      const used = Math.min(m[array + USED]!, mainCapacity);
      for (let i = 0; i < used; i++) visit(m[array + OBJECTS + i]!, `the array of CPU ${cpu}`);
    }
  }
}

/** An array per CPU, in memory of the CPU's node; the size is set when all are there. */
export function addArrays(caches: Caches, desc: CacheDesc, count: number): boolean {
  const { m } = caches.views;
  const { geometry } = caches;
  for (let cpu = 0; cpu < geometry.cpus; cpu++) {
    const p = caches.kmallocs.allocOwn(percpuArrayBytes(count), GFP_KERNEL, nodeOfCpu(geometry, cpu));
    if (p === 0) return false;
    const array = (p / WORD_BYTES) as PercpuArrayPtr;
    m.fill(0, array, array + PercpuArray.SIZEOF);
    m[array + PercpuArray.cache] = desc.ptr;
    m[array + PercpuArray.count] = count;
    m[pcsOf(geometry, cpu, desc.slot) + Pcs.main] = array;
  }
  m[desc.ptr + KmemCacheStruct.arraySize] = count;
  return true;
}

/** Frees the arrays, as far as they were made; they are empty. */
export function releaseArrays(caches: Caches, desc: CacheDesc): void {
  const { m } = caches.views;
  for (let cpu = 0; cpu < caches.geometry.cpus; cpu++) {
    const at = pcsOf(caches.geometry, cpu, desc.slot) + Pcs.main;
    const array = m[at]!;
    m[at] = 0;
    if (array !== 0) caches.kmallocs.free(array * WORD_BYTES);
  }
}
