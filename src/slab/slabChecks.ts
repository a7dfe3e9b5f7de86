/** Checks of a debug cache's slab: its page, its tail, its freelist and counts. list_lock is held, or the slab is ours. */
import { orderOf, Page, type PagePtr, PG_SLAB, pageAddress } from '../page/index.js';
import { PAGE_SIZE } from '../struct/index.js';
import { loadAcquire, storeRelease } from '../sync/index.js';
import { SLAB_POISON, SLAB_RED_ZONE } from './flags.js';
import { readFreePointer, writeFreePointer } from './freePointer.js';
import type { CacheDesc } from './kmemCache.js';
import { MAX_OBJS_PER_PAGE } from './layout.js';
import { ObjectDebug, POISON_INUSE, SLUB_RED_ACTIVE, SLUB_RED_INACTIVE } from './objectDebug.js';
import { FROZEN, freelistOf, inuseOf, isFrozen, packSlabWord } from './slabWord.js';

const { slabWord: SLAB_WORD, objects: OBJECTS } = Page;

export class SlabChecks extends ObjectDebug {
  slabBytes(page: PagePtr): number {
    return PAGE_SIZE << orderOf(this.m[page + Page.flags]!);
  }

  objectAt(s: CacheDesc, page: PagePtr, index: number): number {
    return pageAddress(this.cpu.geometry, page) + s.redLeftPad + index * s.size;
  }

  indexOf(s: CacheDesc, page: PagePtr, p: number): number {
    return Math.floor((p - pageAddress(this.cpu.geometry, page)) / s.size);
  }

  /** The first free object's address, or 0. */
  firstObject(s: CacheDesc, page: PagePtr): number {
    const head = freelistOf(loadAcquire(this.m, page + SLAB_WORD));
    return head === 0 ? 0 : this.objectAt(s, page, head - 1);
  }

  /** Sets freelist, by address, and inuse; the slab stays frozen if it was. Plain writers are kept out by list_lock. */
  setSlabWord(s: CacheDesc, page: PagePtr, first: number, inuse: number): void {
    const { m } = this;
    const head = first === 0 ? 0 : this.indexOf(s, page, first) + 1;
    // Pairs with loadAcquire of whoever looks at the slab without the lock.
    storeRelease(m, page + SLAB_WORD, packSlabWord(head, inuse) | (m[page + SLAB_WORD]! & FROZEN));
  }

  private bug(s: CacheDesc, page: PagePtr, what: string): false {
    this.sink.bug(s, { what, page, object: 0 });
    return false;
  }

  /** Whether the slab may be worked on at all. Kernel: `check_slab`. */
  checkSlab(s: CacheDesc, page: PagePtr): boolean {
    const { m } = this;
    if ((m[page + Page.flags]! & PG_SLAB) === 0) return this.bug(s, page, 'Not a valid slab page');
    if (m[page + Page.cache] !== s.ptr) return this.bug(s, page, 'page slab pointer corrupt');
    const objects = m[page + OBJECTS]!;
    const max = this.maxObjects(s, page);
    if (objects > max) return this.bug(s, page, `objects ${objects} > max ${max}`);
    const word = loadAcquire(m, page + SLAB_WORD);
    if (inuseOf(word) > objects) return this.bug(s, page, `inuse ${inuseOf(word)} > max ${objects}`);
    if (isFrozen(word)) {
      return this.bug(s, page, 'Slab disabled since SLUB metadata consistency check failed');
    }
    // A damaged tail is nobody's object: it is restored, and the slab stays in use.
    this.checkTail(s, page);
    return true;
  }

  /** Kernel: `slab_pad_check`. */
  private checkTail(s: CacheDesc, page: PagePtr): void {
    if ((s.flags & SLAB_POISON) === 0) return;
    const start = pageAddress(this.cpu.geometry, page);
    const bytes = this.slabBytes(page);
    this.checkBytes(s, page, 0, 'Padding', start + bytes - (bytes % s.size), start + bytes, POISON_INUSE);
  }

  private maxObjects(s: CacheDesc, page: PagePtr): number {
    return Math.min(MAX_OBJS_PER_PAGE, Math.floor(this.slabBytes(page) / s.size));
  }

  /**
   * Walks the freelist, and repairs it and the counts where they are wrong. True if `search` is on it, or for 0 if the
   * slab can be gone on with. Kernel: `on_freelist`.
   */
  onFreelist(s: CacheDesc, page: PagePtr, search: number): boolean {
    const { m } = this;
    const objects = m[page + OBJECTS]!;
    let nr = 0;
    let before = 0;
    if (freelistOf(m[page + SLAB_WORD]!) > objects) return this.clearFreelist(s, page, 'Freepointer corrupt');
    for (let p = this.firstObject(s, page); p !== 0 && nr <= objects; ) {
      if (p === search) return true;
      if (!this.isLink(s, page, p)) {
        this.sink.bug(s, { what: 'Freechain corrupt', page, object: before });
        writeFreePointer(m, s, before, 0);
        break;
      }
      before = p;
      p = readFreePointer(m, s, p);
      nr++;
    }
    if (nr > objects) return this.clearFreelist(s, page, 'Freelist cycle detected');
    this.adjustCounts(s, page, nr);
    return search === 0;
  }

  private adjustCounts(s: CacheDesc, page: PagePtr, free: number): void {
    const { m, sink } = this;
    const max = this.maxObjects(s, page);
    if (m[page + OBJECTS] !== max) {
      this.bug(s, page, `Wrong number of objects. Found ${m[page + OBJECTS]} but should be ${max}`);
      m[page + OBJECTS] = max;
      sink.fix(s, 'Number of objects adjusted');
    }
    const inuse = inuseOf(m[page + SLAB_WORD]!);
    if (inuse === max - free) return;
    this.bug(s, page, `Wrong object count. Counter is ${inuse} but counted were ${max - free}`);
    this.setSlabWord(s, page, this.firstObject(s, page), max - free);
    this.claimLost(s, page);
    sink.fix(s, 'Object count adjusted');
  }

  /** The freelist leads nowhere: its objects count as used from now on. */
  private clearFreelist(s: CacheDesc, page: PagePtr, what: string): false {
    this.bug(s, page, what);
    this.setSlabWord(s, page, 0, this.m[page + OBJECTS]!);
    this.claimLost(s, page);
    this.sink.fix(s, 'Freelist cleared');
    return false;
  }

  /**
   * Objects that a repair of the freelist has lost count as used from now on, and get the red zones of such, so that the
   * next check finds nothing. The kernel leaves theirs as they are, and reports one of them at each check.
   */
  private claimLost(s: CacheDesc, page: PagePtr): void {
    if ((s.flags & SLAB_RED_ZONE) === 0) return;
    const free = this.freeIndices(s, page);
    for (let i = 0; i < this.m[page + OBJECTS]!; i++) {
      if (!free.has(i)) this.claimRedZones(s, this.objectAt(s, page, i));
    }
  }

  /** The indices of the free objects; the freelist was found to be sound. */
  freeIndices(s: CacheDesc, page: PagePtr): Set<number> {
    const free = new Set<number>();
    for (let p = this.firstObject(s, page); p !== 0; p = readFreePointer(this.m, s, p)) {
      free.add(this.indexOf(s, page, p));
    }
    return free;
  }

  /** Checks a slab and all of its objects, as free or allocated. Kernel: `validate_slab`. */
  validateSlab(s: CacheDesc, page: PagePtr): void {
    if (!this.checkSlab(s, page) || !this.onFreelist(s, page, 0)) return;
    const free = this.freeIndices(s, page);
    for (let i = 0; i < this.m[page + OBJECTS]!; i++) {
      const val = free.has(i) ? SLUB_RED_INACTIVE : SLUB_RED_ACTIVE;
      if (!this.checkObject(s, page, this.objectAt(s, page, i), val)) break;
    }
  }
}
