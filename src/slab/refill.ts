/**
 * Many objects at once: refilling a sheaf or a caller's array from partial and new slabs, and freeing an array of
 * objects slab by slab. One list_lock acquisition serves a whole batch.
 */
import { Stat } from '../cpu/index.js';
import { __GFP_THISNODE, Page, type PagePtr } from '../page/index.js';
import { PAGE_SHIFT, PAGE_SIZE } from '../struct/index.js';
import { cmpxchg, exchange, LockClass } from '../sync/index.js';
import { type CacheDesc, KmemCacheNode, listLock, nodeOf, RECIPROCAL_SHIFT } from './kmemCache.js';
import { addPartialTail, removePartial } from './partialList.js';
import { Slabs } from './slabs.js';
import { freelistOf, inuseOf, packSlabWord } from './slabWord.js';

const { slabWord: SLAB_WORD, objects: OBJECTS, next: NEXT, head: HEAD_PAGE, SIZEOF: PAGE_WORDS } = Page;
const PAGE_WORDS_SHIFT = Math.log2(PAGE_WORDS);
const { nrPartial: NR_PARTIAL, head: HEAD } = KmemCacheNode;

const LIST_LOCK_CLASS = LockClass.ListLock;

/**
 * Chains that are being built, by slab: page, head, tail, count. A page struct has 8 words, an entry 4, so the bits of
 * the page's word index above the third choose the entry; slabs that collide flush one another.
 */
const NR_CHAINS = 64;
const CHAIN_WORDS = 4;
const CHAIN_SHIFT = Math.log2(Page.SIZEOF / CHAIN_WORDS);
const CHAIN_MASK = (NR_CHAINS - 1) * Page.SIZEOF;
const HEAD_AT = 1;
const TAIL_AT = 2;
const COUNT_AT = 3;

export class BatchSlabs extends Slabs {
  private readonly chains = new Int32Array(NR_CHAINS * CHAIN_WORDS);
  private readonly used = new Int32Array(NR_CHAINS);

  /**
   * Gets between `min` and `max` objects into `out[at..]`: from partial slabs of this node, then of others, then from
   * new slabs until there are `min`. Returns how many; fewer than `min` means out of memory. Kernel: `refill_objects`.
   */
  refillObjects(s: CacheDesc, out: Int32Array, at: number, min: number, max: number, gfp: number): number {
    let got = this.refillFromNode(s, this.cpu.node, out, at, min, max, false);
    if (got < min && (gfp & __GFP_THISNODE) === 0 && this.mayDefragment(s)) {
      got = this.refillFromRemote(s, out, at, got, min, max);
    }
    while (got < min) {
      const page = this.newSlab(s, gfp, this.cpu.node);
      if (page === 0) break;
      got += this.allocFromNewSlab(s, page, max - got, out, at + got);
    }
    return got;
  }

  private refillFromRemote(
    s: CacheDesc,
    out: Int32Array,
    at: number,
    got: number,
    min: number,
    max: number,
  ): number {
    let total = got;
    for (let distance = 1; distance < s.nodes && total < min; distance++) {
      const node = (this.cpu.node + distance) % s.nodes;
      if (!this.hasSurplus(s, node)) continue;
      // Only a trylock: to stand in line for another node's lock costs more than a new slab.
      total += this.refillFromNode(s, node, out, at + total, min - total, max - total, true);
    }
    return total;
  }

  private refillFromNode(
    s: CacheDesc,
    node: number,
    out: Int32Array,
    at: number,
    min: number,
    max: number,
    tryOnly: boolean,
  ): number {
    const m = this.m;
    let page = this.getPartialBulk(s, node, min, max, tryOnly);
    let got = 0;
    while (page !== 0 && got < max) {
      const following = m[page + NEXT] as PagePtr;
      m[page + NEXT] = 0;
      got += this.takeObjects(s, page, out, at + got, max - got);
      page = following;
    }
    if (page !== 0) this.putBackUnused(s, node, page);
    return got;
  }

  /**
   * Detaches partial slabs that together hold `min` to `max` free objects, as a private list through their NEXT words.
   * The counts are lower bounds, since frees go on without the lock. Kernel: `get_partial_node_bulk`.
   */
  private getPartialBulk(s: CacheDesc, node: number, min: number, max: number, tryOnly: boolean): PagePtr {
    const { m, cpu } = this;
    const n = nodeOf(m, s, node);
    // data race, intended: a slab that arrives now is found next time.
    if (m[n + NR_PARTIAL] === 0) return 0 as PagePtr;
    if (!tryOnly) cpu.locks.lock(listLock(n), LIST_LOCK_CLASS);
    else if (!cpu.locks.tryLock(listLock(n), LIST_LOCK_CLASS)) return 0 as PagePtr;
    try {
      let first = 0;
      let last = 0;
      let total = 0;
      let page = m[n + HEAD]!;
      while (page !== 0 && total < max) {
        const next = m[page + NEXT]!;
        const free = m[page + OBJECTS]! - inuseOf(m[page + SLAB_WORD]!);
        if (total >= min && total + free > max) break;
        removePartial(m, n, page as PagePtr);
        if (last === 0) first = page;
        else m[last + NEXT] = page;
        last = page;
        total += free;
        page = next;
      }
      return first as PagePtr;
    } finally {
      cpu.locks.unlock(listLock(n), LIST_LOCK_CLASS);
    }
  }

  /** Takes the whole freelist of a slab that we hold, keeps up to `max` objects and returns the rest to it. */
  private takeObjects(s: CacheDesc, page: PagePtr, out: Int32Array, at: number, max: number): number {
    const m = this.m;
    const objects = m[page + OBJECTS]!;
    // Take-all (F2). Pairs with the compare-exchange of every push: the links it published are visible.
    const word = exchange(m, page + SLAB_WORD, packSlabWord(0, objects));
    const free = objects - inuseOf(word);
    const take = Math.min(free, max);
    const { size, offset } = s;
    const base = this.slabAddress(page) - size;
    let head = freelistOf(word);
    for (let i = 0; i < take; i = (i + 1) | 0) {
      const p = (base + Math.imul(head, size)) | 0;
      out[(at + i) | 0] = p;
      head = m[(p + offset) >> 2]!;
    }
    if (head !== 0) this.returnFreelist(s, page, head, free - take);
    return take;
  }

  /**
   * Puts the unused rest of a freelist back. If nobody freed into the slab meanwhile, one compare-exchange does it,
   * without looking for the rest's tail. It runs under list_lock: otherwise another CPU could free an object (the
   * slab goes to the partial list), a third could pop that object again and, before it has unlinked the slab, our
   * exchange would find the same word and link the slab a second time.
   */
  private returnFreelist(s: CacheDesc, page: PagePtr, head: number, cnt: number): void {
    const { m, cpu } = this;
    const objects = m[page + OBJECTS]!;
    const n = nodeOf(m, s, this.pages.nodeOf(page));
    let returned = false;
    cpu.locks.lock(listLock(n), LIST_LOCK_CLASS);
    try {
      const taken = packSlabWord(0, objects);
      returned = cmpxchg(m, page + SLAB_WORD, taken, packSlabWord(head, objects - cnt)) === taken;
      if (returned) addPartialTail(m, n, page);
    } finally {
      cpu.locks.unlock(listLock(n), LIST_LOCK_CLASS);
    }
    if (returned) return;
    const base = this.slabAddress(page);
    let tail = base + (head - 1) * s.size;
    for (let next = m[(tail + s.offset) >> 2]!; next !== 0; next = m[(tail + s.offset) >> 2]!) {
      tail = base + (next - 1) * s.size;
    }
    this.freeChain(s, page, head - 1, tail, cnt);
  }

  /** Frees made the first slabs hold more than they showed: the others go back to the tail as they are. */
  private putBackUnused(s: CacheDesc, node: number, first: PagePtr): void {
    const { m, cpu } = this;
    const n = nodeOf(m, s, node);
    cpu.locks.lock(listLock(n), LIST_LOCK_CLASS);
    try {
      let page = first;
      while (page !== 0) {
        const next = m[page + NEXT] as PagePtr;
        addPartialTail(m, n, page);
        page = next;
      }
    } finally {
      cpu.locks.unlock(listLock(n), LIST_LOCK_CLASS);
    }
  }

  /**
   * Frees `list[at .. at+n)` to the slabs, one compare-exchange per slab. The kernel's `build_detached_freelist` chains
   * what it finds within three misses; here a small table finds every object of the same slab.
   */
  freeObjects(s: CacheDesc, list: Int32Array, at: number, n: number): void {
    const { m, chains, used, memmap } = this;
    const { offset, reciprocal, size } = s;
    // Objects in a row are often of one slab: `here` is its chain, and what is known to lie in it.
    const known = PAGE_SIZE << s.minOrder;
    let here = 0;
    let base = 0;
    let nrUsed = 0;
    try {
      for (let i = n - 1; i >= 0; i--) {
        const p = list[(at + i) | 0]!;
        let within = (p - base) | 0;
        let same = base !== 0 && within >>> 0 < known;
        if (!same) {
          const page = m[memmap + (p >>> PAGE_SHIFT) * PAGE_WORDS + HEAD_PAGE]!;
          here = (page & CHAIN_MASK) >> CHAIN_SHIFT;
          base = ((page - memmap) >> PAGE_WORDS_SHIFT) << PAGE_SHIFT;
          within = (p - base) | 0;
          same = chains[here] === page;
          if (!same) {
            if (chains[here] === 0) used[nrUsed++] = here;
            else this.freeChainAt(s, here);
            chains[here] = page;
            chains[here + TAIL_AT] = p;
          }
        }
        const index =
          reciprocal !== 0 ? Math.imul(within, reciprocal) >>> RECIPROCAL_SHIFT : (within / size) | 0;
        m[(p + offset) >> 2] = same ? chains[here + HEAD_AT]! : 0;
        chains[here + HEAD_AT] = index + 1;
        chains[here + COUNT_AT] = same ? (chains[here + COUNT_AT]! + 1) | 0 : 1;
      }
      for (let i = 0; i < nrUsed; i++) this.freeChainAt(s, used[i]!);
    } finally {
      for (let i = 0; i < nrUsed; i++) chains[used[i]!] = 0;
    }
  }

  private freeChainAt(s: CacheDesc, chain: number): void {
    const { chains } = this;
    this.freeChain(
      s,
      chains[chain] as PagePtr,
      chains[chain + HEAD_AT]! - 1,
      chains[chain + TAIL_AT]!,
      chains[chain + COUNT_AT]!,
    );
  }

  /** Counts a free that did not go through a sheaf, `n` objects at once, and does it. */
  freeObjectsSlow(s: CacheDesc, list: Int32Array, at: number, n: number): void {
    this.count(s, Stat.FREE_SLOWPATH, n);
    this.freeObjects(s, list, at, n);
  }
}
