/**
 * A cache of layer 'cpu-slab': this CPU works on one slab at a time, and keeps a list of others (slab/cpuSlabs.ts).
 * Here is what the fast paths in cpuSlabPath.ts call when they miss.
 *
 * | who holds the pcs lock | `hot`               | alloc and free                                         |
 * |------------------------|---------------------|--------------------------------------------------------|
 * | this handle            | the pcs             | on the CPU's freelist; else cpu partial list, nodes    |
 * | nobody, or another CPU | a line of zeros     | miss; the slow path locks, or goes to unfrozen slabs   |
 */
import { CpuSlab, type PcsPtr, pcsOf, Stat } from '../../cpu/index.js';
import { __GFP_THISNODE, checkGfp, GFP_KERNEL, NUMA_NO_NODE, virtToPage } from '../../page/index.js';
import { BOOT_SHEAF } from '../../sheaf/index.js';
import { type DetachedCpuSlab, MAX_OBJS_PER_SLAB, readFreePointer } from '../../slab/index.js';
import { requireInteger } from '../../struct/index.js';
import { Intent } from '../../sync/index.js';
import { BulkKmemCache } from '../bulk.js';
import type { CacheContext } from '../context.js';

const { freelist: FREELIST, slabStart: SLAB_START, slabBytes: SLAB_BYTES } = CpuSlab;
const { allocs: ALLOCS, frees: FREES } = CpuSlab;
const { ALLOC, FREE } = Intent;
// Imported names are looked up at each use; module-local constants are folded.
const { ALLOC_FASTPATH, ALLOC_SLOWPATH, FREE_FASTPATH, FREE_SLOWPATH } = Stat;

export class CpuSlabKmemCache extends BulkKmemCache {
  /** The pcs while we hold its lock, else a line of zeros that nobody writes: no freelist, no slab. */
  protected hot: number = BOOT_SHEAF;
  /** Byte offset of the free pointer within an object. */
  protected readonly linkAt: number;
  private detached: DetachedCpuSlab | undefined;

  constructor(context: CacheContext, slot: number) {
    super(context, slot);
    this.linkAt = this.desc.offset;
  }

  override allocNode(node: number, gfp = GFP_KERNEL): number {
    if (node === NUMA_NO_NODE) return this.alloc(gfp);
    requireInteger('node', node, 0, this.desc.nodes - 1);
    this.assertAlive();
    checkGfp(gfp);
    this.cpu.enter(ALLOC, this.desc.slot);
    try {
      if (this.m[this.request]! < 0) this.cpu.serveRequests();
      const p = this.lockForBulk() ? this.allocLocked(gfp, node) : this.allocFromSlab(gfp, node);
      this.unlockAfterBulk();
      return this.handOut(p, gfp);
    } finally {
      this.unlockAfterBulk();
      this.cpu.leave();
    }
  }

  override forEachCached(visit: (p: number, place: string) => void): void {
    const { m } = this;
    const { geometry } = this.context;
    for (let cpu = 0; cpu < geometry.cpus; cpu++) {
      const c = pcsOf(geometry, cpu, this.desc.slot);
      let left = MAX_OBJS_PER_SLAB;
      for (let p = m[c + FREELIST]!; p !== 0 && left > 0; p = readFreePointer(m, this.desc, p)) {
        visit(p, `the freelist of CPU ${cpu}`);
        // A link that leads out of the slab leads nowhere.
        left = (p - m[c + SLAB_START]!) >>> 0 < m[c + SLAB_BYTES]! ? left - 1 : 0;
      }
    }
  }

  override detachPcs(pcs: PcsPtr): void {
    this.detached = this.slabs.detachCpuSlab(pcs);
  }

  override forgetDetachedPcs(): void {
    this.detached = undefined;
  }

  protected override flushDetached(): void {
    const { detached } = this;
    this.detached = undefined;
    if (detached !== undefined) this.slabs.flushCpuSlab(this.desc, detached);
  }

  protected override flushOwn(): void {
    if (!this.locked && !this.trylockPcs()) return;
    this.detachPcs(this.pcs);
    this.unlockPcs();
    this.flushDetached();
  }

  protected override trylockPcs(): boolean {
    const taken = super.trylockPcs();
    if (taken) this.hot = this.pcs;
    return taken;
  }

  protected override unlockPcs(): void {
    this.hot = BOOT_SHEAF;
    super.unlockPcs();
  }

  /** Moves what the fast paths counted to the counters. */
  protected override fold(): void {
    const { m, pcs } = this;
    const allocs = m[pcs + ALLOCS]! >>> 0;
    const frees = m[pcs + FREES]! >>> 0;
    if (allocs !== 0) this.count(ALLOC_FASTPATH, allocs);
    if (frees !== 0) this.count(FREE_FASTPATH, frees);
    m[pcs + ALLOCS] = 0;
    m[pcs + FREES] = 0;
  }

  protected override allocSlow(gfp: number): number {
    this.assertAlive();
    checkGfp(gfp);
    this.cpu.enter(ALLOC, this.desc.slot);
    try {
      if (this.m[this.request]! < 0) this.cpu.serveRequests();
      if (!this.lockForTurn()) return this.handOut(this.allocFromSlab(gfp), gfp);
      if (this.m[this.pcs + FREELIST] !== 0) return this.allocAgain(gfp);
      return this.handOut(this.allocFrozen(gfp, NUMA_NO_NODE), gfp);
    } finally {
      this.cpu.leave();
    }
  }

  protected override allocOp(gfp: number): number {
    this.assertAlive();
    checkGfp(gfp);
    this.cpu.enter(ALLOC, this.desc.slot);
    try {
      const p = this.trylockPcs() ? this.allocLocked(gfp, NUMA_NO_NODE) : this.allocFromSlab(gfp);
      this.release();
      return this.handOut(p, gfp);
    } finally {
      this.release();
      this.cpu.leave();
    }
  }

  protected override freeSlow(p: number): void {
    // Most of what misses is an object of another slab, while we have the lock: then we are online, and the cache lives.
    if (this.locked && this.m[this.request]! >= 0 && !this.isOwn(p)) return this.freeOther(p);
    this.assertAlive();
    this.assertFreeable(p);
    this.cpu.enter(FREE, this.desc.slot);
    try {
      if (this.m[this.request]! < 0) this.cpu.serveRequests();
      if (this.lockForTurn() && this.isOwn(p)) return this.freeAgain(p);
      this.takeBack(p);
      this.freeToSlab(p);
    } finally {
      this.cpu.leave();
    }
  }

  private freeOther(p: number): void {
    this.cpu.enter(FREE, this.desc.slot);
    try {
      this.takeBack(p);
      this.freeToSlab(p);
    } finally {
      this.cpu.leave();
    }
  }

  protected override freeOp(p: number): void {
    this.assertAlive();
    this.cpu.enter(FREE, this.desc.slot);
    try {
      this.takeBack(p);
      if (!this.trylockPcs() || !this.isOwn(p)) return this.freeToSlab(p);
      this.linkFree(p, this.m[this.pcs + FREELIST]!);
      this.m[this.pcs + FREELIST] = p;
      this.count(FREE_FASTPATH);
    } finally {
      this.release();
      this.cpu.leave();
    }
  }

  /** Another slab's object: with the lock, a full slab becomes one of our partial ones. */
  protected override freeToSlab(p: number): void {
    if (!this.locked) return super.freeToSlab(p);
    this.count(FREE_SLOWPATH);
    this.slabs.freeChainFrozen(this.desc, this.pcs, this.slabs.slabOf(p), p, p, 1);
  }

  /** Lock held. Whether the object is one of the cpu slab. */
  private isOwn(p: number): boolean {
    const { m, pcs } = this;
    return (p - m[pcs + SLAB_START]!) >>> 0 < m[pcs + SLAB_BYTES]!;
  }

  /** Lock held; it may be given up. One object of `node`, or of any: from the freelist if it serves. */
  private allocLocked(gfp: number, node: number): number {
    const { m, pcs } = this;
    if (m[pcs + FREELIST] === 0 || !this.slabIsOn(node)) return this.allocFrozen(gfp, node);
    this.count(ALLOC_FASTPATH);
    return this.popObject();
  }

  private slabIsOn(node: number): boolean {
    if (node === NUMA_NO_NODE) return true;
    const page = virtToPage(this.context.geometry, this.m[this.pcs + SLAB_START]!);
    return this.slabs.pages.nodeOf(page) === node;
  }

  /** Lock held. The object behind a free one; with freelistHardened another class does it. */
  protected nextFree(p: number): number {
    return this.m[(p + this.linkAt) >> 2]!;
  }

  /** Lock held. Names the object behind a free one. */
  protected linkFree(p: number, next: number): void {
    this.m[(p + this.linkAt) >> 2] = next;
  }

  /** Lock held, freelist not empty. */
  private popObject(): number {
    const { m, pcs } = this;
    const p = m[pcs + FREELIST]!;
    m[pcs + FREELIST] = this.nextFree(p);
    return p;
  }

  /**
   * Lock held, and the freelist empty or of the wrong node: gets the CPU another slab. A new one may have to wait for
   * memory, which happens without the lock. Kernel: `___slab_alloc`.
   */
  private allocFrozen(gfp: number, node: number): number {
    const { slabs, desc, pcs, cpu } = this;
    this.count(ALLOC_SLOWPATH);
    let narrow = node !== NUMA_NO_NODE && (gfp & __GFP_THISNODE) === 0;
    for (;;) {
      const flags = narrow ? gfp | __GFP_THISNODE : gfp;
      if (slabs.refillFromCpu(desc, pcs, node) || slabs.freezePartial(desc, pcs, flags, node)) {
        return this.popObject();
      }
      this.unlockPcs();
      const page = slabs.newFrozenSlab(desc, flags, node === NUMA_NO_NODE ? cpu.node : node);
      // What made room for the pages may have used this cache, and have the lock and a slab by now.
      const locked = this.locked || this.trylockPcs();
      if (locked) this.holdForTurn();
      if (page !== 0 && locked && !slabs.isReserve(page)) {
        slabs.installNewSlab(desc, pcs, page);
        return this.popObject();
      }
      if (page !== 0) return slabs.allocFirst(desc, page);
      if (!narrow) return 0;
      if (!locked) return slabs.allocUnfrozen(desc, gfp, node);
      narrow = false;
    }
  }

  /** One by one, as the kernel of the time did it; all or nothing. */
  protected override allocAll(out: Int32Array, n: number, gfp: number): boolean {
    if (this.m[this.request]! < 0) this.cpu.serveRequests();
    let got = 0;
    try {
      while (got < n) {
        if (!this.locked && !this.lockForBulk()) {
          got += this.allocRest(out, got, n - got, gfp);
          break;
        }
        const p = this.allocLocked(gfp, NUMA_NO_NODE);
        if (p === 0) break;
        out[got++] = p;
      }
      if (got < n) this.freeListed(out, got);
    } finally {
      this.unlockAfterBulk();
    }
    if (got < n) return false;
    for (let i = 0; i < n; i++) this.handOut(out[i]!, gfp);
    return true;
  }

  /** Without the lock: from unfrozen slabs, in one batch. */
  private allocRest(out: Int32Array, at: number, n: number, gfp: number): number {
    const got = this.slabs.refillObjects(this.desc, out, at, n, n, gfp);
    this.count(ALLOC_SLOWPATH, got);
    return got;
  }

  protected override freeAll(list: Int32Array, n: number): void {
    if (this.m[this.request]! < 0) this.cpu.serveRequests();
    try {
      this.freeListed(list, n);
    } finally {
      this.unlockAfterBulk();
    }
  }

  /** Frees `list[0..n)`, whose marks are gone. */
  private freeListed(list: Int32Array, n: number): void {
    if (this.locked || this.lockForBulk()) this.slabs.freeObjectsFrozen(this.desc, this.pcs, list, 0, n);
    else this.slabs.freeObjectsSlow(this.desc, list, 0, n);
  }
}
