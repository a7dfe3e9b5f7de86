/** Pages for the calling CPU: its own node first, then the others by distance; with more effort as they get scarce. */
import type { ThisCpu } from '../cpu/index.js';
import { describe, INIT_ON_ALLOC, OutOfMemoryError, PAGE_SIZE, requireInteger } from '../struct/index.js';
import { canSleep, futexWait, LockClass, OWN_WORD_LOCK_CLASSES } from '../sync/index.js';
import { badPage, checkBlock } from './badPage.js';
import { freeOnePage, rmqueue, splitPage } from './buddy.js';
import {
  __GFP_DIRECT_RECLAIM,
  __GFP_HIGH,
  __GFP_NOFAIL,
  __GFP_NOMEMALLOC,
  __GFP_NORETRY,
  __GFP_NOWARN,
  __GFP_THISNODE,
  __GFP_ZERO,
  ALLOC_TRYLOCK,
  checkGfp,
  gfpNames,
  NUMA_NO_NODE,
} from './gfp.js';
import { OomLog } from './oomLog.js';
import {
  isHeapAddress,
  MAX_PAGE_ORDER,
  NR_PAGE_ORDERS,
  orderBits,
  orderOf,
  Page,
  type PagePtr,
  PG_DEFERRED,
  PG_HEAD,
  PG_LARGE,
  PG_PFMEMALLOC,
  pageAddress,
  pageToPfn,
  virtToPage,
} from './page.js';
import { Effort, type EffortId, Pressure, type Reclaimer, wakeReclaim } from './reclaimer.js';
import { floorOf, Level, type LevelId } from './watermark.js';
import { wipeFreed } from './wipe.js';
import { type NodeMeminfo, Zone, type ZonePtr, zoneLock, zoneOf } from './zone.js';

const { nrFree: NR_FREE, allocs: ALLOCS, frees: FREES, foreign: FOREIGN } = Zone;

/** Larger blocks are not worth more than one full reclaim. Kernel: `PAGE_ALLOC_COSTLY_ORDER`. */
const COSTLY_ORDER = 3;
/** How often a reclaim that freed pages, which others then took, is done again. Kernel: `MAX_RECLAIM_RETRIES`. */
const RETRIES_MAX = 16;
/** How long __GFP_NOFAIL waits before it throws. */
const NOFAIL_LIMIT_MS = 10_000;
/** When its wait is first reported. */
const STALL_MS = 1000;
const NAP_MS_MAX = 10;
const RECLAIM = 'an allocation of pages that may reclaim';

export class PageAllocator {
  private readonly cpu: ThisCpu;
  /** Who frees pages for us; nobody while the arena boots. */
  reclaimer: Reclaimer | undefined;
  /** This thread is reclaiming: it may use the reserve and does not reclaim again. Kernel: `PF_MEMALLOC`. */
  memalloc = false;
  /** Pages that this thread has freed. */
  freed = 0;
  /** Reclaims that allocations of this thread ran, and the pages those freed. */
  readonly reclaims = { direct: 0, pages: 0 };
  readonly oom = new OomLog();
  noFailLimitMs = NOFAIL_LIMIT_MS;
  /** failslab for pages: refuse every n-th request of this thread; 0 is off. */
  failEvery = 0;
  /** Requests seen since `failEvery` was set. */
  requests = 0;
  /** How many of them were refused. */
  refused = 0;

  constructor(cpu: ThisCpu) {
    this.cpu = cpu;
  }

  /** Refuses every `every`-th request from now on, none for 0. Returns how many were refused until now. */
  refuseEach(every: number): number {
    const { refused } = this;
    this.failEvery = every;
    this.requests = 0;
    this.refused = 0;
    return refused;
  }

  /**
   * Returns the first page of a block of 2^order pages, or 0. Takes zone->lock, with no barn or list lock held; with
   * ALLOC_TRYLOCK it passes by zones whose lock is taken, and any lock may be held.
   */
  alloc(order: number, gfp: number, node: number = NUMA_NO_NODE): PagePtr {
    this.requests++;
    if (this.failEvery !== 0 && this.requests % this.failEvery === 0 && (gfp & __GFP_NOFAIL) === 0) {
      this.refused++;
      return 0 as PagePtr;
    }
    if ((gfp & ALLOC_TRYLOCK) !== 0) return this.fromNodes(order, gfp, node, Level.MIN);
    // Whether or not it comes to that: kernel, might_alloc. What is held for a turn only, a reclaim gives up first.
    if ((gfp & __GFP_DIRECT_RECLAIM) !== 0) this.cpu.lockdep.mightSleep(RECLAIM, OWN_WORD_LOCK_CLASSES);
    const page = this.fromNodes(order, gfp, node, Level.LOW);
    return page !== 0 ? page : this.allocSlow(order, gfp, node);
  }

  /** Every zone is at its low mark. Kernel: `__alloc_pages_slowpath`. */
  private allocSlow(order: number, gfp: number, node: number): PagePtr {
    checkGfp(gfp);
    if ((gfp & __GFP_NOFAIL) !== 0) {
      const once = (): number => this.tryHard(order, (gfp & ~__GFP_NOFAIL) | __GFP_NOWARN, node);
      return this.insist(once, `a block of 2^${order} pages`) as PagePtr;
    }
    const page = this.tryHard(order, gfp, node);
    if (page === 0 && (gfp & __GFP_NOWARN) === 0)
      this.oom.report(() => this.describeFailure(order, gfp, node));
    return page;
  }

  private tryHard(order: number, gfp: number, node: number): PagePtr {
    const { m, geometry } = this.cpu;
    wakeReclaim(m, geometry);
    if (this.memalloc && (gfp & __GFP_NOMEMALLOC) === 0) return this.forReclaim(order, gfp, node);
    const level = (gfp & __GFP_HIGH) !== 0 ? Level.NONE : Level.MIN;
    const page = this.fromNodes(order, gfp, node, level);
    const waits = (gfp & __GFP_DIRECT_RECLAIM) !== 0 && !this.memalloc && this.reclaimer !== undefined;
    return page !== 0 || !waits ? page : this.reclaimAndRetry(order, gfp, node, level);
  }

  /** This thread is reclaiming: every page may go, but what comes from the reserve is marked as such. */
  private forReclaim(order: number, gfp: number, node: number): PagePtr {
    const { m, geometry } = this.cpu;
    const spare = this.fromNodes(order, gfp, node, Level.MIN);
    if (spare !== 0) return spare;
    const page = this.fromNodes(order, gfp, node, Level.NONE);
    if (page === 0) return page;
    m[page + Page.flags] = m[page + Page.flags]! | PG_PFMEMALLOC;
    // Never cleared. Whoever gets an object of the block from us sees it by what ordered that.
    m[geometry.pressure + Pressure.reserveUsed] = 1;
    return page;
  }

  /** Kernel: `should_reclaim_retry` and what is around it. */
  private reclaimAndRetry(order: number, gfp: number, node: number, level: LevelId): PagePtr {
    let effort: EffortId = Effort.BARNS;
    for (let tries = 0; tries < RETRIES_MAX; tries++) {
      const freed = this.reclaim(effort);
      const page = this.fromNodes(order, gfp, node, level);
      if (page !== 0 || (gfp & __GFP_NORETRY) !== 0) return page;
      if (effort === Effort.ALL && (freed === 0 || order > COSTLY_ORDER)) break;
      effort = Effort.ALL;
    }
    return this.fromNodes(order, gfp, node, level === Level.NONE ? level : Level.LAST);
  }

  /**
   * `pages` pages in a row, each to be freed by itself with order 0; returns the first, or 0. Kernel: `alloc_pages_exact`.
   */
  allocExact(pages: number, gfp: number, node: number = NUMA_NO_NODE): PagePtr {
    const order = pages === 1 ? 0 : 32 - Math.clz32(pages - 1);
    const first = this.alloc(order, gfp, node);
    if (first === 0 || order === 0) return first;
    splitPage(this.cpu.m, first, order);
    for (let i = pages; i < 1 << order; i++) this.free((first + i * Page.SIZEOF) as PagePtr, 0);
    return first;
  }

  /** Reclaims with that effort, as an allocation would that found nothing. Returns the pages that came back. */
  reclaim(effort: EffortId): number {
    if (this.reclaimer === undefined) return 0;
    const freed = this.reclaimer.reclaim(effort);
    this.reclaims.direct++;
    this.reclaims.pages += freed;
    return freed;
  }

  /**
   * Tries until `attempt` returns something else than 0, for __GFP_NOFAIL. Throws OutOfMemoryError after
   * `noFailLimitMs`; a wait of more than a second is in the log of failures meanwhile. No lock may be held.
   */
  insist(attempt: () => number, what: string): number {
    const start = performance.now();
    for (let tries = 1, stalled = false; ; tries++) {
      const got = attempt();
      if (got !== 0) return got;
      const waited = performance.now() - start;
      const told = (): string => this.describeStall(what, Math.round(waited), tries);
      if (waited >= this.noFailLimitMs) throw new OutOfMemoryError(told());
      if (!stalled && waited > STALL_MS) {
        stalled = true;
        this.oom.report(told);
      }
      this.cpu.endTurn(); // whoever frees for us may need what we hold
      this.cpu.lockdep.mightSleep('__GFP_NOFAIL');
      this.nap(Math.min(tries, NAP_MS_MAX));
    }
  }

  /** Waits a moment for others to free; a thread that may not sleep looks again at once. */
  private nap(ms: number): void {
    const { m, geometry } = this.cpu;
    const word = geometry.pressure + Pressure.stops;
    if (canSleep(m)) futexWait(m, word, m[word]!, ms);
  }

  /** The nodes in the order of distance, each down to its mark. */
  private fromNodes(order: number, gfp: number, node: number, level: LevelId): PagePtr {
    const preferred = node === NUMA_NO_NODE ? this.cpu.node : node;
    const nodes = this.cpu.geometry.nodes;
    for (let distance = 0; distance < nodes; distance++) {
      const page = this.allocFromZone((preferred + distance) % nodes, order, gfp, distance > 0, level);
      if (page !== 0 || (gfp & __GFP_THISNODE) !== 0) return page;
    }
    return 0 as PagePtr;
  }

  /** A block by address, for a user; 0 when out of memory. Throws when the order or the node cannot be. */
  allocPages(order: number, gfp: number, node: number): number {
    const { geometry, views } = this.cpu;
    requireInteger('order', order, 0, MAX_PAGE_ORDER);
    requireInteger('node', node, NUMA_NO_NODE, geometry.nodes - 1);
    checkGfp(gfp);
    const page = this.alloc(order, gfp, node);
    if (page === 0) return 0;
    const address = this.address(page);
    const zeroed = (gfp & __GFP_ZERO) !== 0 || (geometry.init & INIT_ON_ALLOC) !== 0;
    if (zeroed) views.u8.fill(0, address, address + (PAGE_SIZE << order));
    return address;
  }

  /** Gives a block back. The caller knows its order and that nobody uses it any more. */
  free(page: PagePtr, order: number): void {
    const { m, geometry, locks } = this.cpu;
    const zone = this.zoneOfPage(page);
    this.freed += 1 << order;
    wipeFreed(this.cpu, page, order);
    locks.lock(zoneLock(zone), LockClass.Zone);
    try {
      freeOnePage(m, geometry, zone, page, order);
      m[zone + FREES] = m[zone + FREES]! + 1;
    } finally {
      locks.unlock(zoneLock(zone), LockClass.Zone);
    }
  }

  /** Gives back a block that a user names by address and order. Throws, and changes nothing, when it is none. */
  freePages(address: number, order: number): void {
    const page = this.checkedAddress(address, order);
    this.freeChecked(page, (flags) => checkBlock(address, order, flags));
  }

  /**
   * Gives back the block that starts at `page`. `check` sees its flags under zone->lock and throws if it is not what
   * the caller thinks: of two threads that free the same block at once, one is refused.
   */
  freeChecked(page: PagePtr, check: (flags: number) => void): void {
    const { m, geometry, locks } = this.cpu;
    const zone = this.zoneOfPage(page);
    locks.lock(zoneLock(zone), LockClass.Zone);
    try {
      const flags = m[page + Page.flags]!;
      check(flags);
      wipeFreed(this.cpu, page, orderOf(flags)); // not before: the block might be another's
      freeOnePage(m, geometry, zone, page, orderOf(flags));
      m[zone + FREES] = m[zone + FREES]! + 1;
    } finally {
      locks.unlock(zoneLock(zone), LockClass.Zone);
    }
  }

  /**
   * The same for a restricted context: if the zone's lock is taken, the block goes on this CPU's deferred list. Until
   * it is drained the block is a large kmalloc that nobody may free again.
   */
  freeNolock(page: PagePtr, order: number): void {
    const { cpu } = this;
    const { m, geometry, locks } = cpu;
    const zone = this.zoneOfPage(page);
    if (!locks.tryLock(zoneLock(zone), LockClass.Zone)) {
      m[page + Page.flags] = PG_HEAD | PG_LARGE | PG_DEFERRED | orderBits(order);
      const p = pageAddress(geometry, page);
      cpu.defer(p, p >> 2);
      return;
    }
    try {
      wipeFreed(this.cpu, page, order);
      freeOnePage(m, geometry, zone, page, order);
      m[zone + FREES] = m[zone + FREES]! + 1;
    } finally {
      locks.unlock(zoneLock(zone), LockClass.Zone);
    }
  }

  /** The node whose zone holds `page`. */
  nodeOf(page: PagePtr): number {
    const { m, geometry } = this.cpu;
    const pfn = pageToPfn(geometry, page);
    for (let node = geometry.nodes - 1; node > 0; node--) {
      if (pfn >= m[zoneOf(geometry, node) + Zone.startPfn]!) return node;
    }
    return 0;
  }

  /** The page of an address and order that a user handed to freePages. Throws when they can be none of a block's. */
  private checkedAddress(address: number, order: number): PagePtr {
    const { geometry } = this.cpu;
    if (!isHeapAddress(geometry, address))
      throw badPage(address, `${describe(address)} is not an address of the heap`);
    if (address % PAGE_SIZE !== 0)
      throw badPage(address, `0x${address.toString(16)} is not the start of a page`);
    if (!Number.isInteger(order) || order < 0 || order > MAX_PAGE_ORDER) {
      throw badPage(
        address,
        `order is ${describe(order)}; it must be an integer from 0 to ${MAX_PAGE_ORDER}`,
      );
    }
    return virtToPage(geometry, address);
  }

  address(page: PagePtr): number {
    return pageAddress(this.cpu.geometry, page);
  }

  /** Per-node figures; racy by a block while others allocate. */
  meminfo(): NodeMeminfo[] {
    const { m, geometry } = this.cpu;
    return Array.from({ length: geometry.nodes }, (_, node) => {
      const zone = zoneOf(geometry, node);
      const totalPages = m[zone + Zone.endPfn]! - m[zone + Zone.startPfn]!;
      return {
        node,
        totalPages,
        freePages: m[zone + NR_FREE]!,
        highWaterPages: totalPages - m[zone + Zone.nrFreeMin]!,
        allocs: m[zone + ALLOCS]!,
        frees: m[zone + FREES]!,
        foreign: m[zone + FOREIGN]!,
        watermarks: {
          min: m[zone + Zone.wmarkMin]!,
          low: m[zone + Zone.wmarkLow]!,
          high: m[zone + Zone.wmarkHigh]!,
        },
        freeBlocks: Array.from({ length: NR_PAGE_ORDERS }, (_, order) => m[zone + Zone.nrFreeArea + order]!),
      };
    });
  }

  private allocFromZone(node: number, order: number, gfp: number, foreign: boolean, level: LevelId): PagePtr {
    const { m, geometry, locks } = this.cpu;
    const zone = zoneOf(geometry, node);
    const enough = floorOf(m, zone, level) + (1 << order);
    // data race, intended: a hint; it is looked at again under the lock.
    if (m[zone + NR_FREE]! < enough) return 0 as PagePtr;
    if ((gfp & ALLOC_TRYLOCK) === 0) locks.lock(zoneLock(zone), LockClass.Zone);
    else if (!locks.tryLock(zoneLock(zone), LockClass.Zone)) return 0 as PagePtr;
    try {
      if (m[zone + NR_FREE]! < enough) return 0 as PagePtr;
      const page = rmqueue(m, geometry, zone, order);
      if (page !== 0) {
        m[zone + ALLOCS] = m[zone + ALLOCS]! + 1;
        if (foreign) m[zone + FOREIGN] = m[zone + FOREIGN]! + 1;
      }
      return page;
    } finally {
      locks.unlock(zoneLock(zone), LockClass.Zone);
    }
  }

  private describeFailure(order: number, gfp: number, node: number): string {
    const { cpu } = this;
    const where = node === NUMA_NO_NODE ? 'any node' : `node ${node}`;
    const head = `out of memory: CPU ${cpu.id} of node ${cpu.node} wanted 2^${order} pages of ${where}`;
    return [`${head}, gfp 0x${gfp.toString(16)} (${gfpNames(gfp)})`, ...this.describeZones()].join('\n');
  }

  private describeStall(what: string, waitedMs: number, tries: number): string {
    const { direct, pages } = this.reclaims;
    const did = `${tries} tries in ${waitedMs} ms; this thread's ${direct} reclaims freed ${pages} pages in all`;
    return [`__GFP_NOFAIL waits for ${what}: ${did}`, ...this.describeZones()].join('\n');
  }

  /** A line per zone, and one per obstacle that reclaim met. */
  describeZones(): string[] {
    const zones = this.meminfo().map(({ node, freePages, totalPages, watermarks, freeBlocks }) => {
      const { min, low, high } = watermarks;
      const marks = `min ${min}, low ${low}, high ${high}`;
      return `  zone ${node}: ${freePages} of ${totalPages} pages free, ${marks}; blocks by order: ${freeBlocks.join(' ')}`;
    });
    return [...zones, ...(this.reclaimer?.obstacles() ?? []).map((what) => `  reclaim: ${what}`)];
  }

  private zoneOfPage(page: PagePtr): ZonePtr {
    return zoneOf(this.cpu.geometry, this.nodeOf(page));
  }
}
