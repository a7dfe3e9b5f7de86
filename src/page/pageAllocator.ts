/** Pages for the calling CPU: its own node first, then the others by distance. */
import type { ThisCpu } from '../cpu/index.js';
import { describe, PAGE_SIZE, SlabBugError } from '../struct/index.js';
import { LockClass } from '../sync/index.js';
import { freeOnePage, rmqueue } from './buddy.js';
import { __GFP_THISNODE, ALLOC_TRYLOCK, NUMA_NO_NODE } from './gfp.js';
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
  PG_SLAB,
  pageAddress,
  pageToPfn,
  virtToPage,
} from './page.js';
import { type NodeMeminfo, Zone, type ZonePtr, zoneLock, zoneOf } from './zone.js';

const { nrFree: NR_FREE, allocs: ALLOCS, frees: FREES, foreign: FOREIGN } = Zone;

function badPage(address: unknown, what: string): SlabBugError {
  return new SlabBugError('bad-page', 'page_alloc', typeof address === 'number' ? address : 0, what);
}

/** Throws unless a block of that order, of allocPages, starts at the page with these flags. */
function checkBlock(address: number, order: number, flags: number): void {
  const hex = `0x${address.toString(16)}`;
  if ((flags & PG_HEAD) === 0) {
    throw badPage(address, `no block starts at ${hex}: it was freed already or never allocated`);
  }
  if ((flags & (PG_SLAB | PG_LARGE)) !== 0) {
    throw badPage(address, `${hex} belongs to kmalloc or a cache; free it there`);
  }
  if (orderOf(flags) !== order) {
    throw badPage(address, `the block at ${hex} has order ${orderOf(flags)}, not ${order}`);
  }
}

export class PageAllocator {
  private readonly cpu: ThisCpu;
  /** failslab for pages: refuse every n-th request of this thread; 0 is off. */
  failEvery = 0;
  /** Requests seen since `failEvery` was set. */
  requests = 0;
  /** How many of them were refused. */
  refused = 0;

  constructor(cpu: ThisCpu) {
    this.cpu = cpu;
  }

  /**
   * Returns the first page of a block of 2^order pages, or 0. Takes zone->lock, with no barn or list lock held; with
   * ALLOC_TRYLOCK it passes by zones whose lock is taken, and any lock may be held.
   */
  alloc(order: number, gfp: number, node: number = NUMA_NO_NODE): PagePtr {
    this.requests++;
    if (this.failEvery !== 0 && this.requests % this.failEvery === 0) {
      this.refused++;
      return 0 as PagePtr;
    }
    const preferred = node === NUMA_NO_NODE ? this.cpu.node : node;
    const nodes = this.cpu.geometry.nodes;
    for (let distance = 0; distance < nodes; distance++) {
      const page = this.allocFromZone((preferred + distance) % nodes, order, gfp, distance > 0);
      if (page !== 0 || (gfp & __GFP_THISNODE) !== 0) return page;
    }
    return 0 as PagePtr;
  }

  /** Gives a block back. The caller knows its order and that nobody uses it any more. */
  free(page: PagePtr, order: number): void {
    const { m, geometry, locks } = this.cpu;
    const zone = this.zoneOfPage(page);
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
        freeBlocks: Array.from({ length: NR_PAGE_ORDERS }, (_, order) => m[zone + Zone.nrFreeArea + order]!),
      };
    });
  }

  private allocFromZone(node: number, order: number, gfp: number, foreign: boolean): PagePtr {
    const { m, geometry, locks } = this.cpu;
    const zone = zoneOf(geometry, node);
    // data race, intended: a hint; rmqueue looks again under the lock.
    if (m[zone + NR_FREE]! < 1 << order) return 0 as PagePtr;
    if ((gfp & ALLOC_TRYLOCK) === 0) locks.lock(zoneLock(zone), LockClass.Zone);
    else if (!locks.tryLock(zoneLock(zone), LockClass.Zone)) return 0 as PagePtr;
    try {
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

  private zoneOfPage(page: PagePtr): ZonePtr {
    return zoneOf(this.cpu.geometry, this.nodeOf(page));
  }
}
