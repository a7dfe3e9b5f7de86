/** The caches of the arena, as one CPU has them open. Lives from online() to offline(). */
import { cpuOfThread, hasOtherThread, leaveCpu, sharesCpus, type ThisCpu, type Views } from '../cpu/index.js';
import { __GFP_NOWARN, GFP_NOWAIT, PageAllocator, sheafMemoryGfp } from '../page/index.js';
import { Rcu } from '../rcu/index.js';
import { Sheaf, type SheafPtr, sheafBytes } from '../sheaf/index.js';
import {
  type CacheDesc,
  KmemCacheStruct,
  readCacheDesc,
  readName,
  SLAB_KMALLOC,
  SLAB_NO_MERGE,
  SlabAllocator,
  TinySlabAllocator,
} from '../slab/index.js';
import {
  CHECK_LEVELS,
  type CheckLevel,
  CpuError,
  type Geometry,
  LAYERS,
  type Layer,
  LOCK_POLICIES,
  type LockPolicy,
  WORD_BYTES,
} from '../struct/index.js';
import { Intent, LockClass, loadAcquire } from '../sync/index.js';
import { FIRST_KMALLOC_SLOT, KMEM_CACHE_NODE_SLOT, KMEM_CACHE_SLOT } from './bootstrap.js';
import type { CacheContext } from './context.js';
import { countSheaf, createInSlot } from './create.js';
import { destroyCache, reapPcs, shrinkCache } from './drain.js';
import type { HotCode, KmemCacheClass } from './fastPath.js';
import { KfreeRcu } from './kfreeRcu.js';
import type { Kmallocs } from './kmalloc.js';
import type { KmemCache } from './kmemCache.js';
import { Nolock } from './nolock.js';
import { type CacheOptions, checkName, layoutFor } from './options.js';
import type { PrefilledSheafClass } from './prefilledSheaf.js';
import { CacheReclaim } from './reclaim.js';
import { findByName, findFreeSlot, liveSlots, RegistrySlot, registrySlot, slabMutex } from './registry.js';
import { lockWithin } from './remote.js';
import type { LeakReport, ShrinkReport } from './reports.js';
import { setUpArrays } from './setupArray.js';
import { Shrinkers } from './shrinkers.js';
import { makeKmallocs } from './typedKmallocs.js';

export class Caches implements CacheContext {
  readonly cpu: ThisCpu;
  readonly views: Views;
  readonly geometry: Geometry;
  readonly policy: LockPolicy;
  readonly check: CheckLevel;
  /** Of caches that do not say it themselves. */
  readonly layer: Layer;
  readonly pages: PageAllocator;
  readonly slabs: SlabAllocator;
  readonly kmallocs: Kmallocs;
  readonly rcu: Rcu;
  readonly kfreeRcu: KfreeRcu;
  readonly nolock: Nolock;
  readonly reclaim: CacheReclaim;
  /** Whether this thread has slab_mutex now. */
  ownsSlabMutex = false;
  /** The caches that caches are made of. */
  boot!: { kmemCache: KmemCache; kmemCacheNode: KmemCache };
  readonly prefilledSheaf: PrefilledSheafClass;
  private readonly classes: Readonly<Record<Layer, KmemCacheClass>>;
  private readonly tracking: KmemCacheClass;
  private readonly handles: KmemCache[] = [];

  constructor(cpu: ThisCpu, code: HotCode, shrinkers: Shrinkers = new Shrinkers()) {
    this.cpu = cpu;
    this.views = cpu.views;
    this.geometry = cpu.geometry;
    this.policy = LOCK_POLICIES[cpu.geometry.lockPolicy]!;
    this.check = CHECK_LEVELS[cpu.geometry.check]!;
    this.layer = LAYERS[cpu.geometry.layer]!;
    this.pages = new PageAllocator(cpu);
    const Slabs = cpu.geometry.tiny === 0 ? SlabAllocator : TinySlabAllocator;
    this.slabs = new Slabs(cpu, this.pages, code.freelists);
    this.classes = code.classes;
    this.tracking = code.tracking;
    this.prefilledSheaf = code.prefilledSheaf;
    this.kmallocs = makeKmallocs(this);
    this.rcu = new Rcu(cpu);
    this.kfreeRcu = new KfreeRcu(this, this.rcu);
    this.nolock = new Nolock(this);
    this.reclaim = new CacheReclaim(this, shrinkers);
  }

  /** Opens the caches that every arena has. Until then there are none to reclaim from. */
  openAll(): void {
    this.openBootCaches();
    this.kmallocs.bind(FIRST_KMALLOC_SLOT);
    this.pages.reclaimer = this.reclaim;
  }

  openBootCaches(): void {
    this.handles.length = 0;
    this.boot = { kmemCache: this.handle(KMEM_CACHE_SLOT), kmemCacheNode: this.handle(KMEM_CACHE_NODE_SLOT) };
  }

  describe(slot: number): CacheDesc {
    const ptr = this.views.m[registrySlot(this.geometry, slot) + RegistrySlot.cache]!;
    return readCacheDesc(this.views.m, ptr as never, this.geometry.nodes);
  }

  /** This thread's handle for a live slot; a new one if the slot has had another cache since. */
  handle(slot: number): KmemCache {
    const known = this.handles[slot];
    const serial = this.views.m[registrySlot(this.geometry, slot) + RegistrySlot.serial];
    if (known !== undefined && known.desc.serial === serial) return known;
    return this.openSlot(slot);
  }

  /** Apart from what is asked at each kfree. */
  private openSlot(slot: number): KmemCache {
    const { layer, origSize } = this.describe(slot);
    const opened = new (origSize === 0 ? this.classes[layer] : this.tracking)(this, slot);
    this.handles[slot] = opened;
    return opened;
  }

  /** Makes a cache. Throws on bad options, a duplicate name, too many caches, or no memory; then nothing was made. */
  create(name: string, options: CacheOptions): KmemCache {
    this.cpu.assertOnline();
    checkName(name);
    const layout = layoutFor(options, this.geometry.cpus, this.layer, this.geometry.tiny !== 0);
    const layer = options.layer ?? this.layer;
    const flags = (options.flags ?? 0) | (options.sheafCapacity || options.arraySize ? SLAB_NO_MERGE : 0);
    return this.withSlabMutex(() => {
      if (findByName(this.views.m, this.geometry, name) >= 0) {
        throw new RangeError(`name is ${JSON.stringify(name)}; a cache of that name exists, use openCache`);
      }
      const slot = findFreeSlot(this.views.m, this.geometry);
      if (slot < 0) {
        throw new RangeError(
          `all ${this.geometry.maxCaches} cache slots are taken; make the arena with more \`maxCaches\``,
        );
      }
      createInSlot(this, slot, name, options.size, flags, layer, layout);
      return this.handle(slot);
    });
  }

  /** Opens a cache that any thread made. Throws with the names there are. */
  open(name: string): KmemCache {
    this.cpu.assertOnline();
    checkName(name);
    const known = this.handles.find((cache) => cache?.name === name && this.isLive(cache));
    if (known !== undefined) return known;
    return this.withSlabMutex(() => {
      const slot = findByName(this.views.m, this.geometry, name);
      if (slot >= 0) return this.current(slot);
      const names = this.liveNames().filter((known) => !/^(dma-)?km/.test(known));
      throw new RangeError(
        `no cache is named ${JSON.stringify(name)}; there are ${names.length > 0 ? names.join(', ') : 'only the kmalloc caches'}`,
      );
    });
  }

  /** Whether a handle's cache still exists, with its layer; needs no lock, since the registry's slots never move. */
  private isLive({ desc }: KmemCache): boolean {
    return (
      this.views.m[registrySlot(this.geometry, desc.slot) + RegistrySlot.serial] === desc.serial &&
      // Pairs with the release in setUpArrays: whoever sees the new layer sees its arrays.
      LAYERS[loadAcquire(this.views.m, desc.ptr + KmemCacheStruct.layer)] === desc.layer
    );
  }

  /** The same as `handle`, and a new one when the cache has got another layer since. */
  private current(slot: number): KmemCache {
    const known = this.handles[slot];
    if (known !== undefined && !this.isLive(known)) delete this.handles[slot];
    return this.handle(slot);
  }

  names(): string[] {
    return this.withSlabMutex(() => this.liveNames());
  }

  /** slab_mutex held: without it, a struct may be another's memory by the time its name is read. */
  private liveNames(): string[] {
    return [...liveSlots(this.views.m, this.geometry)].map(({ ptr }) => readName(this.views.m, ptr));
  }

  /** All live caches, opened. slab_mutex held, or nobody else about. */
  all(): KmemCache[] {
    return [...liveSlots(this.views.m, this.geometry)].map(({ slot }) => this.current(slot));
  }

  shrink(cache: KmemCache): ShrinkReport {
    return this.withSlabMutex(() => {
      this.nolock.drainAll();
      return shrinkCache(this, this.current(cache.desc.slot));
    });
  }

  destroy(cache: KmemCache): LeakReport {
    if (cache.desc.slot < FIRST_KMALLOC_SLOT || (cache.desc.flags & SLAB_KMALLOC) !== 0) {
      throw new RangeError(`${cache.name} is one of the arena's own caches; it lives as long as the arena`);
    }
    this.kfreeRcu.barrier(cache);
    return this.withSlabMutex(() => {
      this.nolock.drainAll();
      return destroyCache(this, this.current(cache.desc.slot));
    });
  }

  setupPercpuArray(cache: KmemCache, count: number): KmemCache {
    return this.withSlabMutex(() => {
      setUpArrays(this, this.current(cache.desc.slot), count);
      return this.current(cache.desc.slot);
    });
  }

  /** Kernel: `alloc_empty_sheaf`. A free must not wait for memory, and an allocation waits for its object alone. */
  allocEmptySheaf(s: CacheDesc, capacity: number, gfp = GFP_NOWAIT | __GFP_NOWARN): SheafPtr {
    // A sheaf for a kmalloc cache may need another kmalloc cache's sheaf, and that one none: one level, no more.
    if (this.cpu.sheafAllocDepth > 0) return 0 as SheafPtr;
    const nested = (s.flags & SLAB_KMALLOC) !== 0 ? 1 : 0;
    this.cpu.sheafAllocDepth += nested;
    let p = 0;
    try {
      p = this.kmallocs.alloc(sheafBytes(capacity), sheafMemoryGfp(gfp));
    } finally {
      this.cpu.sheafAllocDepth -= nested;
    }
    if (p === 0) return 0 as SheafPtr;
    const sheaf = (p / WORD_BYTES) as SheafPtr;
    this.views.m.fill(0, sheaf, sheaf + Sheaf.SIZEOF);
    this.views.m[sheaf + Sheaf.cache] = s.ptr;
    countSheaf(this, s, 'SHEAF_ALLOC');
    return sheaf;
  }

  freeEmptySheaf(s: CacheDesc, sheaf: SheafPtr): void {
    countSheaf(this, s, 'SHEAF_FREE');
    if (this.reclaim.running) this.kmallocs.freePastLayer(sheaf * WORD_BYTES);
    else this.kmallocs.free(sheaf * WORD_BYTES);
  }

  /**
   * Before this thread goes offline: takes back what it borrowed and flushes its CPU's sheaves of every cache, unless
   * other threads run there. A CPU's sheaves are not its threads': those who stay would only have to fill them again.
   */
  leaveCpu(): void {
    const { cpu, geometry } = this;
    this.withSlabMutex(() => {
      for (const cache of this.handles) if (cache !== undefined) cache.endLoans(this.isLive(cache));
      if (!hasOtherThread(cpu.m, geometry, cpu.id, cpu.thread)) this.flushThisCpu();
      leaveCpu(cpu.m, geometry, cpu.thread);
    });
  }

  /** Before this thread goes offline: what it has given to RCU is freed, or in the hands of those who stay. */
  finishRcu(): void {
    const { cpu, kfreeRcu, rcu } = this;
    do {
      this.withSlabMutex(() => {
        for (const cache of this.all()) kfreeRcu.submitSheafOf(cache, cpu.id);
      });
      rcu.goOffline();
    } while (rcu.pending > 0);
    kfreeRcu.leave();
  }

  private flushThisCpu(): void {
    // Sheaves are objects of kmalloc caches, which must therefore come last.
    const caches = this.all().reverse();
    for (const cache of caches) cache.flushThisCpu();
    for (const cache of caches) cache.flushThisCpu();
  }

  /** Flushes what a thread that is gone leaves on its CPU. Returns what its death left open, in words. */
  reap(thread: number, owner: number): string[] {
    const { geometry } = this;
    const { m } = this.views;
    return this.withSlabMutex(() => {
      const cpu = cpuOfThread(m, geometry, thread);
      const dead = { thread, owner, cpu, othersStay: hasOtherThread(m, geometry, cpu, thread) };
      const notes: string[] = [];
      this.kfreeRcu.takeOver(thread);
      for (const cache of this.all().reverse()) notes.push(...reapPcs(this, cache, dead));
      this.nolock.drainDead(thread);
      leaveCpu(m, geometry, thread);
      return notes;
    });
  }

  /** Under slab_mutex. Our own turn ends first: while we wait for the mutex, nobody may wait for our sheaves. */
  withSlabMutex<T>(body: () => T): T {
    this.cpu.assertOnline();
    this.cpu.endTurn();
    const lock = slabMutex(this.geometry);
    this.cpu.locks.lock(lock, LockClass.SlabMutex);
    return this.ownSlabMutex(body);
  }

  /** The same within a limit, or as the holder that this thread is. False when the limit passed. */
  tryWithSlabMutex(limitMs: number, body: () => void): boolean {
    if (this.ownsSlabMutex) {
      body();
      return true;
    }
    this.cpu.endTurn();
    if (!lockWithin(this.cpu, slabMutex(this.geometry), LockClass.SlabMutex, limitMs)) return false;
    this.ownSlabMutex(body);
    return true;
  }

  private ownSlabMutex<T>(body: () => T): T {
    this.cpu.enter(Intent.CACHES, 0);
    this.ownsSlabMutex = true;
    try {
      return body();
    } finally {
      this.cpu.endTurn();
      this.cpu.leave();
      this.ownsSlabMutex = false;
      this.cpu.locks.unlock(slabMutex(this.geometry), LockClass.SlabMutex);
    }
  }

  assertThread(thread: number): void {
    if (Number.isInteger(thread) && thread >= 0 && thread < this.geometry.threads) return;
    const name = sharesCpus(this.geometry) ? 'thread' : 'cpu';
    throw new CpuError(`${name} is ${thread}; it must be an integer from 0 to ${this.geometry.threads - 1}`);
  }
}
