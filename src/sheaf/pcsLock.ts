/**
 * The pcs lock of this CPU and one cache, and what goes with holding it.
 *
 * The lock is only ever taken by a trylock. Under the 'turn' policy it is kept from the first use in a turn until
 * the turn ends or another CPU asks; under 'op' it is given back after each operation. While it is not held, `main`
 * is the bootstrap sheaf and `capacity` 0, so that both fast paths miss without a test for it.
 *
 * | lock word  | who                                        | `main`, `capacity` of our handle | may be taken by          |
 * |------------|--------------------------------------------|----------------------------------|--------------------------|
 * | 0          | nobody                                     | bootstrap sheaf, 0               | a thread of the CPU, or a remote |
 * | own word   | we, in a turn or an operation              | main of the pcs, sheafCapacity   | nobody; may be asked for |
 * | other word | under 'op' another thread of this CPU, in an operation | bootstrap sheaf, 0   | nobody: we pass the sheaves by |
 * | other word | a thread that shrinks, destroys or reaps   | bootstrap sheaf, 0               | nobody: the same         |
 * | other word | a dead thread of this CPU                  | bootstrap sheaf, 0               | whoever reaps it         |
 */
import { Pcs, type PcsPtr, pcsOf, Stat, type ThisCpu, TrylockStat, type TurnHolder } from '../cpu/index.js';
import { type CacheDesc, KmemCacheStruct, type SlabAllocator } from '../slab/index.js';
import { Superblock, type Words } from '../struct/index.js';
import { cmpxchg, futexWake, LockClass, type LockPtr, storeRelease } from '../sync/index.js';
import { COUNT_SHIFT, Sheaf, type SheafPtr, SIZE_MASK } from './sheaf.js';

const { lock: LOCK, main: MAIN, request: REQUEST, base: BASE } = Pcs;
const { size: SIZE } = Sheaf;
// Imported names are looked up at each use; module-local constants are folded.
const { trylockFailures: TRYLOCK_FAILURES } = TrylockStat;
const MASK = SIZE_MASK;
const SHIFT = COUNT_SHIFT;

/** The line that no one writes: size 0, capacity 0. */
export const BOOT_SHEAF = Superblock.bootSheaf as SheafPtr;

/** Where empty sheaves come from: the kmalloc caches, which the layer above provides. */
export interface SheafSource {
  /** A sheaf of size 0 for the cache, or 0; by default without waiting for memory. Counts SHEAF_ALLOC. */
  allocEmptySheaf(s: CacheDesc, capacity: number, gfp?: number): SheafPtr;
  /** Counts SHEAF_FREE. */
  freeEmptySheaf(s: CacheDesc, sheaf: SheafPtr): void;
}

/** Indices of counters. */
export interface MainCounters {
  readonly alloc: number;
  readonly free: number;
  readonly flush: number;
}

const SHEAF_COUNTERS: MainCounters = {
  alloc: Stat.ALLOC_FASTPATH,
  free: Stat.FREE_FASTPATH,
  flush: Stat.SHEAF_FLUSH,
};

export class PcsLock implements TurnHolder {
  /** @internal */
  readonly desc: CacheDesc;
  protected readonly cpu: ThisCpu;
  protected readonly m: Words;
  protected readonly slabs: SlabAllocator;
  protected readonly sheaves: SheafSource;
  protected readonly pcs: PcsPtr;
  /** Word that another thread sets when it wants something from this one. */
  protected readonly request: number;
  /** Mark of this cache's allocated objects in the shadow. */
  protected readonly tag: number;
  /** Objects a sheaf of this cache holds; 0 for caches without sheaves. */
  sheafCapacity = 0;
  /** Objects that main holds, sheaf or array; 0 for caches that have neither. @internal */
  mainCapacity = 0;
  /** Main while we hold the lock, else the bootstrap sheaf. */
  protected main: SheafPtr = BOOT_SHEAF;
  /** The same as mainCapacity while we hold the lock, else 0. */
  protected capacity = 0;
  protected locked = false;
  /** What counts the objects that main gave, took, and had flushed. @internal */
  readonly counters: MainCounters;
  /** Whether the end of this turn will call release. */
  private queued = false;

  constructor(cpu: ThisCpu, slabs: SlabAllocator, sheaves: SheafSource, desc: CacheDesc) {
    this.desc = desc;
    this.cpu = cpu;
    this.m = cpu.m;
    this.slabs = slabs;
    this.sheaves = sheaves;
    this.pcs = pcsOf(cpu.geometry, cpu.id, desc.slot);
    this.request = cpu.record;
    this.tag = desc.tag;
    this.counters = this.mainCounters();
    this.learnCapacity();
  }

  /** Reads how much main holds; again, when the layer of a cache came after its handle. @internal */
  learnCapacity(): void {
    this.sheafCapacity = this.m[this.desc.ptr + KmemCacheStruct.sheafCapacity]!;
    this.mainCapacity = this.sheafCapacity;
  }

  protected mainCounters(): MainCounters {
    return SHEAF_COUNTERS;
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
    if (!taken) {
      this.count(TRYLOCK_FAILURES);
      return false;
    }
    this.locked = true;
    this.capacity = this.mainCapacity;
    this.main = this.capacity === 0 ? BOOT_SHEAF : (m[pcs + MAIN] as SheafPtr);
    m[pcs + BASE] = m[this.main + SIZE]!;
    return true;
  }

  /**
   * The trylock failed, and `n` objects will come from the slabs, or go there, past the sheaves. `bypass` is one of
   * TrylockStat. Returns false, so that it can stand behind an `||`. A cache without sheaves has nothing to pass by.
   */
  protected passBy(bypass: number, n = 1): false {
    if (this.sheafCapacity !== 0) this.count(bypass, n);
    return false;
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

  /** The turn ends. A release of what was already given up in between is nothing. @internal */
  release(): void {
    this.queued = false;
    if (this.locked) this.unlockPcs();
  }

  /** @internal */
  releaseIfRequested(): void {
    if (this.locked && this.m[this.pcs + REQUEST] !== 0) this.unlockPcs();
  }

  /** @internal */
  releaseIfIdle(): void {
    if (this.locked && !this.cpu.isBusy(this.desc.slot)) this.unlockPcs();
  }

  /** Moves the operations that main's size word counted to the counters. */
  protected fold(): void {
    const { m, main, pcs } = this;
    const word = m[main + SIZE]!;
    const size = word & MASK;
    const allocs = word >>> SHIFT;
    const frees = size - m[pcs + BASE]! + allocs;
    if (allocs !== 0) {
      this.count(this.counters.alloc, allocs);
      m[main + SIZE] = size;
    }
    if (frees !== 0) this.count(this.counters.free, frees);
    m[pcs + BASE] = size;
  }

  /** @internal */
  letGo(): void {
    if (this.locked) this.unlockPcs();
  }

  /** Gives the lock up before the turn ends, with the counters up to date; the end of the turn finds nothing to do. */
  protected releaseEarly(): void {
    if (this.locked) this.unlockPcs();
  }

  /** Main has `size` objects, and what changed it has been counted. */
  protected rebase(size: number): void {
    this.m[this.pcs + BASE] = size;
  }

  /** Under 'turn': whoever ends the turn releases us. Under 'op' each operation releases for itself. */
  protected holdForTurn(): void {
    if (this.queued) return;
    this.queued = true;
    this.cpu.holdForTurn(this);
  }

  /** Another sheaf becomes main; the old one's operations have been folded. */
  protected setMain(sheaf: SheafPtr): void {
    this.m[this.pcs + MAIN] = sheaf;
    this.m[this.pcs + BASE] = this.m[sheaf + SIZE]!;
    this.main = sheaf;
  }
}
