/**
 * The arena: one SharedArrayBuffer that holds all that is shared. This file boots it and attaches to it; each layer
 * does its own work below.
 */
import { ArenaReports } from './arenaReports.js';
import { ABI, type AttachOptions, BOOTED, checkOnline, readArena } from './attach.js';
import { bootArena } from './boot.js';
import {
  type CacheOptions,
  Caches,
  countCaches,
  type DefinedCache,
  type HotCode,
  type KmemCache,
  type MemoryGroups,
  makeHotCode,
  ReclaimWorker,
  type Shrinker,
  Shrinkers,
  type StaticCache,
} from './cache/index.js';
import { LockdepCpu, onlineCpus, onlineThreads, ThisCpu, type Views } from './cpu/index.js';
import { connectSlabDebug } from './debug/index.js';
import type { ArenaHandle, OnlineOptions } from './handle.js';
import { Maple } from './maple/index.js';
import { Mms } from './mm/index.js';
import { stopReclaim } from './page/index.js';
import { PercpuAllocator } from './percpu/index.js';
import { type ArenaOptions, arenaBuffer, checkZeroed, planArena } from './plan.js';
import type { Rcu } from './rcu/index.js';
import { type ReapReport, reapThread } from './reap.js';
import { slabDebugText, writeSlabDebug } from './slab/index.js';
import {
  abiHash,
  type Bytes,
  CHECK_LEVELS,
  CpuError,
  countText,
  type Doubles,
  describe,
  type Geometry,
  INSPECT,
  LAYERS,
  LOCK_POLICIES,
  Superblock,
  sizeText,
  type Words,
  writeSuperblock,
} from './struct/index.js';
import { loadAcquire, storeRelease } from './sync/index.js';
import { UserCopy } from './view/index.js';

export type { ArenaHandle, OnlineOptions };

/**
 * An arena, for one thread: every thread has an object of its own for the same memory. Made by {@link Arena.create} or
 * {@link Arena.attach}; until {@link Arena.online} all that needs a CPU throws CpuError.
 * @example
 * const arena = Arena.create({ bytes: 64 << 20 });
 * arena.online();
 * const p = arena.kmalloc(100);
 * arena.kfree(p);
 */
export class Arena extends ArenaReports {
  readonly buffer: SharedArrayBuffer;
  /** Views over the whole arena: index = address / element size. */
  readonly i32: Words;
  readonly u32: Uint32Array<SharedArrayBuffer>;
  readonly u8: Bytes;
  readonly f64: Doubles;
  readonly geometry: Geometry;
  private readonly views: Views;
  private readonly usercopy: UserCopy;
  private readonly code: HotCode;
  private readonly shrinkers = new Shrinkers();
  private current: Caches | undefined;
  private currentPercpu: PercpuAllocator | undefined;
  private readonly definitions: readonly StaticCache[];

  private constructor(
    buffer: SharedArrayBuffer,
    geometry: Geometry,
    definitions: readonly StaticCache[] = [],
  ) {
    super();
    this.definitions = definitions;
    this.buffer = buffer;
    this.i32 = new Int32Array(buffer);
    this.u32 = new Uint32Array(buffer);
    this.u8 = new Uint8Array(buffer);
    this.f64 = new Float64Array(buffer);
    this.geometry = geometry;
    const shadowBytes = geometry.shadow === 0 ? 0 : geometry.bytes / 8;
    const shadow = new Uint8Array(buffer, geometry.shadow, shadowBytes);
    this.views = { m: this.i32, u8: this.u8, f64: this.f64, shadow };
    this.usercopy = new UserCopy(this.views, geometry);
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
    if (options.buffer !== undefined) checkZeroed(m, geometry);
    writeSuperblock(m, geometry, abiHash(ABI));
    writeSlabDebug(m, geometry, slabDebugText(options.slabDebug));
    const definitions = [...(options.caches ?? [])];
    const arena = new Arena(buffer, geometry, definitions);
    bootArena(arena.views, geometry, arena.code, arena.reports, definitions);
    // Pairs with the load in attach: a thread that sees it sees a booted arena.
    storeRelease(m, Superblock.booted, BOOTED);
    return arena;
  }

  /**
   * Attaches to an arena that another thread made. Throws AttachError that says why it cannot be.
   * @example
   * const arena = Arena.attach(workerData, { caches: [mmStruct, vmArea] }); // the ones it was made with
   */
  static attach(handle: ArenaHandle | SharedArrayBuffer, options: AttachOptions = {}): Arena {
    const { buffer, geometry } = readArena(handle, options);
    return new Arena(buffer, geometry, options.caches);
  }

  /** Plain data from which any thread can attach. */
  get handle(): ArenaHandle {
    return { granary: 1, buffer: this.buffer };
  }

  /**
   * Makes this thread a CPU, or one of a CPU's threads. Throws CpuError when the slot, or every slot, is taken, or this
   * thread is online; RangeError or TypeError that names the option.
   * @example
   * arena.online({ tid: threadId }); // the lowest free slot
   */
  online(options: OnlineOptions = {}): ThisCpu {
    if (this.current !== undefined) {
      throw new CpuError(`this thread is CPU ${this.current.cpu.id} already; call offline() first`);
    }
    const { wanted, tid } = checkOnline(options, this.geometry);
    const Cpu = this.geometry.lockdep === 0 ? ThisCpu : LockdepCpu;
    const cpu = new Cpu(this.views, this.geometry, wanted, tid);
    try {
      const caches = new Caches(cpu, this.code, this.shrinkers, this);
      connectSlabDebug(caches, this.reports);
      caches.openAll();
      this.currentPercpu = new PercpuAllocator(caches);
      this.current = caches;
    } catch (error) {
      cpu.goOffline(); // nothing is held yet but the slot
      throw error;
    }
    return cpu;
  }

  /**
   * Gives this thread's slot back, and flushes its CPU's sheaves if it was the last thread there. Handles of caches stop
   * working in this thread. Throws CpuError in an RCU read section, in a shrinker, and while a module's cache is set up.
   * @example
   * parentPort.once('close', () => arena.offline());
   */
  offline(): void {
    const caches = this.caches;
    if (caches.reclaim.running) throw new CpuError('a shrinker may not take its thread offline');
    caches.statics.assertMayLeave();
    try {
      caches.finishRcu();
      caches.leaveCpu();
    } catch (error) {
      caches.kfreeRcu.stay(); // the thread stays what it was
      throw error;
    }
    this.percpu.leaveCpu();
    this.current = undefined;
    this.currentPercpu = undefined;
    caches.rcu.leave();
    caches.cpu.goOffline();
  }

  /** One line for console.log, on any thread. */
  [INSPECT](): string {
    const { bytes, cpus, layer, lockPolicy, check } = this.geometry;
    const online = this.onlineCpus.length;
    const parts = [
      sizeText(bytes),
      `${countText(cpus, 'CPU')} (${online} online)`,
      countText(countCaches(this.i32, this.geometry), 'cache'),
      LAYERS[layer],
      `policy ${LOCK_POLICIES[lockPolicy]}`,
      `check ${CHECK_LEVELS[check]}`,
      this.current === undefined ? 'this thread is no CPU' : `this thread is CPU ${this.current.cpu.id}`,
    ];
    return `Arena { ${parts.join(', ')} }`;
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

  /**
   * Ends the turn now, and gives up what it holds: before this thread blocks, or within a long loop. Does nothing while the
   * thread is no CPU. Throws CpuError when an RCU read section is open, and has ended the turn all the same.
   * @example
   * arena.endTurn();
   * waitForWorkers(); // who may use this CPU's sheaves meanwhile
   */
  endTurn(): void {
    this.current?.cpu.endTurn();
  }

  /**
   * Frees the slot of a thread that is gone (exited, or terminated) without offline(), so that it can be used again: the
   * thread slot, which is the CPU unless threads share CPUs. What it held is given back; the CPU's sheaves are flushed
   * if no other thread runs there. Call it when the worker's 'exit' event has come, never before. Throws RangeError or
   * TypeError when there is no such slot, CpuError when it is this thread's or has none. When a lock that it needs
   * died with the thread, or memory is short, it throws LockError or CpuError, and can be called again. Kernel: `slub_cpu_dead`.
   * @example
   * worker.once('exit', () => arena.cpuDead(thread)); // `arena.cpu.thread` of that worker
   */
  cpuDead(thread: number): ReapReport {
    return reapThread(this.caches, this.percpu, thread);
  }

  /** Makes a cache of what {@link defineCache} returned, in one thread; the others open it. Throws as for a name. */
  createCache(definition: DefinedCache): KmemCache;
  /**
   * Makes a cache for objects of one size. Throws RangeError or TypeError that names the option, RangeError for a name that
   * exists and when there are too many caches, OutOfMemoryError; then none was made. Kernel: `kmem_cache_create`.
   * @example
   * const nodes = arena.createCache('node', { size: 96, align: 32 });
   * const p = nodes.alloc();
   */
  createCache(name: string, options: CacheOptions): KmemCache;
  createCache(wanted: string | DefinedCache, options?: CacheOptions): KmemCache {
    return this.caches.create(wanted, options);
  }

  /**
   * Opens a cache that any thread has made. Throws CacheDefinitionError that names the module to import when it has a
   * constructor or destructor which this thread does not know; RangeError with the names there are when there is none.
   * @example
   * const nodes = arena.openCache('node'); // in another thread than the one that made it
   */
  openCache(wanted: string | DefinedCache): KmemCache {
    return this.caches.open(wanted);
  }

  /** Limits on the memory of workers and tasks, for caches with SLAB_ACCOUNT. */
  get groups(): MemoryGroups {
    return this.caches.groups;
  }

  /**
   * The static caches in the order of `caches`, which is where each has its place: no name is looked up. A module's that is
   * not set up is missing from its number.
   * @example
   * const [mm, vma] = arena.staticCaches as [KmemCache, KmemCache];
   */
  get staticCaches(): ReadonlyArray<KmemCache | undefined> {
    return this.caches.statics.all();
  }

  /**
   * The static cache of a definition that this thread gave to create or attach. Throws RangeError when it gave none such,
   * or the cache is a module's and not set up.
   */
  staticCache(definition: StaticCache): KmemCache {
    const cache = this.caches.statics.at(this.placeOf(definition));
    if (cache !== undefined) return cache;
    throw new RangeError(`${definition.name} is a module's and not set up; call setupCache`);
  }

  /**
   * Sets up the static cache of a module, in the thread that it belongs to: it must be destroyed before that thread goes
   * offline. Throws RangeError or OutOfMemoryError, and then the place is as it was. Kernel: seed 000's `kmem_cache_setup`.
   */
  setupCache(definition: StaticCache): KmemCache {
    return this.caches.statics.setUp(this.placeOf(definition), definition);
  }

  private placeOf(definition: StaticCache): number {
    const i = this.definitions.indexOf(definition);
    if (i >= 0) return i;
    throw new RangeError(
      `${describe(definition?.name)} is no static cache of this thread; pass its definition to Arena.create and Arena.attach`,
    );
  }

  /** Names of all caches, those that merged into others too. */
  cacheNames(): string[] {
    return this.caches.names();
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

  /** This thread as a reclaim worker: call `run()`, which blocks. workers/reclaim.ts is no more than that. */
  reclaimWorker(): ReclaimWorker {
    return new ReclaimWorker(this.caches);
  }

  /** Ends the loops of all reclaim workers, in whatever threads they run. */
  stopReclaimWorkers(): void {
    stopReclaim(this.i32, this.geometry);
  }

  /** The report of this thread's latest allocation that failed without __GFP_NOWARN; at most ten in five seconds. */
  get lastOom(): string | undefined {
    return this.current?.pages.oom.last;
  }

  /**
   * Copies bytes into the arena. With `hardenedUsercopy` they must lie in the usercopy range of one object, or in one block
   * of kmalloc; else in the heap. Throws SlabBugError, and copies nothing. Kernel: `copy_from_user`.
   */
  copyFromUser(to: number, from: Uint8Array): void {
    this.usercopy.from(to, from);
  }

  /** Copies `to.length` bytes out of the arena, checked like copyFromUser. Kernel: `copy_to_user`. */
  copyToUser(to: Uint8Array, from: number): void {
    this.usercopy.to(to, from);
  }

  /**
   * Writes text as UTF-8 into `room` bytes, with a zero behind if it is shorter. Returns its bytes. Throws RangeError when it
   * does not fit, and as copyFromUser does.
   */
  writeText(p: number, room: number, text: string): number {
    return this.usercopy.writeText(p, room, text);
  }

  /** The text in `room` bytes, up to the first zero. Checked like copyToUser. */
  readText(p: number, room: number): string {
    return this.usercopy.readText(p, room);
  }

  protected override get caches(): Caches {
    return this.current ?? this.noCpu();
  }

  override get percpu(): PercpuAllocator {
    return this.currentPercpu ?? this.noCpu();
  }

  private noCpu(): never {
    throw new CpuError('this thread is no CPU of the arena: call arena.online() first');
  }
}
