/**
 * kmalloc and kfree for restricted contexts: code that runs while this very thread is inside the allocator, whatever lock
 * it holds or is about to take there. A kernel has such contexts in interrupts; here they are callbacks: a constructor,
 * a hook in a lock. In them every other call of the allocator is forbidden.
 *
 * Locks are only tried, so nothing waits; nothing is refilled, flushed or served, and no sheaf is allocated. What a free
 * cannot do at once is deferred to this CPU's list (cpu/deferred.ts), which is drained by the thread's next operation,
 * by the end of its turn, by shrink and destroy on any CPU, and by the reaper.
 *
 * The interrupted operation has control back where it lost it, so what it keeps in variables must still be true. It can
 * lose control only in calls that it makes; between them nothing happens. The calls are those of Locks, and of the page
 * allocator. With C the cache of the interrupted operation:
 *
 * | it is in                                 | what it relies on                   | why that stays as it is                      |
 * |------------------------------------------|-------------------------------------|----------------------------------------------|
 * | noteTry, in trylockPcs                   | pcs lock taken, handle not yet told | the word is taken: our trylock fails         |
 * | lock/unlock of a barn, pcs of C locked   | main and spare of C as they are     | C is busy, its lock ours: its sheaves are not used |
 * | list_lock, pcs of C locked (1)           | the same, spare half full           | the same                                     |
 * | list_lock, zone->lock, pcs not locked (2) | nothing of the pcs (3)             | we use C's sheaves and give its lock back    |
 * | barn->lock, list_lock, zone->lock held   | all that the lock protects          | our trylock of it fails                      |
 * | lock() before it has the lock            | its `pending` note                  | a trylock uses the list of held locks alone  |
 * | list_lock, with a chain of slabs in hand | no slab of it on the partial list   | a push without a lock links no slab (4)      |
 * | list_lock, with a new slab               | `scratch`, the chain table          | neither is used here                         |
 * | the end of a turn, slab_mutex            | its own sheaves given up            | none is held for the turn here               |
 * | no operation on C                        | size word of main counts            | folded first, as in a slow path              |
 *
 * (1) refill and flush of spare; (2) refill, flush, a new sheaf, the slab path; (3) it looks again after its trylock;
 * (4) what would is deferred.
 */
import {
  advanceDraining,
  drainingHead,
  inheritDraining,
  Stat,
  type ThreadRecordPtr,
  takeDeferred,
  threadRecordOf,
} from '../cpu/index.js';
import {
  __GFP_ACCOUNT,
  __GFP_NOWARN,
  __GFP_ZERO,
  orderOf,
  Page,
  PG_DEFERRED,
  virtToPage,
} from '../page/index.js';
import { writeFreePointer } from '../slab/index.js';
import { describe, LockError, requireInteger } from '../struct/index.js';
import { Intent, LOCK_CLASS_NAMES, LockClass } from '../sync/index.js';
import type { Caches } from './caches.js';
import { KMALLOC_MAX_CACHE_SIZE, ZERO_SIZE_PTR } from './kmalloc/kmalloc.js';
import { checkHead } from './rcu/kfreeRcu.js';

const NOLOCK_GFP = __GFP_ZERO | __GFP_NOWARN | __GFP_ACCOUNT;
/**
 * A second round for what was deferred in the first. No more: a context that defers at each lock that a drain takes would
 * keep it going for ever; the rest waits for the next operation.
 */
const DRAIN_ROUNDS_MAX = 2;

export class Nolock {
  private readonly caches: Caches;

  constructor(caches: Caches) {
    this.caches = caches;
    caches.cpu.drainDeferred = () => this.drainQuietly();
  }

  /** Kernel: `kmalloc_nolock`. Its bucket, then the next larger one; 0 when out of memory or contended. */
  alloc(size: number, gfp: number): number {
    if (gfp !== (gfp | 0) || (gfp & ~NOLOCK_GFP) !== 0) {
      throw new RangeError(
        `gfp is ${describe(gfp)}; kmallocNolock allows __GFP_ZERO, __GFP_NOWARN and __GFP_ACCOUNT alone`,
      );
    }
    requireInteger('size', size, 0, Number.MAX_SAFE_INTEGER);
    if (size === 0) return ZERO_SIZE_PTR;
    if (size > KMALLOC_MAX_CACHE_SIZE) return 0;
    const { kmallocs } = this.caches;
    let cache = kmallocs.bucket(size, gfp);
    let p = cache.allocNolock(gfp);
    if (p === 0 && cache.objectSize !== KMALLOC_MAX_CACHE_SIZE) {
      cache = kmallocs.bucket(cache.objectSize + 1, gfp);
      p = cache.allocNolock(gfp);
    }
    kmallocs.setRequested(cache, p, size);
    return p;
  }

  /** Kernel: `kfree_nolock`. */
  free(p: number): void {
    if (p === 0 || p === ZERO_SIZE_PTR) return;
    const { kmallocs, pages, views } = this.caches;
    const cache = kmallocs.cacheOf(p);
    if (cache !== undefined) {
      cache.freeNolock(p);
      return;
    }
    const page = kmallocs.largePage(p);
    pages.freeNolock(page, orderOf(views.m[page + Page.flags]!));
  }

  /** Frees what the CPUs of the arena have deferred. slab_mutex held. Kernel: `defer_free_barrier`. */
  drainAll(): void {
    for (let id = 0; id < this.caches.geometry.threads; id++) this.drain(id);
  }

  /** Kernel: `kfree_rcu_nolock`. */
  freeRcu(p: number, head: number): void {
    if (p === 0 || p === ZERO_SIZE_PTR) return;
    const { kfreeRcu, kmallocs, views } = this.caches;
    const cache = kmallocs.cacheOf(p);
    if (cache !== undefined) return cache.freeRcuNolock(p, head);
    const page = kmallocs.largePage(p);
    kfreeRcu.addNolock(p + checkHead(head, views.m[page + Page.size]!));
  }

  /** Frees what a dead CPU had deferred, or was about to free. */
  drainDead(id: number): void {
    const { geometry, views, cpu } = this.caches;
    this.drain(cpu.thread);
    if (inheritDraining(views.m, threadRecordOf(geometry, id), cpu.record)) this.drain(cpu.thread);
    this.drain(id);
  }

  /** Where nobody can be told: a lock whose owner died is reported by who needs it, and the list is still there. */
  private drainQuietly(): void {
    try {
      this.drain(this.caches.cpu.thread);
    } catch (error) {
      if (!(error instanceof LockError)) throw error;
    }
  }

  private drain(id: number): void {
    const { cpu, geometry, views } = this.caches;
    if (cpu.inDrain) return;
    cpu.inDrain = true;
    try {
      this.freeTaken(cpu.record);
      const record = threadRecordOf(geometry, id);
      for (let round = 0; round < DRAIN_ROUNDS_MAX && takeDeferred(views.m, record, cpu.record); round++) {
        this.freeTaken(cpu.record);
      }
    } finally {
      cpu.inDrain = false;
    }
  }

  private freeTaken(mine: ThreadRecordPtr): void {
    const { m } = this.caches.views;
    for (let p = drainingHead(m, mine); p !== 0; p = drainingHead(m, mine)) this.freeDeferred(p, mine);
  }

  /** Frees the head of what was taken, to its slab or to its zone. Kernel: `free_deferred_objects`. */
  private freeDeferred(p: number, mine: ThreadRecordPtr): void {
    const { cpu, geometry, kmallocs, pages, slabs, views } = this.caches;
    const { m } = views;
    const page = virtToPage(geometry, p);
    const flags = m[page + Page.flags]!;
    if ((flags & PG_DEFERRED) !== 0) {
      advanceDraining(m, mine, m[p >> 2]!);
      this.orAgain(ZONE_LOCK, p, p >> 2, () => pages.free(page, orderOf(flags)));
      return;
    }
    const { desc } = kmallocs.cacheOf(p)!;
    const link = (p + desc.offset) >> 2;
    cpu.enterNolock(Intent.FREE, desc.slot);
    try {
      advanceDraining(m, mine, m[link]!);
      writeFreePointer(m, desc, p, 0); // a debug cache looks whether it leads to an object of the slab
      this.orAgain(LIST_LOCK, p, link, () => slabs.freeOne(desc, p));
      slabs.count(desc, Stat.FREE_SLOWPATH);
    } finally {
      cpu.leave();
    }
  }

  /** Frees it, or defers it once more when the lock that comes before the free is stuck. */
  private orAgain(lockClass: string, p: number, link: number, free: () => void): void {
    try {
      free();
    } catch (error) {
      if (error instanceof LockError && error.lockClass === lockClass) this.caches.cpu.defer(p, link);
      throw error;
    }
  }
}

const LIST_LOCK = LOCK_CLASS_NAMES[LockClass.ListLock]!;
const ZONE_LOCK = LOCK_CLASS_NAMES[LockClass.Zone]!;
