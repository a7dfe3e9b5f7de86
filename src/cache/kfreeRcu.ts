/**
 * kfree_rcu, past the sheaves: objects of other nodes, of caches without sheaves, of large kmalloc, and those for which
 * there was no sheaf. Their addresses are gathered in pages; when the pages gathered so far begin to wait for a grace
 * period, the next ones gather.
 *
 * The pages hang on the CPU's RCU record in the arena, under its krcp lock: a barrier takes over what other CPUs have
 * gathered, and a reaper what a dead one has.
 *
 * | list      | holds                                  | moves on                              |
 * |-----------|----------------------------------------|---------------------------------------|
 * | gathering | pages, the first of them has room      | to waiting, when nothing waits        |
 * | waiting   | pages whose grace period was asked for | to the caches, when that is over      |
 */
import { Pcs, pcsOf } from '../cpu/index.js';
import { __GFP_NOWARN, GFP_NOWAIT, virtToPage } from '../page/index.js';
import { type Rcu, RcuCpu, type RcuCpuPtr, rcuCpuOf } from '../rcu/index.js';
import type { CacheDesc } from '../slab/index.js';
import { PAGE_SIZE, WORD_BYTES, type Words } from '../struct/index.js';
import { LockClass, type LockPtr, loadAcquire } from '../sync/index.js';
import type { Caches } from './caches.js';
import type { KmemCache } from './kmemCache.js';
import { RegistrySlot, registrySlot } from './registry.js';
import { forEachPcs, lockRemotePcs, unlockRemotePcs } from './remote.js';

/** A page of addresses: link to the next page (word index), how many, and they. */
const NEXT = 0;
const COUNT = 1;
const FIRST = 2;
const PER_PAGE = PAGE_SIZE / WORD_BYTES - FIRST;

/** Addresses that are taken out of a page at once. */
const BATCH = 32;

const { gathering: GATHERING, waiting: WAITING, waitingFor: WAITING_FOR } = RcuCpu;

export class KfreeRcu {
  private readonly caches: Caches;
  private readonly rcu: Rcu;
  private readonly m: Words;
  private readonly own: RcuCpuPtr;
  private leaving = false;
  private readonly batch = new Int32Array(BATCH);
  /** Caches whose slabs wait, as far as this thread discarded them. */
  private readonly slabsWaitOf = new Set<CacheDesc>();
  private readonly drain = (): void => this.drainWaiting();
  private readonly freeRipeSlabs = (): void => {
    const all = [...this.slabsWaitOf];
    this.slabsWaitOf.clear();
    for (const s of all) this.freeSlabsOf(s);
  };

  constructor(caches: Caches, rcu: Rcu) {
    this.caches = caches;
    this.rcu = rcu;
    this.m = caches.views.m;
    this.own = rcuCpuOf(caches.geometry, caches.cpu.thread);
  }

  /** Takes an object whose mark is gone already. Without memory for a page it waits for the grace period here. */
  add(p: number): void {
    if (!this.locked(this.own, () => this.append(p))) this.freeWithoutPage(p);
  }

  private append(p: number): boolean {
    const { m, own } = this;
    let page = m[own + GATHERING]!;
    if (page === 0 || m[page + COUNT] === PER_PAGE) {
      page = this.addPage();
      if (page === 0) return false;
    }
    const count = m[page + COUNT]!;
    m[page + FIRST + count] = p;
    m[page + COUNT] = count + 1;
    if (m[own + WAITING] === 0) this.startWaiting();
    return true;
  }

  /** Slabs of a cache wait for a grace period: this thread looks again when it is over, if nobody has before. */
  slabWaits(s: CacheDesc): void {
    if (this.leaving) return;
    const known = this.slabsWaitOf.size > 0;
    this.slabsWaitOf.add(s);
    if (!known) this.rcu.call(this.freeRipeSlabs);
  }

  /** A full sheaf was submitted: when its grace period is over, this thread looks, if nobody has before. */
  sheafWaits(cache: KmemCache): void {
    if (this.leaving) return; // whoever next finds the barn without full sheaves looks
    this.rcu.call(() => this.recycle(cache));
  }

  /**
   * Waits until what was given so far is free. It takes over what other CPUs have gathered, so it need not wait for
   * their threads. Kernel: `kvfree_rcu_barrier_on_cache`.
   */
  barrier(cache: KmemCache): void {
    this.flushSheaves(cache);
    this.takeOverAll();
    this.rcu.synchronize();
    this.drainAll();
    this.recycle(cache);
  }

  /** Kernel: `kvfree_rcu_barrier`. */
  barrierAll(): void {
    const all = this.caches.withSlabMutex(() => this.caches.all());
    for (const cache of all) this.flushSheaves(cache);
    this.takeOverAll();
    this.rcu.synchronize();
    this.drainAll();
    for (const cache of all) this.recycle(cache);
  }

  /** Submits the rcu_free sheaf of one CPU; slab_mutex held. */
  submitSheafOf(cache: KmemCache, cpu: number): void {
    if (cache.sheafCapacity === 0) return;
    const pcs = pcsOf(this.caches.geometry, cpu, cache.desc.slot);
    if (this.m[pcs + Pcs.rcuFree] === 0 || !lockRemotePcs(this.caches.cpu, pcs)) return;
    cache.detachRcuSheaf(pcs);
    unlockRemotePcs(this.caches.cpu, pcs);
    cache.flushDetachedPcs();
  }

  /** From now on this thread gives RCU nothing more to do. */
  leave(): void {
    this.leaving = true;
  }

  /** Submits the rcu_free sheaves of all CPUs, however full. Kernel: `flush_rcu_sheaves_on_cache`. */
  flushSheaves(cache: KmemCache): void {
    this.caches.cpu.endTurn();
    if (cache.sheafCapacity === 0) return;
    forEachPcs(
      this.caches.cpu,
      cache.desc.slot,
      (pcs) => cache.detachRcuSheaf(pcs),
      () => cache.flushDetachedPcs(),
    );
  }

  /** The pages of another CPU become ours; its thread is gone, or need not notice. */
  takeOver(cpu: number): void {
    const { m, own } = this;
    const other = rcuCpuOf(this.caches.geometry, cpu);
    if (other === own) return;
    let first = 0;
    let last = 0;
    this.locked(other, () => {
      for (const list of [WAITING, GATHERING]) {
        for (let page = m[other + list]!; page !== 0; page = m[page + NEXT]!) {
          if (last === 0) first = page;
          else m[last + NEXT] = page;
          last = page;
        }
        m[other + list] = 0;
      }
    });
    if (first === 0) return;
    this.locked(own, () => {
      m[last + NEXT] = m[own + GATHERING]!;
      m[own + GATHERING] = first;
      if (m[own + WAITING] === 0) this.startWaiting();
    });
  }

  private takeOverAll(): void {
    for (let cpu = 0; cpu < this.caches.geometry.threads; cpu++) this.takeOver(cpu);
  }

  /** Visits every object that any CPU's pages hold; others are quiet. */
  forEachPending(visit: (p: number, place: string) => void): void {
    const { m } = this;
    for (let cpu = 0; cpu < this.caches.geometry.threads; cpu++) {
      const record = rcuCpuOf(this.caches.geometry, cpu);
      for (const list of [GATHERING, WAITING]) {
        for (let page = m[record + list]!; page !== 0; page = m[page + NEXT]!) {
          const count = Math.min(m[page + COUNT]!, PER_PAGE);
          for (let i = 0; i < count; i++) visit(m[page + FIRST + i]!, `kfree_rcu of CPU ${cpu}`);
        }
      }
    }
  }

  private addPage(): number {
    const { m, own } = this;
    const block = this.caches.pages.alloc(0, GFP_NOWAIT | __GFP_NOWARN);
    if (block === 0) return 0;
    const page = this.caches.pages.address(block) / WORD_BYTES;
    m[page + NEXT] = m[own + GATHERING]!;
    m[page + COUNT] = 0;
    m[own + GATHERING] = page;
    return page;
  }

  private startWaiting(): void {
    const { m, own } = this;
    m[own + WAITING] = m[own + GATHERING]!;
    m[own + GATHERING] = 0;
    m[own + WAITING_FOR] = this.rcu.request();
    this.rcu.call(this.drain);
  }

  /** The grace period of the waiting pages is over. */
  private drainWaiting(): void {
    // A barrier may have freed what this callback was for, and other pages wait now, with a callback of their own.
    if (!this.rcu.poll(this.m[this.own + WAITING_FOR]!)) return;
    while (this.drainSome(WAITING));
    this.locked(this.own, () => {
      if (this.m[this.own + WAITING] === 0 && this.m[this.own + GATHERING] !== 0) this.startWaiting();
    });
  }

  /** A grace period has passed since anything was added. */
  private drainAll(): void {
    while (this.drainSome(WAITING) || this.drainSome(GATHERING));
  }

  /**
   * Frees up to a batch of a list's first page; false when the list is empty. What is in our hands is in no list: a
   * barrier of another thread finds it by waiting for read sections.
   */
  private drainSome(list: number): boolean {
    let n = 0;
    this.rcu.briefly(() => {
      n = this.takeSome(list);
      for (let i = 0; i < n; i++) this.caches.kmallocs.freeAfterGracePeriod(this.batch[i]!);
    });
    return n > 0;
  }

  private takeSome(list: number): number {
    const { m, own, batch } = this;
    let n = 0;
    this.locked(own, () => {
      const page = m[own + list]!;
      if (page === 0) return;
      const count = m[page + COUNT]!;
      for (; n < BATCH && n < count; n++) batch[n] = m[page + FIRST + count - 1 - n]!;
      m[page + COUNT] = count - n;
      if (count > n) return;
      m[own + list] = m[page + NEXT]!;
      this.caches.pages.free(virtToPage(this.caches.geometry, page * WORD_BYTES), 0);
    });
    return n;
  }

  /** Runs `body` under a CPU's krcp lock, in which zone->lock may be taken, but no other. */
  private locked<T>(record: RcuCpuPtr, body: () => T): T {
    const { locks } = this.caches.cpu;
    const lock = (record + RcuCpu.krcp) as unknown as LockPtr;
    locks.lock(lock, LockClass.Krcp);
    try {
      return body();
    } finally {
      locks.unlock(lock, LockClass.Krcp);
    }
  }

  private freeWithoutPage(p: number): void {
    const free = (): void => this.caches.kmallocs.freeAfterGracePeriod(p);
    if (this.rcu.depth > 0) return this.rcu.call(free);
    this.rcu.synchronize();
    free();
  }

  /**
   * What waits in a cache's barns and nodes and whose grace period is over. The cache may be another's to destroy: it
   * waits for read sections between its end and the release of its memory.
   */
  private recycle(cache: KmemCache): void {
    this.rcu.briefly(() => {
      if (!cache.isAlive) return;
      cache.recycleAllRcuSheaves();
      this.caches.slabs.freeAllRipeSlabs(cache.desc);
    });
  }

  private freeSlabsOf(s: CacheDesc): void {
    this.rcu.briefly(() => {
      const at = registrySlot(this.caches.geometry, s.slot) + RegistrySlot.serial;
      // G1: pairs with the store that ends the cache.
      if (loadAcquire(this.m, at) !== s.serial) return;
      if (this.caches.slabs.freeAllRipeSlabs(s)) this.slabWaits(s);
    });
  }
}
