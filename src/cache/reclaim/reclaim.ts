/**
 * Giving back what nobody uses when pages are short: shrinkers, barns, sheaves of all CPUs, empty slabs.
 *
 * Lock rules. A reclaim begins by ending this thread's turn, so that it waits for nothing while it holds sheaves which
 * another reclaimer waits for. It walks the caches under slab_mutex, for which it waits within a limit, or as the
 * holder that it is already (making a cache needs memory too); shrinkers run before that, since they are user code.
 * Of other CPUs' pcs locks it holds one at a time. So of two CPUs that reclaim at once, one walks and the other waits
 * with nothing in its hands.
 *
 * What is drained goes straight to the slabs: first everything out of every cache, then the empty slabs of all of them,
 * because sheaves are objects of kmalloc caches.
 */
import { Pcs, type PcsPtr, pcsOf } from '../../cpu/index.js';
import { Effort, type EffortId, type Reclaimer } from '../../page/index.js';
import { type SheafPtr, sheafSize } from '../../sheaf/index.js';
import { LockError } from '../../struct/index.js';
import type { Caches } from '../caches.js';
import { shrinkBarns, shrinkNodes } from '../drain.js';
import type { KmemCache } from '../kmemCache.js';
import { lockRemotePcs, REMOTE_LIMIT_MS, unlockRemotePcs } from '../remote.js';
import type { Shrinkers } from './shrinkers.js';

/** How long a reclaim waits for another one, or for caches to be made and ended. */
const MUTEX_LIMIT_MS = 1000;
/** How long a CPU that did not answer is only tried. */
const SILENCE_MS = 1000;
const OBSTACLES_MAX = 8;

export class CacheReclaim implements Reclaimer {
  private readonly caches: Caches;
  readonly shrinkers: Shrinkers;
  /** Until when each CPU is not waited for any more. */
  private readonly silentUntil: Float64Array;
  private readonly met = new Set<string>();
  /** Frees of sheaves go past the sheaves of the caches that they are objects of. */
  running = false;

  constructor(caches: Caches, shrinkers: Shrinkers) {
    this.caches = caches;
    this.shrinkers = shrinkers;
    this.silentUntil = new Float64Array(caches.geometry.cpus);
  }

  obstacles(): string[] {
    return [...this.met, ...this.shrinkers.errors.slice(-OBSTACLES_MAX)];
  }

  reclaim(effort: EffortId): number {
    const { caches } = this;
    const { cpu, pages, ownsSlabMutex } = caches;
    // Not with a lock that others need to get on; no caller has one, and a new one shall not find out by a deadlock.
    if (this.running || cpu.locks.held > (ownsSlabMutex ? 1 : 0)) return 0;
    // A read section must not wait: whoever frees what it reads may be waiting for its end.
    if (caches.rcu.depth > 0) return this.refuse('the allocation was made in an RCU read section');
    const before = pages.freed;
    const sheaf = cpu.sheafInHand; // the one that is being filled; ours are named over it meanwhile
    this.running = true;
    if (effort === Effort.ALL) this.met.clear();
    pages.memalloc = true;
    try {
      cpu.endTurn();
      cpu.lockdep.mightSleep('reclaim');
      if (!ownsSlabMutex) this.shrinkers.run(effort === Effort.BARNS ? 0.5 : 1);
      for (let id = 0; id < caches.geometry.threads; id++) this.shrinkKfreeRcu(id);
      if (!caches.tryWithSlabMutex(MUTEX_LIMIT_MS, () => this.walk(effort))) {
        this.note(`slab_mutex was not free within ${MUTEX_LIMIT_MS} ms`);
      }
    } finally {
      pages.memalloc = false;
      this.running = false;
      cpu.inHand(sheaf);
    }
    return pages.freed - before;
  }

  /** Kernel: the shrinker slab-kvfree-rcu. */
  private shrinkKfreeRcu(thread: number): void {
    this.sparing('kfree_rcu', () => this.caches.kfreeRcu.shrink(thread));
  }

  private refuse(why: string): number {
    this.note(why);
    return 0;
  }

  /** slab_mutex held. */
  private walk(effort: EffortId): void {
    const { caches } = this;
    const all = caches.all();
    for (const cache of all) {
      this.sparing(cache.name, () => {
        cache.drainQuarantine();
        if (effort > Effort.BARNS) this.drainCpus(cache, effort);
        cache.recycleAllRcuSheaves();
        shrinkBarns(caches, cache);
      });
    }
    for (const cache of all) this.sparing(cache.name, () => shrinkNodes(caches, cache));
  }

  /** A lock that a thread died in must not fail an allocation from another cache. */
  private sparing(what: string, action: () => void): void {
    try {
      action();
    } catch (error) {
      if (!(error instanceof LockError)) throw error;
      this.note(`${what}: ${error.message}`);
    }
  }

  private drainCpus(cache: KmemCache, effort: EffortId): void {
    const { cpu, geometry } = this.caches;
    if (cache.layer === 'none') return;
    for (let id = 0; id < geometry.cpus; id++) {
      const pcs = pcsOf(geometry, id, cache.desc.slot);
      if (cache.layer === 'sheaves' && this.looksEmpty(cache, pcs)) continue;
      if (!lockRemotePcs(cpu, pcs, this.patience(id, effort))) {
        this.skip(id, effort);
        continue;
      }
      try {
        cache.detachPcs(pcs);
      } finally {
        unlockRemotePcs(cpu, pcs);
      }
      cache.flushDetachedPcs();
    }
  }

  /** data race, intended: nobody is asked for a sheaf that had nothing a moment ago. */
  private looksEmpty({ sheafCapacity }: KmemCache, pcs: PcsPtr): boolean {
    const { m } = this.caches.views;
    if (sheafCapacity === 0) return true;
    return (
      (m[pcs + Pcs.spare]! | m[pcs + Pcs.rcuFree]!) === 0 && sheafSize(m, m[pcs + Pcs.main] as SheafPtr) === 0
    );
  }

  private patience(id: number, effort: EffortId): number {
    return effort === Effort.ALL && performance.now() > this.silentUntil[id]! ? REMOTE_LIMIT_MS : 0;
  }

  /** One wait for a CPU that does not answer, not one for each of its caches. */
  private skip(id: number, effort: EffortId): void {
    if (effort !== Effort.ALL) return;
    if (performance.now() > this.silentUntil[id]!) this.silentUntil[id] = performance.now() + SILENCE_MS;
    this.note(
      `CPU ${id} did not give up its sheaves within ${REMOTE_LIMIT_MS} ms: it is blocked within a turn`,
    );
  }

  private note(what: string): void {
    if (this.met.size < OBSTACLES_MAX) this.met.add(what);
  }
}
