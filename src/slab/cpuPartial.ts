/** The cpu partial list: full slabs that got a first free, frozen, on the list of the CPU that freed. See cpuSlabs.ts. */
import { CpuSlab, layerStats, type PcsPtr, Stat } from '../cpu/index.js';
import { Page, type PagePtr } from '../page/index.js';
import { cmpxchg, LockClass, loadAcquire } from '../sync/index.js';
import { Chain, NR_CHAINS } from './freelist.js';
import { type CacheDesc, hasMinPartial, listLock, nodeOf } from './kmemCache.js';
import { addPartialTail } from './partialList.js';
import { BatchSlabs } from './refill.js';
import { FROZEN, freelistOf, inuseOf, packSlabWord } from './slabWord.js';

const { slabWord: SLAB_WORD, next: NEXT } = Page;
const { freelist: FREELIST, slabStart: SLAB_START } = CpuSlab;
const { partial: CPU_PARTIAL, nrPartial: NR_CPU_PARTIAL } = CpuSlab;
const { HEAD: HEAD_AT, TAIL: TAIL_AT, COUNT: COUNT_AT } = Chain;
const { FREE_SLAB, FREE_ADD_PARTIAL, FREE_FASTPATH, FREE_SLOWPATH, CMPXCHG_DOUBLE_FAIL } = Stat;
const ITEMS = layerStats('cpu-slab');

const LIST_LOCK_CLASS = LockClass.ListLock;

export class CpuPartialSlabs extends BatchSlabs {
  /**
   * Frees a chain of objects of one slab that is not the cpu slab. A full slab gets its first free object: it is on no
   * list, and goes to this CPU's instead of its node's, without list_lock. Kernel: `__slab_free`.
   */
  freeChainFrozen(s: CacheDesc, c: PcsPtr, page: PagePtr, head: number, tail: number, cnt: number): void {
    const { m } = this;
    if (this.isReserve(page)) return this.freeChain(s, page, head, tail, cnt);
    const first = this.indexOf(s, page, head) + 1;
    let word = m[page + SLAB_WORD]!;
    for (;;) {
      const inuse = inuseOf(word) - cnt;
      const wasFull = freelistOf(word) === 0;
      const wasFrozen = word >= FROZEN;
      if (inuse === 0 && !wasFull && !wasFrozen) return this.freeChain(s, page, head, tail, cnt);
      this.setFreepointer(s, tail, this.firstFree(s, page, word)); // ours until it is published (F3)
      const next = packSlabWord(first, inuse) | (wasFull || wasFrozen ? FROZEN : 0);
      const seen = cmpxchg(m, page + SLAB_WORD, word, next);
      if (seen !== word) {
        word = seen;
        this.count(s, CMPXCHG_DOUBLE_FAIL);
        continue;
      }
      if (wasFrozen) this.count(s, ITEMS.FREE_FROZEN);
      else if (wasFull) this.keepFirstFree(s, c, page);
      return;
    }
  }

  private keepFirstFree(s: CacheDesc, c: PcsPtr, page: PagePtr): void {
    this.putCpuPartial(s, c, page, true);
    this.count(s, ITEMS.CPU_PARTIAL_FREE);
  }

  /** Frees `list[at .. at+n)`: to the cpu slab, or slab by slab. Counts each object. */
  freeObjectsFrozen(s: CacheDesc, c: PcsPtr, list: Int32Array, at: number, n: number): void {
    const { loops } = this;
    try {
      for (let left = n; left > 0; ) {
        const chunk = left < NR_CHAINS ? left : NR_CHAINS;
        left -= chunk;
        const nr = loops.buildChains(s, list, at + left, chunk);
        for (let i = 0; i < nr; i++) this.freeBuiltChain(s, c, loops.used[i]!);
      }
    } catch (error) {
      loops.chains.fill(0); // scratch must be empty for the next call
      throw error;
    }
  }

  private freeBuiltChain(s: CacheDesc, c: PcsPtr, chain: number): void {
    const { m } = this;
    const { chains } = this.loops;
    const page = chains[chain] as PagePtr;
    const head = chains[chain + HEAD_AT]!;
    const tail = chains[chain + TAIL_AT]!;
    const cnt = chains[chain + COUNT_AT]!;
    chains[chain] = 0;
    if (m[c + SLAB_START] === this.slabAddress(page)) {
      this.setFreepointer(s, tail, m[c + FREELIST]!);
      m[c + FREELIST] = head;
      this.count(s, FREE_FASTPATH, cnt);
      return;
    }
    this.count(s, FREE_SLOWPATH, cnt);
    this.freeChainFrozen(s, c, page, head, tail, cnt);
  }

  /**
   * Puts a frozen slab in front of the cpu partial list. A full list goes to the nodes as a whole first, if `drain`.
   * Kernel: `put_cpu_partial`.
   */
  protected putCpuPartial(s: CacheDesc, c: PcsPtr, page: PagePtr, drain: boolean): void {
    const { m } = this;
    let rest = m[c + CPU_PARTIAL]!;
    let nr = m[c + NR_CPU_PARTIAL]!;
    const overflow = drain && nr >= s.cpuPartialSlabs ? (rest as PagePtr) : (0 as PagePtr);
    if (overflow !== 0) rest = nr = 0;
    m[page + NEXT] = rest;
    m[c + CPU_PARTIAL] = page;
    m[c + NR_CPU_PARTIAL] = nr + 1;
    if (overflow === 0) return;
    this.unfreezeList(s, overflow);
    this.count(s, ITEMS.CPU_PARTIAL_DRAIN);
  }

  /** Unfreezes a private list of slabs, linked through NEXT, to the tails of their nodes' lists. Kernel: `__put_partials`. */
  protected unfreezeList(s: CacheDesc, first: PagePtr): void {
    const { m, cpu } = this;
    let empty = 0;
    for (let page = first; page !== 0; ) {
      const node = this.pages.nodeOf(page);
      const n = nodeOf(m, s, node);
      cpu.locks.lock(listLock(n), LIST_LOCK_CLASS);
      try {
        do {
          const next = m[page + NEXT] as PagePtr;
          m[page + NEXT] = 0;
          const inuse = inuseOf(this.unfreeze(s, page));
          if (inuse === 0 && hasMinPartial(m, s, n)) {
            this.forgetSlab(n, page);
            m[page + NEXT] = empty;
            empty = page;
          } else {
            addPartialTail(m, n, page);
            this.count(s, FREE_ADD_PARTIAL);
          }
          page = next;
        } while (page !== 0 && this.pages.nodeOf(page) === node);
      } finally {
        cpu.locks.unlock(listLock(n), LIST_LOCK_CLASS);
      }
    }
    this.discardEmpty(s, empty);
  }

  /** The slab's freelist is not empty, so that no free by others can move it once it is not frozen. */
  private unfreeze(s: CacheDesc, page: PagePtr): number {
    const { m } = this;
    let word = loadAcquire(m, page + SLAB_WORD);
    for (;;) {
      const seen = cmpxchg(m, page + SLAB_WORD, word, word & ~FROZEN);
      if (seen === word) return word;
      word = seen;
      this.count(s, CMPXCHG_DOUBLE_FAIL);
    }
  }

  private discardEmpty(s: CacheDesc, first: number): void {
    const { m } = this;
    for (let page = first; page !== 0; ) {
      const next = m[page + NEXT]!;
      m[page + NEXT] = 0;
      this.count(s, ITEMS.DEACTIVATE_EMPTY);
      this.count(s, FREE_SLAB);
      this.discardSlab(s, page as PagePtr);
      page = next;
    }
  }
}
