/**
 * Many objects at once: refilling a sheaf or a caller's array from partial and new slabs, and freeing an array of
 * objects slab by slab. One list_lock acquisition serves a whole batch.
 */
import { Stat, type ThisCpu } from '../cpu/index.js';
import {
  __GFP_DIRECT_RECLAIM,
  __GFP_THISNODE,
  Page,
  type PageAllocator,
  type PagePtr,
} from '../page/index.js';
import { hasRefinement } from '../struct/index.js';
import { cmpxchg, exchange, LockClass } from '../sync/index.js';
import { Chain, type FreelistLoops, NR_CHAINS } from './freelist.js';
import { type CacheDesc, listLock, nodeOf } from './kmemCache.js';
import { PartialBatches } from './partialBatch.js';
import { inuseOf, packSlabWord } from './slabWord.js';

const { slabWord: SLAB_WORD, objects: OBJECTS, next: NEXT } = Page;
const { HEAD: HEAD_AT, TAIL: TAIL_AT, COUNT: COUNT_AT } = Chain;

const LIST_LOCK_CLASS = LockClass.ListLock;

export class BatchSlabs extends PartialBatches {
  protected readonly loops: FreelistLoops;
  /** Off: the unused rest of a freelist is freed like any other chain. */
  protected readonly returnsFreelist: boolean;

  constructor(cpu: ThisCpu, pages: PageAllocator, loops: FreelistLoops) {
    super(cpu, pages);
    this.loops = loops;
    this.returnsFreelist = hasRefinement(cpu.geometry, 'returnFreelist');
  }

  /**
   * Gets between `min` and `max` objects into `out[at..]`: from partial slabs, then from new slabs until there are
   * `min`. Returns how many; fewer than `min` means out of memory. Kernel: `refill_objects`.
   */
  refillObjects(s: CacheDesc, out: Int32Array, at: number, min: number, max: number, gfp: number): number {
    let got = this.refillFromPartial(s, out, at, min, max, gfp);
    while (got < min) {
      const page = this.newSlab(s, gfp, this.cpu.node);
      const more =
        page !== 0
          ? this.allocFromNewSlab(s, page, max - got, out, at + got)
          : this.refillFromAny(s, out, at + got, min - got, max - got, gfp);
      if (more === 0) break;
      got += more;
    }
    return got;
  }

  /** There are no pages. What reclaim took out of sheaves lies on partial lists now, whoever's they are. */
  private refillFromAny(
    s: CacheDesc,
    out: Int32Array,
    at: number,
    min: number,
    max: number,
    gfp: number,
  ): number {
    // Only who reclaims gets more than the gate for other nodes lets through.
    if ((gfp & __GFP_DIRECT_RECLAIM) === 0) return 0;
    const last = (gfp & __GFP_THISNODE) !== 0 ? 1 : s.nodes;
    for (let distance = 0; distance < last; distance++) {
      const node = (this.cpu.node + distance) % s.nodes;
      const got = this.refillFromNode(s, node, out, at, min, max, false);
      if (got !== 0) return got;
    }
    return 0;
  }

  /** The part of it that needs no memory: partial slabs of this node, then of others. */
  refillFromPartial(
    s: CacheDesc,
    out: Int32Array,
    at: number,
    min: number,
    max: number,
    gfp: number,
  ): number {
    const got = this.refillFromNode(s, this.cpu.node, out, at, min, max, false);
    if (got >= min || (gfp & __GFP_THISNODE) !== 0 || !this.mayDefragment(s)) return got;
    return this.refillFromRemote(s, out, at, got, min, max);
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

  protected refillFromNode(
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

  /** Takes the whole freelist of a slab that we hold, keeps up to `max` objects and returns the rest to it. */
  protected takeObjects(s: CacheDesc, page: PagePtr, out: Int32Array, at: number, max: number): number {
    const m = this.m;
    const objects = m[page + OBJECTS]!;
    // Take-all (F2). Pairs with the compare-exchange of every push: the links it published are visible.
    const word = exchange(m, page + SLAB_WORD, packSlabWord(0, objects));
    const free = objects - inuseOf(word);
    const take = Math.min(free, max);
    const head = this.loops.walk(s, this.firstFree(s, page, word), out, at, take);
    if (head === 0) return take;
    if (this.returnsFreelist) this.returnFreelist(s, page, head, free - take);
    else this.freeRest(s, page, head, free - take);
    return take;
  }

  /**
   * Puts the unused rest of a freelist back. If nobody freed into the slab meanwhile, one compare-exchange does it,
   * without looking for the rest's tail. It runs under list_lock: otherwise another CPU could free an object (the
   * slab goes to the partial list), a third could pop that object again and, before it has unlinked the slab, our
   * exchange would find the same word and link the slab a second time.
   */
  protected returnFreelist(s: CacheDesc, page: PagePtr, head: number, cnt: number): void {
    const { m, cpu } = this;
    const objects = m[page + OBJECTS]!;
    const n = nodeOf(m, s, this.pages.nodeOf(page));
    const taken = packSlabWord(0, objects);
    const rest = packSlabWord(this.indexOf(s, page, head) + 1, objects - cnt);
    let returned = false;
    cpu.locks.lock(listLock(n), LIST_LOCK_CLASS);
    try {
      returned = cmpxchg(m, page + SLAB_WORD, taken, rest) === taken;
      if (returned) this.putBackOne(m, n, page);
    } finally {
      cpu.locks.unlock(listLock(n), LIST_LOCK_CLASS);
    }
    if (!returned) this.freeRest(s, page, head, cnt);
  }

  /** Frees it as a chain: while we hold all of its objects the slab is full and on no list, and this lists it. */
  protected freeRest(s: CacheDesc, page: PagePtr, head: number, cnt: number): void {
    let tail = head;
    for (let next = head; next !== 0; next = this.getFreepointer(s, tail)) tail = next;
    this.freeChain(s, page, head, tail, cnt);
  }

  /**
   * Frees `list[at .. at+n)` to the slabs, one compare-exchange per slab and chunk of objects. The kernel's
   * `build_detached_freelist` chains what it finds within three misses; here a table finds all of a chunk.
   */
  freeObjects(s: CacheDesc, list: Int32Array, at: number, n: number): void {
    try {
      for (let left = n; left > 0; ) {
        const chunk = left < NR_CHAINS ? left : NR_CHAINS;
        left -= chunk;
        this.freeChains(s, this.loops.buildChains(s, list, at + left, chunk));
      }
    } catch (error) {
      this.loops.chains.fill(0); // scratch must be empty for the next call
      throw error;
    }
  }

  /** Pushes the chains that need no lock; the slabs that go on or off a partial list follow under one list_lock. */
  private freeChains(s: CacheDesc, nr: number): void {
    const { chains, used } = this.loops;
    let moving = 0;
    for (let i = 0; i < nr; i++) {
      const chain = used[i]!;
      const page = chains[chain] as PagePtr;
      const cnt = chains[chain + COUNT_AT]!;
      if (this.pushChain(s, page, chains[chain + HEAD_AT]!, chains[chain + TAIL_AT]!, cnt)) chains[chain] = 0;
      else used[moving++] = chain;
    }
    if (moving > 0) this.freeMovingChains(s, moving);
  }

  private freeMovingChains(s: CacheDesc, nr: number): void {
    const { chains, used } = this.loops;
    const { m, cpu } = this;
    let empty = 0; // slabs to discard, linked through NEXT
    for (let i = 0; i < nr; ) {
      const node = this.pages.nodeOf(chains[used[i]!] as PagePtr);
      const n = nodeOf(m, s, node);
      cpu.locks.lock(listLock(n), LIST_LOCK_CLASS);
      try {
        do {
          const chain = used[i]!;
          const page = chains[chain] as PagePtr;
          const cnt = chains[chain + COUNT_AT]!;
          chains[chain] = 0;
          if (this.pushUnderListLock(s, n, page, chains[chain + HEAD_AT]!, chains[chain + TAIL_AT]!, cnt)) {
            m[page + NEXT] = empty;
            empty = page;
          }
          i++;
        } while (i < nr && this.pages.nodeOf(chains[used[i]!] as PagePtr) === node);
      } finally {
        cpu.locks.unlock(listLock(n), LIST_LOCK_CLASS);
      }
    }
    this.discardSlabs(s, empty);
  }

  /** Counts a free that did not go through a sheaf, `n` objects at once, and does it. */
  freeObjectsSlow(s: CacheDesc, list: Int32Array, at: number, n: number): void {
    this.count(s, Stat.FREE_SLOWPATH, n);
    this.freeObjects(s, list, at, n);
  }
}
