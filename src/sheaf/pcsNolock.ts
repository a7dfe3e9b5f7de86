/**
 * This CPU's sheaves in a restricted context. It may have interrupted an operation on the same cache, on this thread,
 * between any two of its calls; what it may touch then is in the table of cache/nolock.ts.
 */
import { Pcs, Stat } from '../cpu/index.js';
import { SLAB_KMALLOC } from '../slab/index.js';
import { barnOf, barnTryReplaceEmptySheaf, barnTryReplaceFullSheaf } from './barn.js';
import { RcuSheaves } from './rcuSheaf.js';
import { SHEAF_OBJECTS, Sheaf, type SheafPtr } from './sheaf.js';

const { spare: SPARE, rcuFree: RCU_FREE } = Pcs;
const { size: SIZE } = Sheaf;
const OBJECTS = SHEAF_OBJECTS;

export abstract class PcsNolock extends RcuSheaves {
  /**
   * Takes the lock, or finds it ours for the turn and nobody at work under it. To be asked before the operation is
   * entered, and followed by endNolock with the answer.
   */
  protected beginNolock(): 'no' | 'held' | 'taken' {
    const { cpu, desc } = this;
    if (this.sheafCapacity === 0 || desc.layer !== 'sheaves') return 'no';
    // The record of a dead CPU names one cache, its outermost operation's, and stands for all of kmalloc besides.
    if (cpu.depth > 0 && (desc.flags & SLAB_KMALLOC) === 0) return 'no';
    if (!this.locked) return this.trylockPcs() ? 'taken' : 'no';
    if (cpu.isBusy(desc.slot)) return 'no';
    this.fold();
    return 'held';
  }

  /** What was held for the turn stays held; nothing is kept that was not. */
  protected endNolock(begun: 'no' | 'held' | 'taken'): void {
    if (begun === 'taken') this.unlockPcs();
  }

  /** Lock held. The top of main, which may be exchanged but is not refilled; 0 when there is none. */
  protected popNolock(): number {
    const { m } = this;
    if (m[this.main + SIZE] === 0 && !this.getFullMainNolock()) return 0;
    const size = m[this.main + SIZE]! - 1;
    m[this.main + SIZE] = size;
    this.rebase(size);
    this.count(Stat.ALLOC_FASTPATH);
    return m[this.main + OBJECTS + size]!;
  }

  /** Lock held. Puts the object on main, which may be exchanged but is not flushed; false when there is no room. */
  protected pushNolock(p: number): boolean {
    const { m } = this;
    if (m[this.main + SIZE] === this.sheafCapacity && !this.getEmptyMainNolock()) return false;
    const size = m[this.main + SIZE]!;
    m[this.main + OBJECTS + size] = p;
    m[this.main + SIZE] = size + 1;
    this.rebase(size + 1);
    this.count(Stat.FREE_FASTPATH);
    return true;
  }

  /**
   * Lock held. Puts the object into rcu_free, with the spare for one if that is empty; false when there is none, or when the
   * sheaf would be full with it: it would have to be put into the barn.
   */
  protected pushRcuNolock(p: number): boolean {
    const { m, pcs } = this;
    let sheaf = m[pcs + RCU_FREE]!;
    const spare = m[pcs + SPARE]!;
    if (sheaf === 0) {
      if (spare === 0 || m[spare + SIZE] !== 0) return false;
      m[pcs + SPARE] = 0;
      m[pcs + RCU_FREE] = spare;
      sheaf = spare;
    }
    const size = m[sheaf + SIZE]!;
    if (size + 1 >= this.sheafCapacity) return false;
    m[sheaf + OBJECTS + size] = p;
    m[sheaf + SIZE] = size + 1;
    this.count(Stat.FREE_RCU_SHEAF);
    return true;
  }

  private getFullMainNolock(): boolean {
    const { m, pcs, cpu, desc } = this;
    const spare = m[pcs + SPARE] as SheafPtr;
    if (spare !== 0 && m[spare + SIZE]! > 0) {
      m[pcs + SPARE] = this.main;
      this.setMain(spare);
      return true;
    }
    const full = barnTryReplaceEmptySheaf(cpu, barnOf(cpu, desc, cpu.node), this.main);
    this.count(full !== 0 ? Stat.BARN_GET : Stat.BARN_GET_FAIL);
    if (full !== 0) this.setMain(full);
    return full !== 0;
  }

  private getEmptyMainNolock(): boolean {
    const { m, pcs, cpu, desc } = this;
    const spare = m[pcs + SPARE] as SheafPtr;
    if (spare !== 0 && m[spare + SIZE]! < this.sheafCapacity) {
      m[pcs + SPARE] = this.main;
      this.setMain(spare);
      return true;
    }
    const given = spare === 0 ? (0 as SheafPtr) : this.main;
    const empty = barnTryReplaceFullSheaf(cpu, barnOf(cpu, desc, cpu.node), given);
    if (empty === 0) return false;
    if (spare === 0) m[pcs + SPARE] = this.main;
    else this.count(Stat.BARN_PUT);
    this.setMain(empty);
    return true;
  }
}
