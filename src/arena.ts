/**
 * The arena: one SharedArrayBuffer that holds all that is shared. This file boots it and attaches to it; each layer
 * does its own work below.
 */
import { bootArena } from './boot.js';
import {
  type CacheOptions,
  Caches,
  type HotCode,
  type KmemCache,
  makeHotCode,
  ReclaimWorker,
  type Shrinker,
  Shrinkers,
} from './cache/index.js';
import { onlineCpus, onlineThreads, sharesCpus, ThisCpu, type Views } from './cpu/index.js';
import { type Finding, validateArena } from './debug/index.js';
import { Maple } from './maple/index.js';
import { Mms } from './mm/index.js';
import { type CacheInfo, cacheInfo, slabinfo } from './observe/index.js';
import { __GFP_ZERO, checkGfp, GFP_KERNEL, NUMA_NO_NODE, stopReclaim } from './page/index.js';
import { type ArenaOptions, arenaBuffer, isSharedArrayBuffer, planArena } from './plan.js';
import type { Rcu } from './rcu/index.js';
import { type ReapReport, reapThread } from './reap.js';
import { type Meminfo, type ReclaimInfo, reclaimInfoOf, sumMeminfo } from './reports.js';
import {
  AttachError,
  abiHash,
  type Bytes,
  CpuError,
  type Doubles,
  describe,
  type Geometry,
  readSuperblock,
  requireInteger,
  Superblock,
  type Words,
  writeSuperblock,
} from './struct/index.js';
import { LOCK_STAT_TIERS, type LockStatRow, loadAcquire, readLockStat, storeRelease } from './sync/index.js';

/** What a worker needs to attach: plain data that survives postMessage, workerData and piscina tasks. */
export interface ArenaHandle {
  readonly granary: 1;
  readonly buffer: SharedArrayBuffer;
}

export interface OnlineOptions {
  /** The CPU slot to run on; by default that of the thread slot. */
  cpu?: number;
  /** The thread slot to take; the lowest free one by default. The same as `cpu`, unless threads share CPUs. */
  thread?: number;
  /** Any integer by which the thread can be told later, e.g. its threadId. */
  tid?: number;
}

const BOOTED = 1;

export class Arena {
  readonly buffer: SharedArrayBuffer;
  /** Views over the whole arena: index = address / element size. */
  readonly i32: Words;
  readonly u32: Uint32Array<SharedArrayBuffer>;
  readonly u8: Bytes;
  readonly f64: Doubles;
  readonly geometry: Geometry;
  private readonly views: Views;
  private readonly code: HotCode;
  private readonly shrinkers = new Shrinkers();
  private current: Caches | undefined;

  private constructor(buffer: SharedArrayBuffer, geometry: Geometry) {
    this.buffer = buffer;
    this.i32 = new Int32Array(buffer);
    this.u32 = new Uint32Array(buffer);
    this.u8 = new Uint8Array(buffer);
    this.f64 = new Float64Array(buffer);
    this.geometry = geometry;
    const shadowBytes = geometry.shadow === 0 ? 0 : geometry.bytes / 8;
    const shadow = new Uint8Array(buffer, geometry.shadow, shadowBytes);
    this.views = { m: this.i32, u8: this.u8, f64: this.f64, shadow };
    this.code = makeHotCode(this.views, geometry);
  }

  /**
   * Makes and boots an arena. Throws RangeError or TypeError that names the option.
   * @example
   * const arena = Arena.create({ bytes: 64 << 20, cpus: 4 });
   * new Worker(file, { workerData: arena.handle });
   */
  static create(options: ArenaOptions): Arena {
    const geometry = planArena(options);
    const buffer = arenaBuffer(options);
    const m = new Int32Array(buffer);
    if (loadAcquire(m, Superblock.booted) === BOOTED || loadAcquire(m, Superblock.magic) !== 0) {
      throw new RangeError('buffer holds an arena already; attach to it, or pass a zeroed buffer');
    }
    writeSuperblock(m, geometry, abiHash(ABI));
    const arena = new Arena(buffer, geometry);
    bootArena(arena.views, geometry, arena.code);
    // Pairs with the load in attach: a thread that sees it sees a booted arena.
    storeRelease(m, Superblock.booted, BOOTED);
    return arena;
  }

  /** Attaches to an arena that another thread made. Throws AttachError that says why it cannot be. */
  static attach(handle: ArenaHandle | SharedArrayBuffer): Arena {
    const buffer = isSharedArrayBuffer(handle) ? handle : (handle as ArenaHandle | null | undefined)?.buffer;
    if (!isSharedArrayBuffer(buffer)) {
      throw new AttachError(
        `cannot attach to ${describe(handle)}; pass arena.handle or its SharedArrayBuffer`,
      );
    }
    if (buffer.byteLength < Superblock.SIZEOF * 4 || buffer.byteLength % 4096 !== 0) {
      throw new AttachError(`not an arena: a buffer of ${buffer.byteLength} bytes is no multiple of 4096`);
    }
    const m = new Int32Array(buffer);
    // Pairs with the store in create, and so comes before the geometry is read.
    const booted = loadAcquire(m, Superblock.booted) === BOOTED;
    const geometry = readSuperblock(m, abiHash(ABI));
    if (!booted) {
      throw new AttachError('the arena is still being booted; attach after Arena.create has returned');
    }
    return new Arena(buffer, geometry);
  }

  /** Plain data from which any thread can attach. */
  get handle(): ArenaHandle {
    return { granary: 1, buffer: this.buffer };
  }

  /** Makes this thread a CPU, or one of a CPU's threads. Throws CpuError when the slot, or every slot, is taken. */
  online(options: OnlineOptions = {}): ThisCpu {
    if (this.current !== undefined) {
      throw new CpuError(`this thread is CPU ${this.current.cpu.id} already; call offline() first`);
    }
    const { cpu, thread, tid = 0 } = options;
    if (cpu !== undefined) requireInteger('cpu', cpu, 0, this.geometry.cpus - 1);
    if (thread !== undefined) requireInteger('thread', thread, 0, this.geometry.threads - 1);
    if ((thread ?? cpu) !== (cpu ?? thread) && !sharesCpus(this.geometry)) {
      throw new RangeError(
        `thread is ${thread}; it must be the same as cpu, ${cpu}, unless threads share CPUs`,
      );
    }
    requireInteger('tid', tid, -0x80000000, 0x7fffffff);
    const caches = new Caches(
      new ThisCpu(this.views, this.geometry, { cpu, thread }, tid),
      this.code,
      this.shrinkers,
    );
    caches.openAll();
    this.current = caches;
    return caches.cpu;
  }

  /**
   * Gives this thread's slot back, and flushes its CPU's sheaves if it was the last thread there. Handles of caches stop
   * working in this thread.
   */
  offline(): void {
    const caches = this.caches;
    if (caches.reclaim.running) throw new CpuError('a shrinker may not take its thread offline');
    caches.finishRcu();
    caches.leaveCpu();
    this.current = undefined;
    caches.cpu.goOffline();
  }

  /** Whether this thread is a CPU now. */
  get isOnline(): boolean {
    return this.current !== undefined;
  }

  /** The CPU that this thread is: `id` is the CPU slot, `thread` the thread slot. */
  get cpu(): ThisCpu {
    return this.caches.cpu;
  }

  /** RCU for this thread. */
  get rcu(): Rcu {
    return this.caches.rcu;
  }

  /** The maple trees of the arena, for this thread. */
  get maple(): Maple {
    return Maple.of(this.caches);
  }

  /** The address spaces of the arena, for this thread. */
  get mms(): Mms {
    return Mms.of(this.caches);
  }

  /** CPUs that have a thread. */
  get onlineCpus(): number[] {
    return onlineCpus(this.i32, this.geometry);
  }

  /** Thread slots that have a thread; with as many threads as CPUs, the same numbers. */
  get onlineThreads(): number[] {
    return onlineThreads(this.i32, this.geometry);
  }

  /** Ends the turn now: before this thread waits for others, or within a long loop. */
  endTurn(): void {
    this.current?.cpu.endTurn();
  }

  /**
   * Frees the slot of a thread that is gone (exited, or terminated) without offline(), so that it can be used again: the
   * thread slot, which is the CPU unless threads share CPUs. What it held is given back; the CPU's sheaves are flushed
   * if no other thread runs there. Call it when the worker's 'exit' event has come, never before.
   */
  cpuDead(thread: number): ReapReport {
    return reapThread(this.caches, thread);
  }

  /** Makes a cache for objects of one size. Throws on bad options, a name that exists, or no memory. */
  createCache(name: string, options: CacheOptions): KmemCache {
    return this.caches.create(name, options);
  }

  /** Opens a cache that any thread has made. */
  openCache(name: string): KmemCache {
    return this.caches.open(name);
  }

  /** Names of all caches. */
  cacheNames(): string[] {
    return this.caches.names();
  }

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

  /** Refuses every `every`-th page request of this thread, to see that callers survive it; 0 ends it. */
  failPageAlloc(every: number): { refused: number } {
    requireInteger('every', every, 0, 0x7fffffff);
    return { refused: this.caches.pages.refuseEach(every) };
  }

  /**
   * Registers something that this thread can free when memory is short; the function that is returned ends it. Its
   * functions are called within allocations of this thread that may wait, and by a reclaim worker that runs in it.
   * What they allocate comes from the reserve and reclaims nothing. Kernel: `shrinker_register`.
   * @example
   * arena.registerShrinker({ name: 'lru', count: () => lru.length, scan: (n) => dropOldest(n) });
   */
  registerShrinker(shrinker: Shrinker): () => void {
    return this.shrinkers.register(shrinker);
  }

  /** This thread as a reclaim worker: call `run()`, which blocks. workers/reclaim.ts is a thread that does no more. */
  reclaimWorker(): ReclaimWorker {
    return new ReclaimWorker(this.caches);
  }

  /** Ends the loops of all reclaim workers, in whatever threads they run. */
  stopReclaimWorkers(): void {
    stopReclaim(this.i32, this.geometry);
  }

  /** What this thread's allocations had to do for memory since it went online. */
  reclaimInfo(): ReclaimInfo {
    return reclaimInfoOf(this.caches);
  }

  /** The report of this thread's latest allocation that failed without __GFP_NOWARN; at most ten in five seconds. */
  get lastOom(): string | undefined {
    return this.current?.pages.oom.last;
  }

  /** Checks the whole arena against its invariants; empty when it is sound. Other CPUs must be quiet. */
  validate(): Finding[] {
    this.endTurn();
    return validateArena(this.caches);
  }

  /** The text of /proc/slabinfo. */
  slabinfo(): string {
    return this.caches.withSlabMutex(() => slabinfo(this.caches));
  }

  /** Attributes and counters of each cache, by the names under /sys/kernel/slab. */
  cacheInfo(): CacheInfo[] {
    return this.caches.withSlabMutex(() => this.caches.all().map((cache) => cacheInfo(this.caches, cache)));
  }

  /** Lock statistics by class; empty when the arena was made without. */
  lockStat(): LockStatRow[] {
    if (LOCK_STAT_TIERS[this.geometry.lockStat] === 'off') return [];
    return readLockStat(this.f64, this.geometry.lockStats, this.geometry.threads);
  }

  /** Pages in total, free and at the high-water mark. */
  meminfo(): Meminfo {
    return sumMeminfo(this.caches.pages.meminfo());
  }

  private get caches(): Caches {
    if (this.current === undefined) {
      throw new CpuError('this thread is no CPU of the arena: call arena.online() first');
    }
    return this.current;
  }
}

/** Hashed with all struct layouts: what else two threads must agree on. */
const ABI = 'granary 0.1.0';
