/** Caches with constructors and destructors: who has their functions, and how such a cache ends. */

import { GFP_KERNEL } from '../page/index.js';
import {
  type CacheDesc,
  KmemCacheStruct,
  type ObjectCallbacks,
  SLAB_CTOR,
  SLAB_DTOR,
} from '../slab/index.js';
import { CpuError, WORD_BYTES } from '../struct/index.js';
import { canSleep, futexWait, Intent, loadAcquire } from '../sync/index.js';
import type { Caches } from './caches.js';
import { definitionFault, definitionOf } from './define.js';
import { endCache } from './drain.js';
import type { KmemCache } from './kmemCache.js';
import type { Dropped } from './merge/merging.js';
import { RegistrySlot, registrySlot } from './registry.js';

const { definedIn: DEFINED_IN } = KmemCacheStruct;
/** How long destroy waits for another thread's destructors. */
const OTHERS_LIMIT_MS = 1000;
const NAP_MS = 2;
/** Destructors that free into a cache that is ending make it end later, not never; so do those of a thread that leaves. */
const ROUNDS_MAX = 16;

/** Writes down which module defines a new cache. Without memory for it the cache works, and errors say less. */
export function noteModule(caches: Caches, desc: CacheDesc, definedIn: string): void {
  const { m, u8 } = caches.views;
  const bytes = new TextEncoder().encode(definedIn);
  const p = caches.kmallocs.allocOwn(WORD_BYTES + bytes.length, GFP_KERNEL);
  if (p === 0) return;
  m[p >> 2] = bytes.length;
  u8.set(bytes, p + WORD_BYTES);
  m[desc.ptr + DEFINED_IN] = p;
}

export function forgetModule(caches: Caches, desc: CacheDesc): void {
  const p = caches.views.m[desc.ptr + DEFINED_IN]!;
  if (p !== 0) caches.kmallocs.free(p);
}

/** The module that defines a cache. */
function moduleOf(caches: Caches, desc: CacheDesc): string {
  const { m, u8 } = caches.views;
  const p = m[desc.ptr + DEFINED_IN]!;
  if (p === 0) return 'a module that could not be told';
  return new TextDecoder().decode(u8.slice(p + WORD_BYTES, p + WORD_BYTES + m[p >> 2]!));
}

/** The handle, if this thread has the functions of its cache. Throws CacheDefinitionError if not. */
export function withDefinition(caches: Caches, cache: KmemCache): KmemCache {
  const fault = definitionFault(cache.desc, moduleOf(caches, cache.desc));
  if (fault !== undefined) throw fault;
  return cache;
}

/** The end of caches with destructors, and of this thread's stay on its CPU. */
export class Endings {
  private readonly caches: Caches;
  /** The cache that this thread is ending: it is not live any more, and its destructors are run all the same. */
  private ending: CacheDesc | undefined;

  constructor(caches: Caches, arena: unknown) {
    this.caches = caches;
    caches.slabs.callbacks.bind((s) => this.find(s), arena);
  }

  private find(s: CacheDesc): ObjectCallbacks | undefined {
    const { views, geometry } = this.caches;
    const serial = loadAcquire(views.m, registrySlot(geometry, s.slot) + RegistrySlot.serial);
    const isOurs = serial === s.serial || (serial === -s.serial && this.ending?.ptr === s.ptr);
    if (!isOurs || definitionFault(s, '') !== undefined) return undefined;
    return definitionOf(s.name)!.definition as ObjectCallbacks;
  }

  /** Throws unless this thread can destruct what is left of a cache. */
  assertPossible(s: CacheDesc): void {
    if ((s.flags & SLAB_DTOR) === 0) {
      if ((s.flags & SLAB_CTOR) !== 0) this.waitForOthers(s, 'destroy again');
      return;
    }
    const fault = definitionFault(s, moduleOf(this.caches, s));
    if (fault !== undefined) throw fault;
    this.caches.slabs.callbacks.runCache(s);
    this.waitForOthers(s, 'destroy again');
  }

  /**
   * The end of a cache, after destroy took it off the list. slab_mutex is held neither while others read, nor in
   * destructors: caches are made meanwhile, and dead threads reaped.
   */
  finish({ ended: s, leaks, release, revive }: Dropped): void {
    const { caches } = this;
    if (s === undefined) return;
    if (!leaks) this.waitForReaders(s, revive);
    this.destructRest(s);
    if (leaks) return;
    caches.withSlabMutex(() => {
      if (!caches.slabs.callbacks.hasWaiting(s)) endCache(caches, s);
      release();
    });
  }

  /**
   * Callbacks of other threads may be looking into its barns and nodes, in read sections in which they found it alive;
   * others may be looking at objects of its slabs.
   */
  private waitForReaders(s: CacheDesc, revive: () => void): void {
    const { cpu, rcu, slabs } = this.caches;
    cpu.enter(Intent.CACHES, s.slot);
    try {
      rcu.synchronize();
      slabs.freeAllRipeSlabs(s);
    } catch (error) {
      this.caches.withSlabMutex(revive); // destroy again when they are over
      throw error;
    } finally {
      cpu.leave();
    }
  }

  private destructRest(s: CacheDesc): void {
    const { callbacks } = this.caches.slabs;
    if (!callbacks.hasWaiting(s)) return;
    this.ending = s;
    try {
      // Who found the cache alive may be taking its list; who comes later finds that it is not.
      this.waitForOthers(s, 'what is left of it stays');
      for (let round = 0; round < ROUNDS_MAX && callbacks.hasWaiting(s); round++) callbacks.runCache(s);
    } finally {
      this.ending = undefined;
    }
  }

  private waitForOthers(s: CacheDesc, consequence: string): void {
    const { caches } = this;
    const { callbacks } = caches.slabs;
    const { m, record } = caches.cpu;
    const deadline = performance.now() + OTHERS_LIMIT_MS;
    for (let thread = callbacks.busyThread(s); thread >= 0; thread = callbacks.busyThread(s)) {
      if (performance.now() > deadline) {
        const who = `thread slot ${thread} has been in a constructor or destructor of ${s.name} for ${OTHERS_LIMIT_MS} ms`;
        throw new CpuError(`${who}; if it is gone, call arena.cpuDead(${thread}); ${consequence}`);
      }
      // Nobody wakes us: it is only a nap on a word of our own.
      if (canSleep(m)) futexWait(m, record, m[record]!, NAP_MS);
    }
  }

  /** The last flush of this CPU while callbacks may run; then `leave`, after which they wait for other threads. */
  leave(handles: readonly (KmemCache | undefined)[], flush: () => void, leave: () => void): void {
    const { caches } = this;
    const { callbacks } = caches.slabs;
    if (
      handles.some((cache) => cache !== undefined && (cache.desc.flags & SLAB_DTOR) !== 0 && cache.isAlive)
    ) {
      // Destructors give RCU callbacks, which free what is to be destructed in turn.
      for (let round = 0; round < ROUNDS_MAX; round++) {
        caches.withSlabMutex(flush);
        callbacks.run();
        if (!caches.kfreeRcu.submitOwn() && caches.rcu.pending === 0) break;
        caches.finishRcu();
      }
    }
    callbacks.closed = true;
    try {
      caches.withSlabMutex(leave);
    } catch (error) {
      callbacks.closed = false; // the thread stays
      throw error;
    }
  }
}
