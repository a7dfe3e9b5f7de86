/**
 * Taking objects out of sheaves and giving them back to their slabs. That takes list_lock, and zone->lock for slabs that
 * become empty. Here the pcs lock is given back before; pcs.ts keeps this CPU's own where it comes straight back to it.
 */
import { cpuOfPcs, nodeOfCpu, Pcs, type PcsPtr, Stat, TrylockStat } from '../cpu/index.js';
import { PcsLock } from './pcsLock.js';
import { SHEAF_OBJECTS, Sheaf, type SheafPtr, sheafSize } from './sheaf.js';

const { main: MAIN, spare: SPARE, rcuFree: RCU_FREE } = Pcs;
const { size: SIZE } = Sheaf;
const { SHEAF_FLUSH } = Stat;
const { freeBypasses: FREE_BYPASSES } = TrylockStat;
const OBJECTS = SHEAF_OBJECTS;

/** Objects that are copied out of main at once, to be freed without the lock. */
export const PCS_BATCH_MAX = 32;

export abstract class PcsFlush extends PcsLock {
  private readonly batch = new Int32Array(PCS_BATCH_MAX);
  /** What detach took out of a pcs, until flushDetached. */
  private detachedObjects: Int32Array | undefined;
  private nrDetached = 0;
  private detachedSpare = 0 as SheafPtr;
  private detachedRcu = 0 as SheafPtr;
  /** The node of the CPU that had it, whose objects it has. */
  private detachedRcuNode = 0;

  /** Lets a sheaf with objects of `node` wait for a grace period. */
  protected abstract submitRcuSheaf(sheaf: SheafPtr, node: number): void;

  /** Gives all objects of a sheaf that we alone hold back to their slabs. */
  protected flushSheaf(sheaf: SheafPtr): void {
    const { m } = this;
    const size = sheafSize(m, sheaf);
    if (size === 0) return;
    this.slabs.freeObjects(this.desc, m, sheaf + OBJECTS, size);
    m[sheaf + SIZE] = 0;
    this.count(SHEAF_FLUSH, size);
  }

  /** For a free: flushes main in batches that are copied out under the lock and freed without it. True if any was. */
  protected flushMain(): boolean {
    const { m, batch } = this;
    let flushed = false;
    for (;;) {
      if (!this.locked && !this.trylockPcs()) return flushed || this.passBy(FREE_BYPASSES);
      this.fold();
      const size = m[this.main + SIZE]!;
      const n = Math.min(size, PCS_BATCH_MAX);
      const top = this.main + OBJECTS + size;
      for (let i = 0; i < n; i++) batch[i] = m[top - n + i]!;
      m[this.main + SIZE] = size - n;
      this.rebase(size - n);
      this.unlockPcs();
      if (n === 0) return flushed;
      this.slabs.freeObjects(this.desc, batch, 0, n);
      this.count(SHEAF_FLUSH, n);
      flushed = true;
    }
  }

  /** Flushes this CPU's own sheaves. Kernel: `pcs_flush_all`. */
  protected flushOwn(): void {
    if (this.mainCapacity === 0) return;
    if (!this.locked && !this.trylockPcs()) return;
    this.fold();
    this.detach(this.pcs);
    this.rebase(0);
    this.unlockPcs();
    this.flushDetached();
  }

  /**
   * Takes everything out of a pcs, whoever's it is; its lock is ours and main's size word plain. Main stays, empty.
   * Nothing goes to the slabs yet: another CPU's lock is held for the copy alone, its owner may be waiting to go on.
   */
  protected detach(pcs: PcsPtr): void {
    const { m } = this;
    if (this.mainCapacity === 0) return;
    this.detachedObjects ??= new Int32Array(this.mainCapacity);
    const main = m[pcs + MAIN] as SheafPtr;
    const size = m[main + SIZE]!;
    for (let i = 0; i < size; i++) this.detachedObjects[i] = m[main + OBJECTS + i]!;
    m[main + SIZE] = 0;
    this.nrDetached = size;
    this.detachedSpare = m[pcs + SPARE] as SheafPtr;
    m[pcs + SPARE] = 0;
    this.detachRcu(pcs);
  }

  /** Takes rcu_free out of a pcs whose lock is ours. */
  protected detachRcu(pcs: PcsPtr): void {
    const { geometry } = this.cpu;
    this.detachedRcu = this.m[pcs + RCU_FREE] as SheafPtr;
    this.detachedRcuNode = nodeOfCpu(geometry, cpuOfPcs(geometry, pcs));
    this.m[pcs + RCU_FREE] = 0;
  }

  /** Gives what detach took back to the slabs; no lock is held. */
  protected flushDetached(): void {
    const { nrDetached, detachedSpare: spare, detachedRcu } = this;
    this.nrDetached = 0;
    this.detachedSpare = 0 as SheafPtr;
    this.detachedRcu = 0 as SheafPtr;
    if (detachedRcu !== 0) this.submitDetachedRcu(detachedRcu);
    if (spare !== 0) {
      this.cpu.inHand(spare);
      this.flushSheaf(spare);
      this.cpu.inHand(0);
      this.sheaves.freeEmptySheaf(this.desc, spare);
    }
    if (nrDetached === 0) return;
    this.slabs.freeObjects(this.desc, this.detachedObjects!, 0, nrDetached);
    this.count(this.counters.flush, nrDetached);
  }
  /** A thread that died before its first object was in leaves one without any, which would come back as a full one. */
  private submitDetachedRcu(sheaf: SheafPtr): void {
    if (sheafSize(this.m, sheaf) === 0) this.sheaves.freeEmptySheaf(this.desc, sheaf);
    else this.submitRcuSheaf(sheaf, this.detachedRcuNode);
  }
}
