/**
 * This CPU's sheaves of one cache, under its pcs lock. What is here runs when the fast path misses: the lock is not
 * ours yet, main is empty or full, or another CPU asked for something.
 *
 * The lock is only ever taken by a trylock. Under the 'turn' policy it is kept from the first use in a turn until
 * the turn ends or another CPU asks; under 'op' it is given back after each operation. While it is not held, `main`
 * is the bootstrap sheaf and `capacity` 0, so that both fast paths miss without a test for it.
 */
import { Pcs, type PcsPtr, pcsOf, Stat, type ThisCpu, type TurnHolder } from '../cpu/index.js';
import { NUMA_NO_NODE } from '../page/index.js';
import { type CacheDesc, KmemCacheStruct, type SlabAllocator } from '../slab/index.js';
import { Superblock, type Words } from '../struct/index.js';
import { cmpxchg, futexWake, isOwnedBy, LockClass, type LockPtr, storeRelease } from '../sync/index.js';
import {
  barnGetEmptySheaf,
  barnOf,
  barnPutEmptySheaf,
  barnPutFullSheaf,
  barnReplaceEmptySheaf,
  barnReplaceFullSheaf,
  TOO_MANY_FULL,
} from './barn.js';
import { COUNT_SHIFT, SHEAF_OBJECTS, Sheaf, type SheafPtr, SIZE_MASK, sheafSize } from './sheaf.js';

const { lock: LOCK, main: MAIN, spare: SPARE, request: REQUEST, base: BASE } = Pcs;
const { size: SIZE } = Sheaf;
// Imported names are looked up at each use; module-local constants are folded.
const { ALLOC_FASTPATH, FREE_FASTPATH, BARN_GET, BARN_GET_FAIL, BARN_PUT, BARN_PUT_FAIL } = Stat;
const { SHEAF_FLUSH, SHEAF_REFILL } = Stat;
const MASK = SIZE_MASK;
const SHIFT = COUNT_SHIFT;
const OBJECTS = SHEAF_OBJECTS;

/** The line that no one writes: size 0, capacity 0. */
export const BOOT_SHEAF = Superblock.bootSheaf as SheafPtr;

/** Objects that are copied out of main at once, to be freed without the lock. */
export const PCS_BATCH_MAX = 32;

/** getEmptyMain found room; its other answers are those of barnReplaceFullSheaf. */
export const GOT_ROOM = 1;

/** Where empty sheaves come from: the kmalloc caches, which the layer above provides. */
export interface SheafSource {
  /** A zeroed sheaf for the cache, or 0. Counts SHEAF_ALLOC. */
  allocEmptySheaf(s: CacheDesc, capacity: number): SheafPtr;
  /** Counts SHEAF_FREE. */
  freeEmptySheaf(s: CacheDesc, sheaf: SheafPtr): void;
}

export class PcsLayer implements TurnHolder {
  readonly desc: CacheDesc;
  protected readonly cpu: ThisCpu;
  protected readonly m: Words;
  protected readonly slabs: SlabAllocator;
  private readonly sheaves: SheafSource;
  protected readonly pcs: PcsPtr;
  /** Word that another CPU sets when it wants something from this one. */
  protected readonly request: number;
  /** Mark of this cache's allocated objects in the shadow. */
  protected readonly tag: number;
  /** Objects a sheaf of this cache holds; 0 for caches without sheaves. */
  sheafCapacity: number;
  /** Main while we hold the lock, else the bootstrap sheaf. */
  protected main: SheafPtr = BOOT_SHEAF;
  /** The same as sheafCapacity while we hold the lock, else 0. */
  protected capacity = 0;
  protected locked = false;
  /** Whether the end of this turn will call release. */
  private queued = false;
  private readonly batch = new Int32Array(PCS_BATCH_MAX);

  constructor(cpu: ThisCpu, slabs: SlabAllocator, sheaves: SheafSource, desc: CacheDesc) {
    this.desc = desc;
    this.cpu = cpu;
    this.m = cpu.m;
    this.slabs = slabs;
    this.sheaves = sheaves;
    this.pcs = pcsOf(cpu.geometry, cpu.id, desc.slot);
    this.request = cpu.record;
    this.tag = desc.tag;
    this.sheafCapacity = cpu.m[desc.ptr + KmemCacheStruct.sheafCapacity]!;
  }

  protected count(item: number, n = 1): void {
    this.cpu.count(this.pcs, item, n);
  }

  /** Takes this CPU's pcs lock if nobody has it. Fails when a CPU that waits for it has asked. */
  protected trylockPcs(): boolean {
    const { m, pcs, cpu } = this;
    // Plain read: who asked while we look is served at the end of this turn.
    const taken = !this.locked && m[pcs + REQUEST] === 0 && cmpxchg(m, pcs + LOCK, 0, cpu.locks.owner) === 0;
    cpu.locks.noteTry((pcs + LOCK) as unknown as LockPtr, LockClass.CpuSheaves, taken);
    if (!taken) return false;
    this.locked = true;
    this.capacity = this.sheafCapacity;
    this.main = this.capacity === 0 ? BOOT_SHEAF : (m[pcs + MAIN] as SheafPtr);
    m[pcs + BASE] = m[this.main + SIZE]!;
    return true;
  }

  /** Gives the lock back; the size word of main is plain again. */
  protected unlockPcs(): void {
    const { m, pcs } = this;
    this.fold();
    this.locked = false;
    this.capacity = 0;
    this.main = BOOT_SHEAF;
    // Pairs with the compare-exchange in trylockPcs and in lockRemotePcs.
    storeRelease(m, pcs + LOCK, 0);
    if (m[pcs + REQUEST] !== 0) futexWake(m, pcs + LOCK, 1);
  }

  /** The turn ends. A release of what was already given up in between is nothing. */
  release(): void {
    this.queued = false;
    if (this.locked) this.unlockPcs();
  }

  releaseIfRequested(): void {
    if (this.locked && this.m[this.pcs + REQUEST] !== 0) this.unlockPcs();
  }

  /** Moves the operations that main's size word counted to the counters. */
  protected fold(): void {
    const { m, main, pcs } = this;
    const word = m[main + SIZE]!;
    const size = word & MASK;
    const allocs = word >>> SHIFT;
    const frees = size - m[pcs + BASE]! + allocs;
    if (allocs !== 0) {
      this.count(ALLOC_FASTPATH, allocs);
      m[main + SIZE] = size;
    }
    if (frees !== 0) this.count(FREE_FASTPATH, frees);
    m[pcs + BASE] = size;
  }

  /** Main has `size` objects, and what changed it has been counted. */
  protected rebase(size: number): void {
    this.m[this.pcs + BASE] = size;
  }

  /** Another sheaf becomes main; the old one's operations have been folded. */
  private setMain(sheaf: SheafPtr): void {
    this.m[this.pcs + MAIN] = sheaf;
    this.m[this.pcs + BASE] = this.m[sheaf + SIZE]!;
    this.main = sheaf;
  }

  /**
   * Main is empty and the lock held. Returns true with the lock held and objects in main, or false with the lock given
   * up. Kernel: `__pcs_replace_empty_main`.
   */
  protected replaceEmptyMain(gfp: number): boolean {
    const { m, pcs } = this;
    if (this.sheafCapacity === 0) return this.giveUp();
    if (this.getFullMain()) return true;
    const spare = m[pcs + SPARE] as SheafPtr; // 0 or empty
    m[pcs + SPARE] = 0;
    this.unlockPcs();
    const filled = this.fillSheaf(spare, gfp);
    return filled !== 0 && this.installFullSheaf(filled);
  }

  /** Makes a sheaf with objects main, from the spare or the barn; lock and empty main are ours throughout. */
  protected getFullMain(): boolean {
    const { m, pcs, cpu, desc } = this;
    if (this.sheafCapacity === 0) return false;
    const spare = m[pcs + SPARE] as SheafPtr;
    if (spare !== 0 && m[spare + SIZE]! > 0) {
      m[pcs + SPARE] = this.main;
      this.setMain(spare);
      return true;
    }
    const full = barnReplaceEmptySheaf(cpu, barnOf(cpu, desc, cpu.node), this.main);
    this.count(full !== 0 ? BARN_GET : BARN_GET_FAIL);
    if (full !== 0) this.setMain(full);
    return full !== 0;
  }

  private giveUp(): false {
    this.unlockPcs();
    return false;
  }

  /** Fills `empty`, or a new sheaf, to the brim; with no lock held. Returns 0 when out of memory. */
  private fillSheaf(empty: SheafPtr, gfp: number): SheafPtr {
    const sheaf = empty !== 0 ? empty : this.sheaves.allocEmptySheaf(this.desc, this.sheafCapacity);
    if (sheaf === 0 || this.refillSheaf(sheaf, gfp)) return sheaf;
    this.flushSheaf(sheaf);
    this.sheaves.freeEmptySheaf(this.desc, sheaf);
    return 0 as SheafPtr;
  }

  /** Fills a sheaf up to capacity. False when memory ran out before. Kernel: `refill_sheaf`. */
  protected refillSheaf(sheaf: SheafPtr, gfp: number): boolean {
    const { m } = this;
    const size = m[sheaf + SIZE]!;
    const want = this.sheafCapacity - size;
    const got = this.slabs.refillObjects(this.desc, m, sheaf + OBJECTS + size, want, want, gfp);
    m[sheaf + SIZE] = size + got;
    this.count(SHEAF_REFILL, got);
    return got === want;
  }

  /** Brings a full sheaf home after the lock was given up to fill it: what we left may have changed. */
  private installFullSheaf(full: SheafPtr): boolean {
    const { m, pcs, cpu, desc } = this;
    const barn = barnOf(cpu, desc, cpu.node);
    if (!this.trylockPcs()) {
      barnPutFullSheaf(cpu, barn, full);
      this.count(BARN_PUT);
      return false;
    }
    this.holdForTurn();
    const spare = m[pcs + SPARE] as SheafPtr;
    if (m[this.main + SIZE] === 0) {
      if (spare === 0) m[pcs + SPARE] = this.main;
      else barnPutEmptySheaf(cpu, barn, this.main);
      this.setMain(full);
    } else if (spare === 0) {
      m[pcs + SPARE] = full;
    } else if (m[spare + SIZE] === 0) {
      barnPutEmptySheaf(cpu, barn, spare);
      m[pcs + SPARE] = full;
    } else {
      barnPutFullSheaf(cpu, barn, full);
      this.count(BARN_PUT);
    }
    return true;
  }

  /** Under 'turn': whoever ends the turn releases us. Under 'op' each operation releases for itself. */
  protected holdForTurn(): void {
    if (this.queued) return;
    this.queued = true;
    this.cpu.holdForTurn(this);
  }

  /**
   * Main is full and the lock held. Returns true with the lock held and room in main, or false with the lock given up.
   * Kernel: `__pcs_replace_full_main`.
   */
  protected replaceFullMain(): boolean {
    if (this.sheafCapacity === 0) return this.giveUp();
    const room = this.getEmptyMain();
    if (room === GOT_ROOM) return true;
    if (room === TOO_MANY_FULL) return this.flushSpareAndInstall();
    const putFailed = this.m[this.pcs + SPARE] !== 0;
    this.unlockPcs();
    const fresh = this.sheaves.allocEmptySheaf(this.desc, this.sheafCapacity);
    return fresh !== 0 ? this.installEmptySheaf(fresh) : this.flushMainInstead(putFailed);
  }

  /**
   * Makes a sheaf with room main, from the spare or the barn; lock and full main are ours throughout. Returns GOT_ROOM,
   * TOO_MANY_FULL when the barn wants no more full sheaves, NO_EMPTY when there is no empty one.
   */
  protected getEmptyMain(): number {
    const { m, pcs, cpu, desc } = this;
    const barn = barnOf(cpu, desc, cpu.node);
    const spare = m[pcs + SPARE] as SheafPtr;
    if (spare !== 0 && m[spare + SIZE]! < this.sheafCapacity) {
      m[pcs + SPARE] = this.main;
      this.setMain(spare);
      return GOT_ROOM;
    }
    const empty = spare === 0 ? barnGetEmptySheaf(cpu, barn) : barnReplaceFullSheaf(cpu, barn, this.main);
    if (empty <= 0) return empty;
    if (spare === 0) m[pcs + SPARE] = this.main;
    else this.count(BARN_PUT);
    this.setMain(empty as SheafPtr);
    return GOT_ROOM;
  }

  /** The barn has its fill: the spare's objects go back to their slabs, and its sheaf becomes our empty one. */
  private flushSpareAndInstall(): boolean {
    const spare = this.m[this.pcs + SPARE] as SheafPtr;
    this.count(BARN_PUT_FAIL);
    this.m[this.pcs + SPARE] = 0;
    this.unlockPcs();
    this.flushSheaf(spare);
    return this.installEmptySheaf(spare);
  }

  /** No memory for another sheaf: make room in main by giving its objects back. */
  private flushMainInstead(putFailed: boolean): boolean {
    if (putFailed) this.count(BARN_PUT_FAIL);
    if (!this.flushMain()) return false;
    if (!this.trylockPcs()) return false;
    this.holdForTurn();
    return sheafSize(this.m, this.main) < this.capacity || this.replaceFullMain();
  }

  private installEmptySheaf(empty: SheafPtr): boolean {
    const { m, pcs, cpu, desc } = this;
    const barn = barnOf(cpu, desc, cpu.node);
    if (!this.trylockPcs()) {
      barnPutEmptySheaf(cpu, barn, empty);
      return false;
    }
    this.holdForTurn();
    const spare = m[pcs + SPARE] as SheafPtr;
    if (spare === 0) {
      m[pcs + SPARE] = this.main;
      this.setMain(empty);
    } else if (m[this.main + SIZE]! < this.capacity) {
      barnPutEmptySheaf(cpu, barn, empty);
    } else if (m[spare + SIZE]! < this.capacity) {
      m[pcs + SPARE] = this.main;
      this.setMain(spare);
      barnPutEmptySheaf(cpu, barn, empty);
    } else {
      barnPutFullSheaf(cpu, barn, this.main);
      this.count(BARN_PUT);
      this.setMain(empty);
    }
    return true;
  }

  /** Gives all objects of a sheaf that we alone hold back to their slabs. */
  protected flushSheaf(sheaf: SheafPtr): void {
    const { m } = this;
    const size = sheafSize(m, sheaf);
    if (size === 0) return;
    this.slabs.freeObjects(this.desc, m, sheaf + OBJECTS, size);
    m[sheaf + SIZE] = 0;
    this.count(SHEAF_FLUSH, size);
  }

  /** Flushes main in batches that are copied out under the lock and freed without it. True if any was flushed. */
  protected flushMain(): boolean {
    const { m, batch } = this;
    let flushed = false;
    for (;;) {
      if (!this.locked && !this.trylockPcs()) return flushed;
      this.fold();
      const size = m[this.main + SIZE]!;
      const n = Math.min(size, PCS_BATCH_MAX);
      const top = this.main + OBJECTS + size;
      for (let i = 0; i < n; i++) batch[i] = m[top - n + i]!;
      m[this.main + SIZE] = size - n;
      m[this.pcs + BASE] = size - n;
      this.unlockPcs();
      if (n === 0) return flushed;
      this.slabs.freeObjects(this.desc, batch, 0, n);
      this.count(SHEAF_FLUSH, n);
      flushed = true;
    }
  }

  /** Detaches and flushes what a pcs holds besides main; the lock is held by us, whoever's pcs it is. */
  private flushSpare(pcs: PcsPtr): void {
    const spare = this.m[pcs + SPARE] as SheafPtr;
    if (spare === 0) return;
    this.m[pcs + SPARE] = 0;
    this.flushSheaf(spare);
    this.sheaves.freeEmptySheaf(this.desc, spare);
  }

  /** Flushes this CPU's own sheaves. Kernel: `pcs_flush_all`. */
  protected flushOwn(): void {
    if (this.sheafCapacity === 0) return;
    if (!this.locked && !this.trylockPcs()) return;
    const spare = this.m[this.pcs + SPARE] as SheafPtr;
    this.m[this.pcs + SPARE] = 0;
    this.unlockPcs();
    if (spare !== 0) {
      this.flushSheaf(spare);
      this.sheaves.freeEmptySheaf(this.desc, spare);
    }
    this.flushMain();
  }

  /** Drains another CPU's sheaves; its lock word is ours. Main stays, empty. */
  protected drainLockedPcs(pcs: PcsPtr): void {
    this.flushSpare(pcs);
    const main = this.m[pcs + MAIN] as SheafPtr;
    if (main !== 0) this.flushSheaf(main);
  }

  /** Whether the lock of `pcs` names `owner`. */
  protected pcsOwnedBy(pcs: PcsPtr, owner: number): boolean {
    return isOwnedBy(this.m[pcs + LOCK]!, owner);
  }

  /** One object straight from the slabs, past the sheaves. */
  protected allocFromSlab(gfp: number, node = NUMA_NO_NODE): number {
    return this.slabs.allocSlow(this.desc, gfp, node);
  }
}
