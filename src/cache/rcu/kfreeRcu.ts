/**
 * kfree_rcu: what becomes of an object between the call and the free.
 *
 *  1. The CPU's rcu_free sheaf takes it (sheaf/rcuSheaf.ts).
 *  2. What no sheaf takes, objects of other nodes, of caches without sheaves, large blocks, is gathered in pages of
 *     addresses, a channel for slabs and one for large blocks (kfreeRcuLists.ts).
 *  3. Without memory for a page it is linked through a word of itself, if the caller gave one.
 *  4. Without that either, the caller waits for the grace period, or, in a read section, a callback has it.
 *
 * Gathered pages begin to wait when they are full, and otherwise after five seconds. No timer is relied on: barriers,
 * destroy, reclaim, offline, and the next call that finds the time passed do the same, for all CPUs, since everything
 * lies in the arena. A thread that blocks for ever holds back at most what it has gathered, until one of those.
 */
import { Pcs, pcsOf } from '../../cpu/index.js';
import { KfreeRcuCpu, type KfreeRcuCpuPtr, krcpOf, type Rcu, RcuStallError } from '../../rcu/index.js';
import type { CacheDesc } from '../../slab/index.js';
import { CpuError, optionError, requireInteger, WORD_BYTES, type Words } from '../../struct/index.js';
import { Intent, loadAcquire } from '../../sync/index.js';
import type { Caches } from '../caches.js';
import type { KmemCache } from '../kmemCache.js';
import { RegistrySlot, registrySlot } from '../registry.js';
import { forEachPcs, keepsRcuObjects, lockRemotePcs, unlockRemotePcs, whyKept } from '../remote.js';
import { KfreeRcuBatch } from './kfreeRcuBatch.js';
import { Channel, type ChannelId, KfreeRcuLists } from './kfreeRcuLists.js';
import { unattended } from './unattended.js';

/** Kernel: KFREE_DRAIN_JIFFIES. */
const DRAIN_MS = 5_000;
/** The clock is looked at once in so many calls. */
const LOOK_MASK = 63;
/** The caller has no word of the object to give. */
export const HEADLESS = -1;

const { hand: HAND, handHead: HAND_HEAD, handNolock: HAND_NOLOCK } = KfreeRcuCpu;
const { from: FROM, end: END, batch: BATCH } = KfreeRcuCpu;

/** Throws unless a whole word of an object of `bytes` bytes lies at byte `head`. */
export function checkHead(head: number, bytes: number): number {
  requireInteger('head', head, 0, bytes - WORD_BYTES);
  if (head % WORD_BYTES !== 0) throw optionError('head', head, `a multiple of ${WORD_BYTES}`);
  return head;
}

/** A CPU that a barrier has asked for its rcu_free sheaf in vain. */
interface Kept {
  cpu: number;
  cache: string;
  why: string;
}

function throwIfKept(kept: readonly Kept[]): void {
  const [first, ...others] = kept;
  if (first === undefined) return;
  const nor = others.map(({ cpu, cache }) => `, nor CPU ${cpu} its of ${cache}`).join('');
  throw new CpuError(
    `CPU ${first.cpu} did not give up its rcu_free sheaf of ${first.cache}${nor}: ${first.why}, and wait again`,
  );
}

export class KfreeRcu {
  private readonly caches: Caches;
  private readonly rcu: Rcu;
  readonly lists: KfreeRcuLists;
  private readonly batch: KfreeRcuBatch;
  private readonly own: KfreeRcuCpuPtr;
  private readonly m: Words;
  /** K1: where an object is noted that counts as freed from now on, and is about to be added. */
  readonly hand: number;
  /** Where the word for the object is noted before it is in `hand`, which makes it count. */
  readonly handHead: number;
  /** The same with the word of one that a restricted context adds. */
  readonly handNolock: number;
  private leaving = false;
  /** Lists that a callback will look at; there is one while it is not empty. */
  private readonly toDrain = new Set<KfreeRcuCpuPtr>();
  /** Of the drain of what gathers, and when it is due. */
  private timer: ReturnType<typeof setTimeout> | undefined;
  private dueAt = Number.POSITIVE_INFINITY;
  private calls = 0;
  /** Caches whose slabs wait, as far as this thread discarded them. */
  private readonly slabsWaitOf = new Set<CacheDesc>();

  constructor(caches: Caches, rcu: Rcu) {
    this.caches = caches;
    this.rcu = rcu;
    const { views, geometry, cpu, pages } = caches;
    this.lists = new KfreeRcuLists(views.m, geometry, cpu.locks, pages, rcu.gracePeriods);
    this.batch = new KfreeRcuBatch(caches);
    this.m = views.m;
    this.own = krcpOf(geometry, cpu.thread);
    this.hand = this.own + HAND;
    this.handHead = this.own + HAND_HEAD;
    this.handNolock = this.own + HAND_NOLOCK;
  }

  /**
   * Takes an object whose mark is gone already, and which the caller has noted in `hand`; `head`, which the caller has
   * noted in `handHead` before, is the address of a word of it, or HEADLESS.
   */
  add(p: number, channel: ChannelId = Channel.SLAB, head = HEADLESS): void {
    const { lists, own } = this;
    if ((++this.calls & LOOK_MASK) === 0 && performance.now() > this.dueAt) this.monitor();
    const appended = lists.append(own, channel, p);
    if (appended === 'waits') return this.armDrain(own);
    if (appended === 'no page' && head === HEADLESS) return this.freeWithoutPage(p);
    if (appended === 'no page') lists.pushHead(own, head >> 2, this.hand);
    this.armMonitor();
  }

  /** The same in a restricted context, noted in `handNolock`: takes no lock. Kernel: the llist objects_by_rcu. */
  addNolock(head: number): void {
    this.lists.pushHead(this.own, head >> 2, this.handNolock);
    this.armMonitor();
  }

  /** Slabs of a cache wait for a grace period: this thread looks again when it is over, if nobody has before. */
  slabWaits(s: CacheDesc): void {
    if (this.leaving) return;
    const known = this.slabsWaitOf.size > 0;
    this.slabsWaitOf.add(s);
    if (!known) this.later('slabs', this.freeRipeSlabs);
  }

  /** A full sheaf was submitted: when its grace period is over, this thread looks, if nobody has before. */
  sheafWaits(cache: KmemCache): void {
    if (this.leaving) return; // whoever next finds the barn without full sheaves looks
    this.later(cache.name, () => this.recycle(cache));
  }

  /**
   * Waits until what was given so far is free. It frees what other CPUs have gathered, so it need not wait for their
   * threads. Throws CpuError, with the rest free, when one keeps its rcu_free sheaf. Kernel: `kvfree_rcu_barrier_on_cache`.
   */
  barrier(cache: KmemCache): void {
    throwIfKept(this.settle(() => [cache]));
  }

  /** The same for all caches. Kernel: `kvfree_rcu_barrier`. */
  barrierAll(): void {
    const kept = this.settle(() => this.caches.all());
    this.eachList((krcp) => this.lists.dropCachedPages(krcp, 0)); // so that nothing at all is left of it
    throwIfKept(kept);
  }

  /** What a barrier does. Returns who may have kept objects: the end of a cache sees for itself. */
  settle(which: () => readonly KmemCache[]): Kept[] {
    const kept: Kept[] = [];
    const caches = this.caches.withSlabMutex(() => {
      const live = which();
      for (const cache of live) kept.push(...this.flushSheaves(cache));
      return live;
    });
    this.eachList((krcp) => this.lists.startWaiting(krcp));
    this.rcu.synchronize();
    this.eachList((krcp) => this.drain(krcp));
    for (const cache of caches) this.recycle(cache);
    this.rcu.synchronize(); // others may have had a batch in their hands
    return kept;
  }

  /** Frees what a CPU has gathered, now or when its grace period is over. Kernel: the shrinker slab-kvfree-rcu. */
  shrink(thread: number): void {
    const krcp = this.lists.of(thread);
    this.lists.startWaiting(krcp);
    this.drain(krcp);
    this.lists.dropCachedPages(krcp);
    this.armDrain(krcp);
  }

  /** Addresses that have been gathered and are not free, and the pages kept for more, over all CPUs; others are quiet. */
  pending(): { addresses: number; cachedPages: number } {
    let addresses = 0;
    let cachedPages = 0;
    this.eachList((krcp) => {
      this.lists.forEach(krcp, () => addresses++);
      cachedPages += this.lists.cachedPages(krcp);
    });
    return { addresses, cachedPages };
  }

  /** Submits the rcu_free sheaf of one CPU; slab_mutex held. */
  submitSheafOf(cache: KmemCache, cpu: number): void {
    if (cache.sheafCapacity === 0) return;
    const pcs = pcsOf(this.caches.geometry, cpu, cache.desc.slot);
    if (this.caches.views.m[pcs + Pcs.rcuFree] === 0 || !lockRemotePcs(this.caches.cpu, pcs)) return;
    cache.detachRcuSheaf(pcs);
    unlockRemotePcs(this.caches.cpu, pcs);
    cache.flushDetachedPcs();
  }

  /** Before this thread goes offline: callbacks free what it has gathered. True while there is more. */
  submitOwn(): boolean {
    if (!this.lists.gathers(this.own)) return false;
    this.lists.startWaiting(this.own);
    this.armDrain(this.own);
    return true;
  }

  /** From now on this thread gives RCU nothing more to do, and takes no timer with it. */
  leave(): void {
    this.leaving = true;
    this.lists.dropCachedPages(this.own);
    if (this.timer !== undefined) clearTimeout(this.timer);
  }

  /** It could not leave. */
  stay(): void {
    this.leaving = false;
  }

  /**
   * Submits the rcu_free sheaves of all CPUs, however full; slab_mutex held. Returns who may have kept objects. Kernel:
   * `flush_rcu_sheaves_on_cache`.
   */
  private flushSheaves(cache: KmemCache): Kept[] {
    const { cpu, geometry, policy } = this.caches;
    cpu.endTurn();
    if (cache.sheafCapacity === 0 || !cache.isAlive) return [];
    const { slot } = cache.desc;
    const skipped = forEachPcs(
      cpu,
      slot,
      (pcs) => cache.detachRcuSheaf(pcs),
      () => cache.flushDetachedPcs(),
    );
    return skipped
      .filter((id) => keepsRcuObjects(cpu, pcsOf(geometry, id, slot)))
      .map((id) => ({ cpu: id, cache: cache.name, why: whyKept(cpu, pcsOf(geometry, id, slot), policy) }));
  }

  /** Visits every object that any CPU has gathered, or in hand; others are quiet. */
  forEachPending(visit: (p: number, place: string) => void): void {
    this.eachList((krcp, cpu) => {
      const seen = (p: number, isHead: boolean): void => {
        visit(isHead ? this.caches.kmallocs.objectAt(p) : p, `kfree_rcu of CPU ${cpu}`);
      };
      this.lists.forEach(krcp, seen);
      this.lists.forEachInHand(krcp, seen);
    });
  }

  private eachList(visit: (krcp: KfreeRcuCpuPtr, cpu: number) => void): void {
    for (let cpu = 0; cpu < this.caches.geometry.threads; cpu++) visit(this.lists.of(cpu), cpu);
  }

  private armMonitor(): void {
    if (this.timer !== undefined || this.leaving) return;
    this.dueAt = performance.now() + DRAIN_MS;
    this.timer = setTimeout(() => this.monitor(), DRAIN_MS);
    // A browser's timers are numbers. Nobody needs to live for this one.
    (this.timer as { unref?: () => void }).unref?.();
  }

  /** Five seconds have passed. Kernel: `kfree_rcu_monitor`. */
  private monitor(): void {
    if (this.timer !== undefined) clearTimeout(this.timer);
    this.timer = undefined;
    this.dueAt = Number.POSITIVE_INFINITY;
    if (!this.caches.cpu.online) return;
    this.lists.startWaiting(this.own);
    this.armDrain(this.own);
  }

  private armDrain(krcp: KfreeRcuCpuPtr): void {
    if (!this.lists.waits(krcp)) return;
    const known = this.toDrain.size > 0;
    this.toDrain.add(krcp);
    if (!known) this.later('kfree_rcu', this.drainArmed);
  }

  private readonly drainArmed = (): void => {
    const all = [...this.toDrain];
    this.toDrain.clear();
    for (const krcp of all) this.drain(krcp);
    this.armDrain(this.own); // what others have added to theirs since is their own callback's
  };

  /** Frees a CPU's addresses whose grace period is over. */
  private drain(krcp: KfreeRcuCpuPtr): void {
    while (this.drainSome(krcp));
  }

  /** A batch of them; in a read section, for which barriers of other threads wait. */
  private drainSome(krcp: KfreeRcuCpuPtr): boolean {
    if (!this.lists.waits(krcp)) return false;
    let taken = false;
    this.rcu.briefly(() => {
      taken = this.lists.take(krcp, this.own);
      if (taken) this.batch.free(this.own);
    });
    return taken;
  }

  /**
   * Goes on with what a thread that is gone had in hand, its lists apart. Returns what may be lost, in words. Throws CpuError
   * without memory.
   */
  inherit(thread: number): string[] {
    const { m, own, lists, batch } = this;
    const dead = lists.of(thread);
    const notes = batch.skipRun(dead);
    if (m[dead + FROM]! < m[dead + END]!) {
      // It may have died between the two places of an object that no page took.
      if (m[dead + HAND] === m[dead + BATCH + m[dead + FROM]!]) m[dead + HAND] = 0;
      batch.free(dead);
    }
    const word = m[dead + HAND_NOLOCK]!;
    if (word !== 0) lists.pushHead(own, word >> 2, dead + HAND_NOLOCK);
    if (m[dead + HAND] !== 0) this.addFrom(thread);
    this.armMonitor();
    return notes;
  }

  /** An object that a thread that is gone has not got into its lists begins to wait in ours. */
  private addFrom(thread: number): void {
    const { m, own, lists } = this;
    const dead = lists.of(thread);
    const p = m[dead + HAND]!;
    const head = m[dead + HAND_HEAD]!;
    const channel = this.caches.kmallocs.cacheOf(p) === undefined ? Channel.LARGE : Channel.SLAB;
    const appended = lists.append(own, channel, p, dead);
    if (appended === 'waits') this.armDrain(own);
    if (appended !== 'no page') return;
    if (head === HEADLESS) {
      throw new CpuError(
        `no memory for the list of what thread slot ${thread} has given to kfree_rcu; free some and reap again`,
      );
    }
    lists.pushHead(own, head >> 2, dead + HAND);
  }

  /** No memory for a page, and no word. Until its grace period is over it stays in hand. */
  private freeWithoutPage(p: number): void {
    const { m, own } = this;
    if (this.rcu.depth > 0 || !this.waited()) {
      this.later('kfree_rcu', () => this.caches.kmallocs.freeAfterGracePeriod(p));
      m[this.hand] = 0; // a callback dies with its thread, and is counted then
      return;
    }
    this.batch.putOne(own, p);
    m[this.hand] = 0;
    this.batch.free(own);
  }

  private later(of: string, work: () => void): void {
    this.rcu.call(unattended(this.caches.slabs.callbacks, of, work));
  }

  /** Waits for a grace period; false when that takes too long, and the caller can do without. */
  private waited(): boolean {
    try {
      this.rcu.synchronize();
      return true;
    } catch (error) {
      if (error instanceof RcuStallError) return false;
      throw error;
    }
  }

  /**
   * What waits in a cache's barns and nodes and whose grace period is over. The cache may be another's to destroy: it
   * waits for read sections between its end and the release of its memory.
   */
  private recycle(cache: KmemCache): void {
    this.rcu.briefly(() => {
      if (!cache.isAlive) return;
      const { cpu, slabs } = this.caches;
      cpu.enterNolock(Intent.FREE, cache.desc.slot); // with a sheaf in hand
      try {
        cache.recycleAllRcuSheaves();
      } finally {
        cpu.leave();
      }
      slabs.freeAllRipeSlabs(cache.desc);
    });
  }

  private readonly freeRipeSlabs = (): void => {
    const all = [...this.slabsWaitOf];
    this.slabsWaitOf.clear();
    for (const s of all) this.freeSlabsOf(s);
  };

  private freeSlabsOf(s: CacheDesc): void {
    this.rcu.briefly(() => {
      const at = registrySlot(this.caches.geometry, s.slot) + RegistrySlot.serial;
      // G1: pairs with the store that ends the cache.
      if (loadAcquire(this.caches.views.m, at) !== s.serial) return;
      if (this.caches.slabs.freeAllRipeSlabs(s)) this.slabWaits(s);
    });
  }
}
