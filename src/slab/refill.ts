/**
 * Many objects at once: refilling a sheaf or a caller's array from partial and new slabs, and freeing an array of
 * objects slab by slab. One list_lock acquisition serves a whole batch.
 */
import { Stat } from '../cpu/index.js';
import { __GFP_THISNODE, Page, type PagePtr } from '../page/index.js';
import { PAGE_SHIFT } from '../struct/index.js';
import { cmpxchg, exchange, LockClass } from '../sync/index.js';
import { type CacheDesc, KmemCacheNode, listLock, nodeOf, RECIPROCAL_SHIFT } from './kmemCache.js';
import { addPartialTail, removePartial } from './partialList.js';
import { Slabs } from './slabs.js';
import { freelistOf, inuseOf, packSlabWord } from './slabWord.js';

const { slabWord: SLAB_WORD, objects: OBJECTS, next: NEXT, head: HEAD_PAGE, SIZEOF: PAGE_WORDS } = Page;
const PAGE_WORDS_SHIFT = Math.log2(PAGE_WORDS);
const { nrPartial: NR_PARTIAL, head: HEAD } = KmemCacheNode;

const LIST_LOCK_CLASS = LockClass.ListLock;
// Imported names are looked up at each use; module-local constants are folded.
const P_SHIFT = PAGE_SHIFT;
const R_SHIFT = RECIPROCAL_SHIFT;

/**
 * Chains that are being built, by slab: page, head, tail, count. A page struct has 8 words, an entry 4, so the bits of
 * the page's word index above the third choose the entry, and the next free one is taken when it has another slab. A
 * chunk has no more objects than there are entries. Scratch of this thread, empty between calls; constants of the
 * module, so that V8 folds their addresses.
 */
const NR_CHAINS = 64;
const CHAIN_WORDS = 4;
const CHAIN_SHIFT = Math.log2(PAGE_WORDS / CHAIN_WORDS);
const CHAIN_MASK = (NR_CHAINS - 1) * CHAIN_WORDS;
const HEAD_AT = 1;
const TAIL_AT = 2;
const COUNT_AT = 3;
const CHAINS = new Int32Array(NR_CHAINS * CHAIN_WORDS);
const USED = new Int32Array(NR_CHAINS);

/** Links each object of `list[at .. at+n)` into its slab's chain. Returns how many entries of USED name a chain. */
function buildChains(
  m: Int32Array,
  memmap: number,
  s: CacheDesc,
  list: Int32Array,
  at: number,
  n: number,
): number {
  const offset = s.offset | 0;
  const reciprocal = s.reciprocal | 0;
  const size = s.size | 0;
  const onePage = s.order === 0; // then each page is the first of its slab
  let used = 0;
  for (let i = 0; i < n; i = (i + 1) | 0) {
    const p = list[(at + i) | 0]!;
    // slabOf and indexOf, by hand: this loop is what a free costs once the barn is full.
    let page = (memmap + Math.imul(p >>> P_SHIFT, PAGE_WORDS)) | 0;
    if (!onePage) page = m[page + HEAD_PAGE]!;
    let chain = (page >> CHAIN_SHIFT) & CHAIN_MASK;
    while (CHAINS[chain] !== page) {
      if (CHAINS[chain] === 0) {
        CHAINS[chain] = page;
        CHAINS[chain + HEAD_AT] = 0;
        CHAINS[chain + TAIL_AT] = p;
        CHAINS[chain + COUNT_AT] = 0;
        USED[used] = chain;
        used = (used + 1) | 0;
        break;
      }
      chain = (chain + CHAIN_WORDS) & CHAIN_MASK;
    }
    const within = (p - (((page - memmap) >> PAGE_WORDS_SHIFT) << P_SHIFT)) | 0;
    const index = reciprocal !== 0 ? Math.imul(within, reciprocal) >>> R_SHIFT : (within / size) | 0;
    m[(p + offset) >> 2] = CHAINS[chain + HEAD_AT]!;
    CHAINS[chain + HEAD_AT] = (index + 1) | 0;
    CHAINS[chain + COUNT_AT] = (CHAINS[chain + COUNT_AT]! + 1) | 0;
  }
  return used;
}

/** Writes the addresses of the first `take` objects of a freelist to `out`; returns the next one's index + 1. */
function walkFreelist(
  m: Int32Array,
  first: number,
  base: number,
  size: number,
  offset: number,
  out: Int32Array,
  at: number,
  take: number,
): number {
  let head = first;
  for (let i = 0; i < take; i = (i + 1) | 0) {
    const p = (base + Math.imul(head, size)) | 0;
    out[(at + i) | 0] = p;
    head = m[(p + offset) >> 2]!;
  }
  return head;
}

export class BatchSlabs extends Slabs {
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
    const head = walkFreelist(m, freelistOf(word), base, size, offset, out, at, take);
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
   * Frees `list[at .. at+n)` to the slabs, one compare-exchange per slab and chunk of objects. The kernel's
   * `build_detached_freelist` chains what it finds within three misses; here a table finds all of a chunk.
   */
  freeObjects(s: CacheDesc, list: Int32Array, at: number, n: number): void {
    try {
      this.freeInChunks(s, list, at, n);
    } catch (error) {
      CHAINS.fill(0); // scratch must be empty for the next call
      throw error;
    }
  }

  private freeInChunks(s: CacheDesc, list: Int32Array, at: number, n: number): void {
    for (let left = n; left > 0; ) {
      const chunk = Math.min(left, NR_CHAINS);
      left -= chunk;
      const used = buildChains(this.m, this.memmap, s, list, at + left, chunk);
      for (let i = 0; i < used; i++) {
        const chain = USED[i]!;
        const page = CHAINS[chain] as PagePtr;
        CHAINS[chain] = 0;
        this.freeChain(
          s,
          page,
          CHAINS[chain + HEAD_AT]! - 1,
          CHAINS[chain + TAIL_AT]!,
          CHAINS[chain + COUNT_AT]!,
        );
      }
    }
  }

  /** Counts a free that did not go through a sheaf, `n` objects at once, and does it. */
  freeObjectsSlow(s: CacheDesc, list: Int32Array, at: number, n: number): void {
    this.count(s, Stat.FREE_SLOWPATH, n);
    this.freeObjects(s, list, at, n);
  }
}
