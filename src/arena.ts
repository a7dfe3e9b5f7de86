/**
 * The arena: one SharedArrayBuffer that holds all that is shared. This file boots it and attaches to it; each layer
 * does its own work below.
 */
import { BOOTED, checkOnline, openBuffer } from './attach.js';
import { bootArena } from './boot.js';
import {
  type CacheOptions,
  Caches,
  type DefinedCache,
  type HotCode,
  type KmemCache,
  type MemoryGroups,
  makeHotCode,
  ReclaimWorker,
  type Shrinker,
  Shrinkers,
} from './cache/index.js';
import { LockdepCpu, onlineCpus, onlineThreads, ThisCpu, type Views } from './cpu/index.js';
import { type Finding, validateArena } from './debug/index.js';
import type { ArenaHandle, OnlineOptions } from './handle.js';
import { type CacheInfo, cacheInfo, slabinfo } from './observe/index.js';
import { __GFP_ZERO, GFP_KERNEL, NUMA_NO_NODE, stopReclaim } from './page/index.js';
import { PercpuAllocator } from './percpu/index.js';
import { type ArenaOptions, arenaBuffer, planArena } from './plan.js';
import type { Rcu } from './rcu/index.js';
import { type ReapReport, reapThread } from './reap.js';
import { lockStatOf, type Meminfo, type ReclaimInfo, reclaimInfoOf, sumMeminfo } from './reports.js';
import type { CallbackError } from './slab/index.js';
import {
  abiHash,
  type Bytes,
  CpuError,
  type Doubles,
  describe,
  type Geometry,
  requireInteger,
  Superblock,
  type Words,
  writeSuperblock,
} from './struct/index.js';
import { type LockdepInfo, type LockStatRow, loadAcquire, readLockdep, storeRelease } from './sync/index.js';

export type { ArenaHandle, OnlineOptions };

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
  private currentPercpu: PercpuAllocator | undefined;

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
    const { buffer, geometry } = openBuffer(handle, abiHash(ABI));
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
    const { wanted, tid } = checkOnline(options, this.geometry);
    const Cpu = this.geometry.lockdep === 0 ? ThisCpu : LockdepCpu;
    const caches = new Caches(
      new Cpu(this.views, this.geometry, wanted, tid),
      this.code,
      this.shrinkers,
      this,
    );
    caches.openAll();
    this.current = caches;
    this.currentPercpu = new PercpuAllocator(caches);
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
    this.percpu.leaveCpu();
    this.current = undefined;
    this.currentPercpu = undefined;
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
    return reapThread(this.caches, this.percpu, thread);
  }

  /**
   * Makes a cache for objects of one size, of a name and options or of what {@link defineCache} returned. Throws on bad
   * options, a name that exists, or no memory.
   */
  createCache(definition: DefinedCache): KmemCache;
  createCache(name: string, options: CacheOptions): KmemCache;
  createCache(wanted: string | DefinedCache, options?: CacheOptions): KmemCache {
    return this.caches.create(wanted, options);
  }

  /**
   * Opens a cache that any thread has made. Throws CacheDefinitionError that names the module to import when it has a
   * constructor or destructor which this thread does not know.
   */
  openCache(wanted: string | DefinedCache): KmemCache {
    return this.caches.open(wanted);
  }

  /** Limits on the memory of workers and tasks, for caches with SLAB_ACCOUNT. */
  get groups(): MemoryGroups {
    return this.caches.groups;
  }

  /** What destructors threw on this thread, at most the last 16: a free has nobody to tell. */
  get callbackErrors(): readonly CallbackError[] {
    return this.caches.slabs.callbacks.errors;
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

  /** Percpu memory: areas of which every CPU slot has a copy. */
  get percpu(): PercpuAllocator {
    return this.currentPercpu ?? this.noCpu();
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
    return this.caches.pages.allocPages(order, gfp, node);
  }

  /** Frees what allocPages returned, with the same order. */
  freePages(address: number, order: number): void {
    this.caches.pages.freePages(address, order);
  }

  /** Refuses every `every`-th page request of this thread, to see that callers survive it; 0 ends it. */
  failPageAlloc(every: number): { refused: number } {
    requireInteger('every', every, 0, 0x7fffffff);
    const { pages } = this.caches;
    const refused = pages.refused;
    pages.failEvery = every;
    pages.requests = 0;
    pages.refused = 0;
    return { refused };
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

  /** Lock statistics by class; empty when the arena was made without. lockStatText and the perf reports show them. */
  lockStat(): LockStatRow[] {
    return lockStatOf(this.i32, this.f64, this.geometry);
  }

  /** What lockdep has seen and reported on all threads; empty when the arena was made without. */
  lockdep(): LockdepInfo {
    return readLockdep(this.i32, this.geometry.lockdep);
  }

  /** Pages in total, free and at the high-water mark. */
  meminfo(): Meminfo {
    return sumMeminfo(this.caches.pages.meminfo());
  }

  private get caches(): Caches {
    return this.current ?? this.noCpu();
  }

  private noCpu(): never {
    throw new CpuError('this thread is no CPU of the arena: call arena.online() first');
  }
}

/** Hashed with all struct layouts: what else two threads must agree on. */
const ABI = 'granary 0.1.0';
