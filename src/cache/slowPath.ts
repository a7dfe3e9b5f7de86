/**
 * What the fast paths of a cache with sheaves call when they miss, and whole operations under the 'op' policy and in
 * restricted contexts.
 */
import { Stat, TrylockStat } from '../cpu/index.js';
import { checkGfp, virtToPage } from '../page/index.js';
import { SHEAF_OBJECTS, Sheaf, SIZE_MASK } from '../sheaf/index.js';
import { Intent } from '../sync/index.js';
import { RcuKmemCache } from './rcu/rcuFree.js';

const { size: SIZE } = Sheaf;
const { ALLOC, FREE } = Intent;
// Imported names are looked up at each use; module-local constants are folded.
const { ALLOC_NODE_MISMATCH } = Stat;
const { allocBypasses: ALLOC_BYPASSES, freeBypasses: FREE_BYPASSES } = TrylockStat;
const OBJECTS = SHEAF_OBJECTS;

export abstract class SlowKmemCache extends RcuKmemCache {
  /** The fast path missed: lock not ours, main empty, a request, or a full count. What it missed for is mended. */
  protected allocSlow(gfp: number): number {
    this.assertAlive();
    checkGfp(gfp);
    this.cpu.enter(ALLOC, this.desc.slot);
    try {
      if (this.m[this.request]! < 0) this.cpu.serveRequests();
      const locked = this.lockForTurn() || this.passBy(ALLOC_BYPASSES);
      if (locked && (this.m[this.main + SIZE] !== 0 || this.replaceEmptyMain(gfp)))
        return this.allocAgain(gfp);
      return this.handOut(this.allocFromSlab(gfp), gfp);
    } finally {
      this.cpu.leave();
    }
  }

  /** The fast path missed: bad address, lock not ours, or main full. */
  protected freeSlow(p: number): void {
    this.assertAlive();
    this.assertFreeable(p);
    this.cpu.enter(FREE, this.desc.slot);
    try {
      if (this.m[this.request]! < 0) this.cpu.serveRequests();
      const room =
        this.isLocal(p) &&
        (this.lockForTurn() || this.passBy(FREE_BYPASSES)) &&
        (this.m[this.main + SIZE] !== this.capacity || this.replaceFullMain());
      if (room && this.capacity !== 0) return this.freeAgain(p);
      this.takeBack(p);
      this.freeToSlab(p);
    } finally {
      this.cpu.leave();
    }
  }

  /** alloc under the 'op' policy: the lock is taken and given back around each operation. */
  protected allocOp(gfp: number): number {
    this.assertAlive();
    checkGfp(gfp);
    this.cpu.enter(ALLOC, this.desc.slot);
    try {
      const p = this.trylockPcs() || this.passBy(ALLOC_BYPASSES) ? this.popMain(gfp) : 0;
      this.release();
      return this.handOut(p !== 0 ? p : this.allocFromSlab(gfp), gfp);
    } finally {
      this.release();
      this.cpu.leave();
    }
  }

  protected freeOp(p: number): void {
    this.assertAlive();
    this.cpu.enter(FREE, this.desc.slot);
    try {
      this.takeBack(p);
      const locked = this.isLocal(p) && (this.trylockPcs() || this.passBy(FREE_BYPASSES));
      if (locked && this.pushMain(p)) return;
      this.release();
      this.freeToSlab(p);
    } finally {
      this.release();
      this.cpu.leave();
    }
  }

  /** Allocates in a restricted context: see nolock.ts. */
  override allocNolock(gfp: number): number {
    const begun = this.beginNolock();
    this.cpu.enterNolock(ALLOC, this.desc.slot);
    try {
      const p = begun === 'no' ? 0 : this.popNolock();
      return this.handOut(p !== 0 ? p : this.slabs.allocNolock(this.desc), gfp);
    } finally {
      this.endNolock(begun);
      this.cpu.leave();
    }
  }

  /** Frees in a restricted context: see nolock.ts. */
  override freeNolock(p: number): void {
    this.assertAlive();
    this.assertFreeable(p);
    const begun = this.isLocal(p) ? this.beginNolock() : 'no';
    this.cpu.enterNolock(FREE, this.desc.slot);
    try {
      this.takeBack(p);
      if (begun === 'no' || !this.pushNolock(p)) this.slabs.freeNolock(this.desc, p);
    } finally {
      this.endNolock(begun);
      this.cpu.leave();
    }
  }

  /** Lock held. Pops one object off main, which may have to be replaced; 0 means use the slabs. */
  private popMain(gfp: number): number {
    const { m } = this;
    if (m[this.main + SIZE] === 0 && !this.replaceEmptyMain(gfp)) return 0;
    const size = m[this.main + SIZE]!;
    m[this.main + SIZE] = size - 1;
    this.rebase(size - 1);
    this.count(this.counters.alloc);
    return m[this.main + OBJECTS + size - 1]!;
  }

  /** Lock held. Pushes one object onto main, which may have to be replaced; false means use the slabs. */
  private pushMain(p: number): boolean {
    const { m } = this;
    if (m[this.main + SIZE] === this.capacity && !this.replaceFullMain()) return false;
    const size = m[this.main + SIZE]!;
    m[this.main + OBJECTS + size] = p;
    m[this.main + SIZE] = size + 1;
    this.rebase(size + 1);
    this.count(this.counters.free);
    return true;
  }

  /** An object of `node` out of what this CPU has cached, or 0. */
  protected override allocCachedOn(node: number, gfp: number): number {
    if (node === this.cpu.node) return this.allocIfTopIsOn(node, gfp);
    this.count(ALLOC_NODE_MISMATCH);
    return 0;
  }

  /** The top object, if it lies on `node`; otherwise it stays. Kernel: the node test in `alloc_from_pcs`. */
  private allocIfTopIsOn(node: number, gfp: number): number {
    const { m } = this;
    if (!this.lockForTurn() && !this.passBy(ALLOC_BYPASSES)) return 0;
    const size = m[this.main + SIZE]! & SIZE_MASK;
    if (size === 0) {
      return this.capacity !== 0 && this.replaceEmptyMain(gfp) ? this.allocIfTopIsOn(node, gfp) : 0;
    }
    const top = m[this.main + OBJECTS + size - 1]!;
    const pages = this.slabs.pages;
    if (pages.nodeOf(virtToPage(this.context.geometry, top)) !== node) {
      this.count(ALLOC_NODE_MISMATCH);
      return 0;
    }
    return this.popMain(gfp);
  }
}
