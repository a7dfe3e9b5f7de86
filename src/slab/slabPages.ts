/** The end of a slab: it is empty, on no list and in no count, and its pages go back to the page allocator. */
import type { ThisCpu } from '../cpu/index.js';
import { orderOf, Page, type PageAllocator, type PagePtr } from '../page/index.js';
import type { Words } from '../struct/index.js';
import { SLAB_DTOR } from './flags.js';
import type { CacheDesc } from './kmemCache.js';
import { SlabCallbacks } from './slabCallbacks.js';

const { flags: FLAGS, next: NEXT } = Page;

export class SlabPages {
  protected readonly cpu: ThisCpu;
  protected readonly m: Words;
  readonly pages: PageAllocator;
  /** Runs the constructors and destructors of this thread's caches. */
  readonly callbacks: SlabCallbacks;

  constructor(cpu: ThisCpu, pages: PageAllocator) {
    this.cpu = cpu;
    this.m = cpu.m;
    this.pages = pages;
    this.callbacks = new SlabCallbacks(cpu, pages);
  }

  /** Ends an empty slab that is on no list and in no count. list_lock is not held. Kernel: `discard_slab`. */
  protected discardSlab(s: CacheDesc, page: PagePtr): void {
    this.freeSlab(s, page);
  }

  /** The same for slabs linked through NEXT. */
  protected discardSlabs(s: CacheDesc, first: number): void {
    for (let page = first; page !== 0; ) {
      const next = this.m[page + NEXT]!;
      this.m[page + NEXT] = 0;
      this.discardSlab(s, page as PagePtr);
      page = next;
    }
  }

  /**
   * Nobody can have an object of this slab any more: what objects still own is given up here, and the pages go back. All
   * slabs of all caches end in this method, but for new ones that nobody got to see. Kernel: `__free_slab`.
   */
  private freeSlab(s: CacheDesc, page: PagePtr): void {
    if ((s.flags & SLAB_DTOR) !== 0) this.callbacks.putOff(s, page);
    else this.pages.free(page, this.slabOrder(page));
  }

  protected slabOrder(page: PagePtr): number {
    return orderOf(this.m[page + FLAGS]!);
  }
}
