/** The caches of the arena, as one CPU has them open. Lives from online() to offline(). */
import { hasOtherThread, lastCpuOf, leaveCpu, type ThisCpu, type Views } from '../cpu/index.js';
import { __GFP_NOWARN, GFP_NOWAIT, PageAllocator, sheafMemoryGfp } from '../page/index.js';
import { Rcu } from '../rcu/index.js';
import { Sheaf, type SheafPtr, sheafBytes } from '../sheaf/index.js';
import {
  type CacheDesc,
  KmemCacheStruct,
  readCacheDesc,
  readSlabDebug,
  SLAB_KMALLOC,
  type SlabAllocator,
  type SlabDebugSpec,
} from '../slab/index.js';
import {
  CHECK_LEVELS,
  type CheckLevel,
  type Geometry,
  INSPECT,
  LAYERS,
  type Layer,
  LOCK_POLICIES,
  type LockPolicy,
  WORD_BYTES,
} from '../struct/index.js';
import { Intent, LockClass, loadAcquire } from '../sync/index.js';
import { FIRST_KMALLOC_SLOT, KMEM_CACHE_NODE_SLOT, KMEM_CACHE_SLOT } from './bootstrap.js';
import { Endings, withDefinition } from './callbacks.js';
import type { CacheContext } from './context.js';
import { countSheaf } from './create.js';
import { type DebugServices, NO_DEBUG_SERVICES } from './debug/cacheDebug.js';
import { Failslab } from './debug/failslab.js';
import { DefinedCache, whatToMake } from './define.js';
import { reapPcs, shrinkCache } from './drain.js';
import { MemoryGroups } from './groups/groups.js';
import { Accounting } from './groups/memoryGroup.js';
import { Guards } from './guard/guards.js';
import { classOf, type HotCode } from './hotCode.js';
import type { Kmallocs } from './kmalloc/kmalloc.js';
import { makeKmallocs } from './kmalloc/typedKmallocs.js';
import type { KmemCache } from './kmemCache.js';
import { setUpArrays } from './layers/setupArray.js';
import { AliasKmemCache } from './merge/aliasCache.js';
import { findByAnyName, liveNames } from './merge/aliasLinks.js';
import { createOrMerge, dropCache } from './merge/merging.js';
import { newCache } from './newCache.js';
import { Nolock } from './nolock.js';
import { type CacheOptions, checkName } from './options.js';
import type { PrefilledSheafClass } from './prefilledSheaf.js';
import { KfreeRcu } from './rcu/kfreeRcu.js';
import { CacheReclaim } from './reclaim/reclaim.js';
import { Shrinkers } from './reclaim/shrinkers.js';
import { findByName, liveSlots, RegistrySlot, registrySlot, slabMutex } from './registry.js';
import { lockWithin } from './remote.js';
import type { LeakReport, ShrinkReport } from './reports.js';
import { assertMayEnd, leavePlace, modulesCaches, Statics } from './staticCaches.js';

export class Caches implements CacheContext {
  readonly cpu: ThisCpu;
  readonly views: Views;
  readonly geometry: Geometry;
  readonly policy: LockPolicy;
  readonly check: CheckLevel;
  readonly layer: Layer;
  readonly pages: PageAllocator;
  readonly slabs: SlabAllocator;
  readonly kmallocs: Kmallocs;
  readonly rcu: Rcu;
  readonly kfreeRcu: KfreeRcu;
  readonly guards: Guards;
  readonly nolock: Nolock;
  readonly reclaim: CacheReclaim;
  readonly endings: Endings;
  readonly statics: Statics;
  /** What the layers above put off, for a reclaim worker; they set it. */
  background: () => void = () => {};
  /** Whether this thread has slab_mutex now. */
  ownsSlabMutex = false;
  /** The caches that caches are made of. */
  boot!: { kmemCache: KmemCache; kmemCacheNode: KmemCache };
  readonly prefilledSheaf: PrefilledSheafClass;
  /** What the arena's slabDebug says. */
  readonly slabDebug: SlabDebugSpec;
  readonly failslab = new Failslab();
  /** The layer above puts itself here. */
  debug: DebugServices = NO_DEBUG_SERVICES;
  readonly accountedSheaf: PrefilledSheafClass;
  readonly accounting: Accounting;
  readonly groups: MemoryGroups;
  private readonly code: HotCode;
  private readonly handles: KmemCache[] = [];

  /** For console.log of what has it among its fields. */
  [INSPECT](): string {
    return `Caches { CPU ${this.cpu.id} }`;
  }

  constructor(cpu: ThisCpu, code: HotCode, shrinkers: Shrinkers = new Shrinkers(), arena?: unknown) {
    this.cpu = cpu;
    this.views = cpu.views;
    this.geometry = cpu.geometry;
    this.policy = LOCK_POLICIES[cpu.geometry.lockPolicy]!;
    this.check = CHECK_LEVELS[cpu.geometry.check]!;
    this.layer = LAYERS[cpu.geometry.layer]!;
    this.pages = new PageAllocator(cpu);
    this.slabs = new code.slabs(cpu, this.pages, code.freelists);
    this.code = code;
    this.accounting = new Accounting(cpu);
    this.groups = new MemoryGroups(this);
    this.prefilledSheaf = code.prefilledSheaf;
    this.accountedSheaf = code.accountedSheaf;
    this.slabDebug = readSlabDebug(cpu.m, cpu.geometry);
    this.kmallocs = makeKmallocs(this, code.kmallocs);
    this.rcu = new Rcu(cpu);
    this.kfreeRcu = new KfreeRcu(this, this.rcu);
    this.slabs.slabWaits = (s) => this.kfreeRcu.slabWaits(s);
    this.guards = new Guards(this);
    this.nolock = new Nolock(this);
    this.reclaim = new CacheReclaim(this, shrinkers);
    this.endings = new Endings(this, arena);
    this.statics = new Statics(this);
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
    const primary = this.primarySlot(slot);
    const opened =
      primary === slot
        ? new (classOf(this.code, this.describe(slot), this.cpu.record))(this, slot)
        : new AliasKmemCache(this, slot, this.handle(primary));
    this.handles[slot] = opened;
    return opened;
  }

  /** The slot of the cache whose storage the cache in `slot` uses. */
  private primarySlot(slot: number): number {
    const { m } = this.views;
    const ptr = m[registrySlot(this.geometry, slot) + RegistrySlot.cache]!;
    return m[m[ptr + KmemCacheStruct.primary]! + KmemCacheStruct.slot]!;
  }

  /** Makes a cache, or lets one serve it. Throws on bad options, a duplicate name, too many caches, no memory: then nothing was made. */
  create(wanted: string | DefinedCache, given?: CacheOptions): KmemCache {
    this.cpu.assertOnline();
    const made = newCache(whatToMake(wanted, given), this.geometry, this.layer, this.slabDebug);
    const { name } = made;
    return this.withSlabMutex(() => {
      if (findByName(this.views.m, this.geometry, name) >= 0) {
        throw new RangeError(`name is ${JSON.stringify(name)}; a cache of that name exists, use openCache`);
      }
      return createOrMerge(this, made);
    });
  }

  /** Opens a cache that any thread made, or else makes it. Throws as create does, but for a duplicate name. */
  openOrCreate(name: string, options: CacheOptions): KmemCache {
    this.cpu.assertOnline();
    const made = newCache(whatToMake(name, options), this.geometry, this.layer, this.slabDebug);
    return this.withSlabMutex(() => {
      const slot = findByName(this.views.m, this.geometry, name);
      return slot >= 0 ? this.current(slot) : createOrMerge(this, made);
    });
  }

  /** Opens a cache that any thread made. Throws with the names there are. */
  open(wanted: string | DefinedCache): KmemCache {
    this.cpu.assertOnline();
    const name = checkName(wanted instanceof DefinedCache ? wanted.name : wanted);
    const known = this.handles.find(
      (cache) => cache?.name === name && this.isLive(cache) && !this.isHidden(cache),
    );
    if (known !== undefined) return withDefinition(this, known);
    return this.withSlabMutex(() => {
      const slot = findByAnyName(this, name);
      if (slot >= 0) return withDefinition(this, this.opened(slot));
      const names = liveNames(this).filter((known) => !/^(dma-)?km/.test(known));
      throw new RangeError(
        `no cache is named ${JSON.stringify(name)}; there are ${names.length > 0 ? names.join(', ') : 'only the kmalloc caches'}`,
      );
    });
  }

  /** A handle whose sizes are those that the cache has now. slab_mutex held. */
  private opened(slot: number): KmemCache {
    const cache = this.current(slot);
    cache.learnSizes();
    return cache;
  }

  /** Whether the cache lives for its aliases alone. */
  private isHidden({ desc }: KmemCache): boolean {
    return this.views.m[desc.ptr + KmemCacheStruct.hidden] === 1;
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
    return this.withSlabMutex(() => liveNames(this));
  }

  /** All live caches that have slabs of their own, opened. slab_mutex held, or all other threads quiet. */
  all(): KmemCache[] {
    return [...liveSlots(this.views.m, this.geometry)]
      .filter(({ slot }) => this.primarySlot(slot) === slot)
      .map(({ slot }) => this.current(slot));
  }

  shrink(cache: KmemCache): ShrinkReport {
    return this.withSlabMutex(() => {
      cache.assertAlive(); // another thread may have ended it while we waited
      this.nolock.drainAll();
      return shrinkCache(this, this.current(cache.desc.slot));
    });
  }

  destroy(cache: KmemCache): LeakReport {
    assertMayEnd(this, cache.desc);
    const { ptr, slot } = cache.desc;
    this.endings.assertPossible(cache.desc);
    this.kfreeRcu.settle(() => [cache.primary]);
    const dropped = this.withSlabMutex(() => {
      cache.assertAlive();
      this.nolock.drainAll();
      const { release, ...rest } = dropCache(this, this.current(slot));
      const leave = (): void => {
        release();
        leavePlace(this, ptr);
      };
      if (rest.ended === undefined || rest.leaks) leave();
      return { ...rest, release: leave };
    });
    this.endings.finish(dropped);
    return dropped.report;
  }

  setupPercpuArray(cache: KmemCache, count: number): KmemCache {
    return this.withSlabMutex(() => {
      cache.assertAlive();
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
      p = this.kmallocs.allocOwn(sheafBytes(capacity), sheafMemoryGfp(gfp));
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
    const { cpu, geometry, handles } = this;
    const flush = (): void => this.flushIfLast();
    this.endings.leave(handles, flush, () => {
      for (const cache of handles) if (cache !== undefined) cache.endLoans(this.isLive(cache));
      this.flushIfLast();
      this.groups.workFor(null);
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
    } while (kfreeRcu.submitOwn() || rcu.pending > 0);
    kfreeRcu.leave();
  }

  private flushIfLast(): void {
    const { cpu, geometry } = this;
    if (hasOtherThread(cpu.m, geometry, cpu.id, cpu.thread)) return;
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
      const cpu = lastCpuOf(m, geometry, thread);
      const dead = { thread, owner, cpu, othersStay: hasOtherThread(m, geometry, cpu, thread) };
      const notes = this.slabs.callbacks.inherit(thread);
      notes.push(...this.accounting.inherit(thread));
      this.kfreeRcu.shrink(thread);
      notes.push(...this.kfreeRcu.inherit(thread));
      for (const cache of this.all().reverse()) notes.push(...reapPcs(this, cache, dead));
      this.nolock.drainDead(thread);
      leaveCpu(m, geometry, thread);
      for (const name of modulesCaches(this, thread))
        notes.push(`${name}: nobody destroys it for its module`);
      return notes;
    });
  }

  /** Under slab_mutex. Our own turn ends first: while we wait for the mutex, nobody may wait for our sheaves. */
  withSlabMutex<T>(body: () => T): T {
    this.cpu.assertOnline();
    this.cpu.endTurn();
    const lock = slabMutex(this.geometry);
    this.cpu.locks.lock(lock, LockClass.SlabMutex);
    try {
      return this.ownSlabMutex(body);
    } finally {
      this.slabs.checks.sink.flush();
    }
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
    this.ownsSlabMutex = true;
    try {
      return this.cpu.turnOf(Intent.CACHES, 0, body);
    } finally {
      this.ownsSlabMutex = false;
      this.cpu.locks.unlock(slabMutex(this.geometry), LockClass.SlabMutex);
      if (this.cpu.callbacksDue) this.cpu.runCallbacks();
    }
  }
}
