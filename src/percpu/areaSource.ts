/**
 * Areas straight from the chunks, for the calling thread, and the work that taking and giving them back leaves.
 *
 *  A1  An allocation that may sleep holds pcpu_alloc_mutex over the search, the making of a chunk and the populating of
 *      its pages, and pcpu_lock over each look at or change of the maps. One that may not takes pcpu_lock alone, and finds
 *      populated pages only. The area is zeroed after both.
 *  A2  A free takes pcpu_lock alone, and nothing under it: a destructor may free.
 *  A3  What a free leaves to be done, and what an atomic allocation lacked, is balance work: for a reclaim worker that
 *      sleeps, or else for the next allocation that may sleep, when it has its area.
 *  A4  Reclaim begins with no lock held: for memory the mutex is dropped, and everything is looked at again.
 *  A5  An area is in the record of its thread from before its change of the maps is complete to when the caller gets it:
 *      whoever reaps the thread gives it back.
 */
import type { Caches } from '../cache/index.js';
import type { ThisCpu } from '../cpu/index.js';
import { type PageAllocator, requestWork } from '../page/index.js';
import { exchange, Intent, LockClass, loadAcquire, NO_CACHE, storeRelease } from '../sync/index.js';
import { allocArea, endOp, findFit, freeArea, isOneBlock } from './area.js';
import { badAddress } from './badAddress.js';
import { type BalanceReport, balance } from './balance.js';
import { testBit } from './bitmap.js';
import { isPopulated } from './blocks.js';
import { createChunk, publishChunk } from './chunk.js';
import {
  CHUNKS_MAX,
  EMPTY_POP_PAGES_HIGH,
  EMPTY_POP_PAGES_LOW,
  PAGE_BITS,
  PAGE_BITS_SHIFT,
  PcpuChunk,
  type PcpuChunkPtr,
  PcpuRoot,
  PcpuThread,
  PcpuView,
  PERCPU_BASE,
  SLOT_FAIL_THRESHOLD,
  WORD_SHIFT,
} from './layout.js';
import { depopulatePages, markDepopulated, markPopulated, populatePages } from './populate.js';
import { firstOf, isolateChunk, moveChunk, nextOf, reintegrateChunk } from './slots.js';

const { balanceWanted: BALANCE_WANTED, nrEmptyPop: ROOT_EMPTY_POP, atomicFailed: ATOMIC_FAILED } = PcpuRoot;
const { nrInHand: NR_IN_HAND, inHand: IN_HAND } = PcpuThread;

const WORD = 1 << WORD_SHIFT;
const NOT_WANTED = 0;
const WANTED_OF_ANYBODY = 1;
const WANTED_OF_WORKER = 2;

export class AreaSource {
  readonly v: PcpuView;
  readonly cpu: ThisCpu;
  readonly pages: PageAllocator;
  private readonly caches: Caches;
  private readonly thread: number;

  constructor(caches: Caches) {
    this.caches = caches;
    this.cpu = caches.cpu;
    this.pages = caches.pages;
    this.v = new PcpuView(caches.views.m, caches.geometry);
    this.thread = this.recordOf(this.cpu.thread);
  }

  /** Where the areas in a thread's hands are noted. */
  recordOf(thread: number): number {
    return this.v.threads + thread * PcpuThread.SIZEOF;
  }

  /** From now on the reaper knows of an area that nobody else has (A5). */
  readonly hold = (p: number): void => {
    const { m } = this.v;
    const n = m[this.thread + NR_IN_HAND]!;
    m[this.thread + IN_HAND + n] = p;
    m[this.thread + NR_IN_HAND] = n + 1;
  };

  /** How many areas this thread has in its hands. */
  get held(): number {
    return this.v.m[this.thread + NR_IN_HAND]!;
  }

  /** The n-th of them. */
  heldAt(n: number): number {
    return this.v.m[this.thread + IN_HAND + n]!;
  }

  /** The thread has only the first n in its hands. */
  holdOnly(n: number): void {
    this.v.m[this.thread + NR_IN_HAND] = n;
  }

  /** Bits of an area and how they are aligned; one of more than a page takes whole pages. */
  private shape(size: number, align: number): { bits: number; alignBits: number } {
    const bits = (size + WORD - 1) >> WORD_SHIFT;
    if (bits <= PAGE_BITS) return { bits, alignBits: Math.max(1, align >> WORD_SHIFT) };
    return { bits: (bits + PAGE_BITS - 1) & -PAGE_BITS, alignBits: PAGE_BITS };
  }

  /** An area of populated pages, in hand, or 0. */
  takeAtomic(size: number, align: number): number {
    const { v } = this;
    const { bits, alignBits } = this.shape(size, align);
    let short = false;
    const p = this.withLock(() => {
      const found = this.search(bits, alignBits, true);
      if (found === 0) v.m[v.root + ATOMIC_FAILED] = 1;
      short = found === 0 || v.m[v.root + ROOT_EMPTY_POP]! < EMPTY_POP_PAGES_LOW;
      return found;
    });
    if (short) this.scheduleBalance();
    return p;
  }

  /** An area, in hand, or 0. pcpu_alloc_mutex held. */
  takeSleeping(size: number, align: number, gfp: number): number {
    const { v, caches } = this;
    const { bits, alignBits } = this.shape(size, align);
    let short = false;
    const search = (): number => {
      const found = this.search(bits, alignBits, false);
      short = v.m[v.root + ROOT_EMPTY_POP]! < EMPTY_POP_PAGES_LOW;
      return found;
    };
    let p = this.withLock(search);
    if (p === 0) {
      const chunk = createChunk(v, caches.kmallocs, gfp);
      if (chunk === 0) return 0;
      p = this.withLock(() => {
        publishChunk(v, chunk);
        return search();
      });
    }
    if (short) this.scheduleBalance();
    if (this.populate(p, bits, gfp)) return p;
    this.giveBack(p);
    this.holdOnly(this.held - 1);
    return 0;
  }

  /** Takes an area from the fullest chunk that has one, and notes it as in hand. Both 0 when there is none. pcpu_lock held. */
  private search(bits: number, alignBits: number, popOnly: boolean): number {
    const { v } = this;
    for (let slot = v.sizeToSlot(bits << WORD_SHIFT); slot <= v.freeSlot; slot++) {
      for (let chunk = firstOf(v, slot); chunk !== 0; ) {
        const next = nextOf(v, chunk);
        const start = findFit(v, chunk, bits, alignBits, popOnly);
        if (start >= 0) return this.takeArea(chunk, start, bits);
        if (slot < SLOT_FAIL_THRESHOLD) moveChunk(v, chunk, 0);
        chunk = next;
      }
    }
    return 0;
  }

  private takeArea(chunk: PcpuChunkPtr, start: number, bits: number): number {
    const { v } = this;
    allocArea(v, chunk, start, bits);
    reintegrateChunk(v, chunk);
    const p = v.address(chunk, start);
    this.hold(p);
    endOp(v);
    return p;
  }

  /** Gives the pages of a new area memory where they have none. pcpu_alloc_mutex held. */
  private populate(p: number, bits: number, gfp: number): boolean {
    const { v } = this;
    const chunk = this.chunkOf(p);
    const start = (p & (v.unitBytes - 1)) >> WORD_SHIFT;
    const from = start >> PAGE_BITS_SHIFT;
    const end = ((start + bits - 1) >> PAGE_BITS_SHIFT) + 1;
    if (bits > PAGE_BITS) this.clearForBlock(chunk, from, end);
    if (isPopulated(v, chunk, from)) return true;
    if (!populatePages(this, chunk, from, end, gfp)) return false;
    this.withLock(() => markPopulated(v, chunk, from, end));
    return true;
  }

  /** Pages that are populated, but not as one block of addresses, go. Nobody else has anything in them. */
  private clearForBlock(chunk: PcpuChunkPtr, from: number, end: number): void {
    const { v } = this;
    if (isOneBlock(v, chunk, from, end)) return;
    for (let page = from; page < end; page++) {
      if (!isPopulated(v, chunk, page)) continue;
      this.withLock(() => markDepopulated(v, chunk, page, page + 1));
      depopulatePages(this, chunk, page, page + 1);
    }
  }

  /** Puts an area back into its chunk. `isKept` says whether an area cache has it. Throws, and changes nothing, when it is none. */
  giveBack(p: number, isKept: (p: number) => boolean = () => false): void {
    const { v } = this;
    const needed = this.withLock(() => {
      const { chunk, start } = this.checkedArea(p);
      if (isKept(p)) throw badAddress('double-free', p, 'was freed already');
      freeArea(v, chunk, start);
      return this.needsBalance(chunk);
    });
    if (needed) this.scheduleBalance();
  }

  /** After a free: whether there is a free chunk too many, or one whose empty pages are. pcpu_lock held. */
  private needsBalance(chunk: PcpuChunkPtr): boolean {
    const { v } = this;
    const { m, root } = v;
    const isolated = m[chunk + PcpuChunk.isolated] !== 0;
    if (!isolated && m[chunk + PcpuChunk.freeBytes] === v.unitBytes) {
      const first = firstOf(v, v.freeSlot);
      return first !== chunk || nextOf(v, first) !== 0;
    }
    // Kernel: `pcpu_should_reclaim_chunk`.
    const empty = m[chunk + PcpuChunk.nrEmptyPop]!;
    const plenty = m[root + ROOT_EMPTY_POP]! > EMPTY_POP_PAGES_HIGH + empty && empty >= v.unitPages / 4;
    if (!(isolated && empty > 0) && !plenty) return false;
    isolateChunk(v, chunk);
    return true;
  }

  /** Throws unless `p` is the start of an area that is allocated. */
  checkedArea(p: number): { chunk: PcpuChunkPtr; start: number } {
    const { v } = this;
    const chunk = this.checkedChunk(p);
    const start = (p & (v.unitBytes - 1)) >> WORD_SHIFT;
    if (p % WORD !== 0) throw badAddress('misaligned', p, 'is not the start of an area');
    if (!testBit(v.m, chunk + v.allocMap, start)) {
      throw badAddress('double-free', p, 'is in no area: it was freed already or never allocated');
    }
    if (!testBit(v.m, chunk + v.boundMap, start))
      throw badAddress('misaligned', p, 'is not the start of an area');
    return { chunk, start };
  }

  /** The chunk that has a percpu address; throws when there is none. */
  checkedChunk(p: number): PcpuChunkPtr {
    const { v } = this;
    const inRange = Number.isInteger(p) && p >= PERCPU_BASE && p < PERCPU_BASE + CHUNKS_MAX * v.unitBytes;
    const chunk = inRange ? this.chunkOf(p) : 0;
    if (chunk === 0) throw badAddress('invalid-pointer', p, 'is no percpu address: no chunk has it');
    return chunk as PcpuChunkPtr;
  }

  chunkOf(p: number): PcpuChunkPtr {
    return this.v.chunkAt((p - PERCPU_BASE) >>> this.v.unitShift);
  }

  /** Does what was put off, waiting for pcpu_alloc_mutex; `arena.reclaimWorker()` calls it, too. */
  balance(): BalanceReport {
    const { v, caches, cpu, pages } = this;
    cpu.assertOnline();
    exchange(cpu.m, v.root + BALANCE_WANTED, NOT_WANTED);
    cpu.enter(Intent.BALANCE_PERCPU, NO_CACHE);
    try {
      return this.withMutex(() => balance({ v, cpu, pages, kmallocs: caches.kmallocs }));
    } finally {
      cpu.leave();
    }
  }

  /** For the reclaim worker: balances if that is wanted. */
  readonly background = (): void => {
    // Pairs with scheduleBalance: what was put off before is visible.
    if (loadAcquire(this.cpu.m, this.v.root + BALANCE_WANTED) !== NOT_WANTED) this.balance();
  };

  private scheduleBalance(): void {
    const { v } = this;
    const at = v.root + BALANCE_WANTED;
    // Said before the worker is woken, so that it finds it; then said again with whom it is left to.
    storeRelease(this.cpu.m, at, WANTED_OF_WORKER);
    if (!requestWork(this.cpu.m, v.geometry)) storeRelease(this.cpu.m, at, WANTED_OF_ANYBODY);
  }

  /** Balances if that is wanted and no worker was there for it (A3). */
  balanceIfNobodyElse(): void {
    // A hint: who comes too early or too late leaves it to the next.
    if (this.v.m[this.v.root + BALANCE_WANTED] === WANTED_OF_ANYBODY) this.balance();
  }

  /** Whether an allocated area starts at `p`, which a chunk has. */
  isArea(p: number): boolean {
    const { v } = this;
    const chunk = this.checkedChunk(p);
    const start = (p & (v.unitBytes - 1)) >> WORD_SHIFT;
    return testBit(v.m, chunk + v.allocMap, start) && testBit(v.m, chunk + v.boundMap, start);
  }

  /** Our turn ends first: nobody waits for a mutex, or for the pages that are taken under it, with sheaves in hand. */
  withMutex<T>(body: () => T): T {
    const { locks } = this.cpu;
    this.cpu.endTurn();
    locks.lock(this.v.mutex, LockClass.PcpuAllocMutex);
    try {
      return body();
    } finally {
      locks.unlock(this.v.mutex, LockClass.PcpuAllocMutex);
    }
  }

  withLock<T>(body: () => T): T {
    const { locks } = this.cpu;
    locks.lock(this.v.lock, LockClass.PcpuLock);
    try {
      return body();
    } finally {
      locks.unlock(this.v.lock, LockClass.PcpuLock);
    }
  }
}
