/**
 * This CPU's sheaves of one cache. What is here runs when the fast path misses because main is empty or full: spare,
 * barn, slabs, in the kernel's order.
 */
import { Pcs, Stat, TrylockStat } from '../cpu/index.js';
import { NUMA_NO_NODE, sheafGfp } from '../page/index.js';
import {
  Barn,
  type BarnPtr,
  barnGetEmptySheaf,
  barnOf,
  barnPutEmptySheaf,
  barnPutFullSheaf,
  barnReplaceEmptySheaf,
  barnReplaceFullSheaf,
  TOO_MANY_FULL,
} from './barn.js';
import { barnMissed } from './barnLimit.js';
import { PcsFlush } from './pcsFlush.js';
import { SHEAF_OBJECTS, Sheaf, type SheafPtr, sheafSize } from './sheaf.js';

const { spare: SPARE } = Pcs;
const { size: SIZE } = Sheaf;
const { rcuHead: RCU_HEAD } = Barn;
// Imported names are looked up at each use; module-local constants are folded.
const { BARN_GET, BARN_GET_FAIL, BARN_PUT, BARN_PUT_FAIL, SHEAF_REFILL } = Stat;
const { allocBypasses: ALLOC_BYPASSES, freeBypasses: FREE_BYPASSES } = TrylockStat;
const OBJECTS = SHEAF_OBJECTS;

/** getEmptyMain found room; its other answers are those of barnReplaceFullSheaf. */
export const GOT_ROOM = 1;

export abstract class PcsLayer extends PcsFlush {
  /**
   * Main is empty and the lock held. Returns true with the lock held and objects in main, or false with the lock given
   * up. Kernel: `__pcs_replace_empty_main`.
   */
  protected replaceEmptyMain(gfp: number): boolean {
    const { m, pcs } = this;
    if (this.sheafCapacity === 0) return this.giveUp();
    if (this.getFullMain() || this.refillSpareAndInstall(gfp)) return true;
    const spare = m[pcs + SPARE] as SheafPtr; // 0, empty, or what the partial slabs had
    m[pcs + SPARE] = 0;
    this.cpu.inHand(spare);
    this.unlockPcs();
    const filled = this.fillSheaf(spare, gfp);
    return filled !== 0 && this.installFullSheaf(filled);
  }

  /**
   * Fills the empty spare from partial slabs and makes it main, without giving the lock up: it takes list_lock, whose
   * owners wait for no pcs lock. New slabs may have to wait for memory, and so come later. False
   * when there was no spare or the partial slabs did not suffice; then the spare holds what they had.
   */
  private refillSpareAndInstall(gfp: number): boolean {
    const { m, pcs, cpu } = this;
    const spare = m[pcs + SPARE] as SheafPtr;
    if (spare === 0) return false;
    const want = this.sheafCapacity;
    cpu.inHand(spare);
    const got = this.slabs.refillFromPartial(this.desc, m, spare + OBJECTS, want, want, gfp);
    m[spare + SIZE] = got;
    this.count(SHEAF_REFILL, got);
    if (got === want) {
      m[pcs + SPARE] = this.main;
      this.setMain(spare);
    }
    cpu.inHand(0);
    return got === want;
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
    const barn = barnOf(cpu, desc, cpu.node);
    let full = barnReplaceEmptySheaf(cpu, barn, this.main);
    if (full === 0 && m[barn + RCU_HEAD] !== 0 && this.recycleRcuSheaves(barn)) {
      full = barnReplaceEmptySheaf(cpu, barn, this.main);
    }
    this.count(full !== 0 ? BARN_GET : BARN_GET_FAIL);
    if (full !== 0) this.setMain(full);
    else barnMissed(m, barn);
    return full !== 0;
  }

  /** Sheaves whose grace period is over come back; true if there is a full one in the barn now. */
  protected abstract recycleRcuSheaves(barn: BarnPtr): boolean;

  private giveUp(): false {
    this.unlockPcs();
    return false;
  }

  /** Fills `empty`, or a new sheaf, to the brim; with no lock held. Returns 0 when out of memory. */
  private fillSheaf(empty: SheafPtr, gfp: number): SheafPtr {
    const sheaf = empty !== 0 ? empty : this.sheaves.allocEmptySheaf(this.desc, this.sheafCapacity);
    if (sheaf === 0) return sheaf;
    this.cpu.inHand(sheaf);
    if (this.refillSheaf(sheaf, gfp)) return sheaf;
    this.flushSheaf(sheaf);
    this.sheaves.freeEmptySheaf(this.desc, sheaf);
    this.cpu.inHand(0);
    return 0 as SheafPtr;
  }

  /** Fills a sheaf up to capacity. False when memory ran out before. Kernel: `refill_sheaf`. */
  protected refillSheaf(sheaf: SheafPtr, gfp: number): boolean {
    const { m } = this;
    const size = m[sheaf + SIZE]!;
    const want = this.sheafCapacity - size;
    const got = this.slabs.refillObjects(this.desc, m, sheaf + OBJECTS + size, want, want, sheafGfp(gfp));
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
      cpu.inHand(0);
      this.count(BARN_PUT);
      return this.passBy(ALLOC_BYPASSES);
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
    cpu.inHand(0);
    return true;
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

  /**
   * The barn has its fill: the spare's objects go back to their slabs, and its sheaf becomes our empty main. The lock
   * stays ours meanwhile, as in refillSpareAndInstall; slabs that become empty take zone->lock, too.
   */
  private flushSpareAndInstall(): true {
    const { m, pcs, cpu } = this;
    const spare = m[pcs + SPARE] as SheafPtr;
    this.count(BARN_PUT_FAIL);
    cpu.inHand(spare);
    m[pcs + SPARE] = 0;
    this.flushSheaf(spare);
    m[pcs + SPARE] = this.main;
    this.setMain(spare);
    cpu.inHand(0);
    return true;
  }

  /** No memory for another sheaf: make room in main by giving its objects back. */
  private flushMainInstead(putFailed: boolean): boolean {
    if (putFailed) this.count(BARN_PUT_FAIL);
    if (!this.flushMain()) return false;
    if (!this.trylockPcs()) return this.passBy(FREE_BYPASSES);
    this.holdForTurn();
    return sheafSize(this.m, this.main) < this.capacity || this.replaceFullMain();
  }

  private installEmptySheaf(empty: SheafPtr): boolean {
    const { m, pcs, cpu, desc } = this;
    const barn = barnOf(cpu, desc, cpu.node);
    if (!this.trylockPcs()) {
      barnPutEmptySheaf(cpu, barn, empty);
      return this.passBy(FREE_BYPASSES);
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

  /** One object straight from the slabs, past the sheaves. */
  protected allocFromSlab(gfp: number, node = NUMA_NO_NODE): number {
    return this.slabs.allocSlow(this.desc, gfp, node);
  }
}
