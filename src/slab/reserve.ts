/**
 * Slabs made of the reserve below the min watermark, by threads that reclaim: only those may allocate from them, or what
 * is kept back for freeing memory would be gone when it is needed. They stay on their node's partial list, where others
 * step over them, and their objects go back to them past every layer.
 */
import type { ThisCpu } from '../cpu/index.js';
import { Page, type PageAllocator, type PagePtr, PG_PFMEMALLOC, Pressure } from '../page/index.js';
import { PAGE_SHIFT } from '../struct/index.js';
import { SlabPages } from './slabPages.js';

const { flags: FLAGS, next: NEXT, head: HEAD_PAGE, SIZEOF: PAGE_WORDS } = Page;
// Imported names are looked up at each use; module-local constants are folded.
const P_SHIFT = PAGE_SHIFT;

export class ReserveSlabs extends SlabPages {
  protected readonly memmap: number;
  /** Word that says whether any slab of the reserve was ever made. */
  private readonly reserveUsed: number;

  constructor(cpu: ThisCpu, pages: PageAllocator) {
    super(cpu, pages);
    this.memmap = cpu.geometry.memmap;
    this.reserveUsed = cpu.geometry.pressure + Pressure.reserveUsed;
  }

  /** The slab that holds an object of which we know that it is one: each of its pages names the first. */
  slabOf(p: number): PagePtr {
    return this.m[this.memmap + (p >>> P_SHIFT) * PAGE_WORDS + HEAD_PAGE] as PagePtr;
  }

  /**
   * list_lock held. The first slab from `page` on that this thread may allocate from: those of the reserve are for
   * threads that reclaim. Kernel: `pfmemalloc_match`.
   */
  protected firstAllowed(page: PagePtr): PagePtr {
    const { m } = this;
    let allowed: number = page;
    while (allowed !== 0 && !this.pages.memalloc && this.isReserve(allowed as PagePtr)) {
      allowed = m[allowed + NEXT]!;
    }
    return allowed as PagePtr;
  }

  /** data race, intended: whoever has an object of the reserve sees the 1 by what handed it the object. */
  get hasReserve(): boolean {
    return this.m[this.reserveUsed] !== 0;
  }

  /**
   * Whether an object lies in a slab of the reserve, where it must go back to past every layer: in a sheaf anybody
   * could take it. Kernel: `slab_test_pfmemalloc`.
   */
  isOfReserve(p: number): boolean {
    return this.hasReserve && this.isReserve(this.slabOf(p));
  }

  isReserve(page: PagePtr): boolean {
    return (this.m[page + FLAGS]! & PG_PFMEMALLOC) !== 0;
  }
}
