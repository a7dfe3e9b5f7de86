/**
 * Prefilled sheaves: objects that a thread sets aside for later, when an allocation must not fail.
 *
 * The kernel waits for its own CPU's lock here. Ours can only be with another CPU that is draining this one, and then
 * there is no spare to be had: that counts as if there were none.
 */
import { Pcs, type PcsPtr, pcsOf, Stat } from '../cpu/index.js';
import { checkGfp, GFP_KERNEL } from '../page/index.js';
import {
  barnGetFullOrEmptySheaf,
  barnIsFull,
  barnOf,
  barnPutFullSheaf,
  linkPrefilled,
  PREFILL_MAX,
  prefilledSheaves,
  SHEAF_OBJECTS,
  Sheaf,
  type SheafPtr,
  unlinkPrefilled,
} from '../sheaf/index.js';
import { describe, requireInteger, SlabBugError } from '../struct/index.js';
import { Intent } from '../sync/index.js';
import { endedLoan, PrefilledSheaf, type PrefilledSheafClass } from './prefilledSheaf.js';
import { SlowKmemCache } from './slowPath.js';

const { spare: SPARE } = Pcs;
const { size: SIZE } = Sheaf;
const OBJECTS = SHEAF_OBJECTS;
const NONE = 0 as SheafPtr;

export abstract class PrefillKmemCache extends SlowKmemCache {
  /** What this thread has borrowed, the latest last. */
  private readonly lent: PrefilledSheaf[] = [];
  /** This thread's block, whose `prefilled` leads to them. */
  private readonly loans = pcsOf(this.cpu.geometry, this.cpu.thread, this.desc.slot);

  override prefill(n: number, gfp: number = GFP_KERNEL): PrefilledSheaf | null {
    requireInteger('n', n, 0, PREFILL_MAX);
    checkGfp(gfp);
    this.assertAlive();
    if (n === 0) return null;
    this.begin(Intent.PREFILL);
    try {
      return this.borrow(n, gfp) ?? this.noSheaf();
    } finally {
      this.finish();
    }
  }

  override refill(sheaf: PrefilledSheaf, n: number, gfp: number = GFP_KERNEL): PrefilledSheaf | null {
    this.assertLent(sheaf);
    requireInteger('n', n, 0, PREFILL_MAX);
    checkGfp(gfp);
    this.assertAlive();
    if (sheaf.size >= n) return sheaf;
    this.begin(Intent.REFILL);
    try {
      if (sheaf.capacity >= n) return this.topUp(sheaf, gfp) ? sheaf : this.noSheaf();
      const larger = this.borrow(n, gfp);
      if (larger !== null) this.takeBackSheaf(sheaf, gfp, 'was replaced by a larger one');
      return larger ?? this.noSheaf();
    } finally {
      this.finish();
    }
  }

  override return(sheaf: PrefilledSheaf, gfp: number = GFP_KERNEL): void {
    this.assertLent(sheaf);
    checkGfp(gfp);
    this.assertAlive();
    this.begin(Intent.RETURN);
    try {
      this.takeBackSheaf(sheaf, gfp, 'was returned');
    } finally {
      this.finish();
    }
  }

  override flushPrefilled(loans: PcsPtr): void {
    const { m, shadow } = this;
    for (const sheaf of prefilledSheaves(m, loans)) {
      const end = sheaf + OBJECTS + m[sheaf + SIZE]!;
      if (this.checked) for (let at = sheaf + OBJECTS; at < end; at++) shadow[m[at]! >> 3] = 0; // B4
      this.discard(sheaf, loans);
    }
  }

  override endLoans(isLive: boolean): void {
    for (const sheaf of this.lent) sheaf.end(`went back when CPU ${this.cpu.id} went offline`);
    this.lent.length = 0;
    if (isLive) this.flushPrefilled(this.loans);
  }

  private begin(intent: number): void {
    this.cpu.enter(intent, this.desc.slot);
    if (this.m[this.request]! < 0) this.cpu.serveRequests();
  }

  private finish(): void {
    if (this.context.policy === 'op') this.release();
    this.cpu.leave();
  }

  /** Out of memory, or a constructor failed: throws if that was by throwing. */
  private noSheaf(): null {
    this.noObject();
    return null;
  }

  /** The class of what prefill returns. */
  protected sheafClass(): PrefilledSheafClass {
    return this.context.prefilledSheaf;
  }

  private borrow(n: number, gfp: number): PrefilledSheaf | null {
    const sheaf = n > this.sheafCapacity ? this.borrowOversize(n, gfp) : this.borrowFilled(n, gfp);
    if (sheaf === 0) return null;
    const handle = new (this.sheafClass())(this, sheaf);
    this.lent.push(handle);
    return handle;
  }

  /** The spare, else what the barn has, else a new sheaf; full, unless it had `n` objects as it was. */
  private borrowFilled(n: number, gfp: number): SheafPtr {
    const { m } = this;
    let sheaf = this.takeSheaf();
    if (sheaf !== 0 && m[sheaf + SIZE]! >= n) return sheaf;
    // What follows may have to wait for memory.
    this.releaseEarly();
    if (sheaf === 0) sheaf = this.newSheaf(this.sheafCapacity, gfp);
    if (sheaf === 0 || this.refillSheaf(sheaf, gfp)) return sheaf;
    this.discard(sheaf);
    return NONE;
  }

  /** A sheaf that the CPU or the barn can do without, empty or not; 0 if there is none. */
  private takeSheaf(): SheafPtr {
    const { m, pcs, cpu, desc } = this;
    const spare = this.lockForTurn() ? (m[pcs + SPARE] as SheafPtr) : NONE;
    if (spare !== 0) {
      cpu.inHand(spare);
      m[pcs + SPARE] = 0;
      this.link(spare, this.sheafCapacity);
      this.count(Stat.SHEAF_PREFILL_FAST);
      return spare;
    }
    this.count(Stat.SHEAF_PREFILL_SLOW);
    const sheaf = barnGetFullOrEmptySheaf(cpu, barnOf(cpu, desc, cpu.node));
    if (sheaf !== 0) this.link(sheaf, this.sheafCapacity);
    this.count(sheaf !== 0 && m[sheaf + SIZE]! > 0 ? Stat.BARN_GET : Stat.BARN_GET_FAIL);
    return sheaf;
  }

  /** More than a sheaf of this cache holds: one of that size, for this once. */
  private borrowOversize(n: number, gfp: number): SheafPtr {
    this.releaseEarly();
    const sheaf = this.newSheaf(n, gfp);
    if (sheaf === 0) return sheaf;
    this.count(Stat.SHEAF_PREFILL_OVERSIZE);
    if (this.fillExactly(sheaf, n, gfp)) return sheaf;
    this.discard(sheaf);
    return NONE;
  }

  private newSheaf(capacity: number, gfp: number): SheafPtr {
    const sheaf = this.sheaves.allocEmptySheaf(this.desc, capacity, gfp);
    if (sheaf !== 0) this.link(sheaf, capacity);
    return sheaf;
  }

  private link(sheaf: SheafPtr, capacity: number): void {
    linkPrefilled(this.m, this.loans, sheaf, capacity);
    this.cpu.inHand(0);
  }

  private unlink(sheaf: SheafPtr, pcs: PcsPtr): void {
    this.cpu.inHand(sheaf);
    unlinkPrefilled(this.m, pcs, sheaf);
  }

  /** Adds `n` objects, or none and returns false. Kernel: `__kmem_cache_alloc_bulk`. */
  private fillExactly(sheaf: SheafPtr, n: number, gfp: number): boolean {
    const { m, desc, slabs } = this;
    const size = m[sheaf + SIZE]!;
    const top = sheaf + OBJECTS + size;
    const got = slabs.refillObjects(desc, m, top, n, n, gfp);
    if (got < n) {
      slabs.freeObjects(desc, m, top, got);
      return false;
    }
    m[sheaf + SIZE] = size + n;
    this.count(Stat.ALLOC_SLOWPATH, n);
    return true;
  }

  /** Fills a borrowed sheaf to its capacity, or leaves it as it is and returns false. */
  private topUp(handle: PrefilledSheaf, gfp: number): boolean {
    const { m, desc, slabs } = this;
    const { at: sheaf, size, capacity } = handle;
    this.releaseEarly();
    if (capacity !== this.sheafCapacity) return this.fillExactly(sheaf, capacity - size, gfp);
    if (this.refillSheaf(sheaf, gfp)) return true;
    const got = m[sheaf + SIZE]! - size;
    m[sheaf + SIZE] = size;
    slabs.freeObjects(desc, m, sheaf + OBJECTS + size, got);
    this.count(Stat.SHEAF_FLUSH, got);
    return false;
  }

  private takeBackSheaf(handle: PrefilledSheaf, gfp: number, why: string): void {
    const { at: sheaf, size, capacity } = handle;
    handle.end(why);
    if (this.lent.at(-1) === handle) this.lent.pop();
    else this.lent.splice(this.lent.lastIndexOf(handle), 1);
    if (capacity !== this.sheafCapacity) {
      this.releaseEarly();
      this.discard(sheaf);
    } else if (!this.becomesSpare(sheaf)) {
      this.returnToBarn(sheaf, size, gfp);
    }
  }

  private becomesSpare(sheaf: SheafPtr): boolean {
    const { m, pcs, cpu } = this;
    if (!this.lockForTurn() || m[pcs + SPARE] !== 0) return false;
    this.unlink(sheaf, this.loans);
    m[pcs + SPARE] = sheaf;
    cpu.inHand(0);
    this.count(Stat.SHEAF_RETURN_FAST);
    return true;
  }

  /** Full if memory allows and the barn wants it, else its objects go back to their slabs. */
  private returnToBarn(sheaf: SheafPtr, size: number, gfp: number): void {
    const { cpu, desc } = this;
    const barn = barnOf(cpu, desc, cpu.node);
    this.count(Stat.SHEAF_RETURN_SLOW);
    if (size < this.sheafCapacity) this.releaseEarly();
    if (barnIsFull(cpu, barn) || (size < this.sheafCapacity && !this.refillSheaf(sheaf, gfp))) {
      this.discard(sheaf);
      return;
    }
    this.unlink(sheaf, this.loans);
    barnPutFullSheaf(cpu, barn, sheaf);
    cpu.inHand(0);
    this.count(Stat.BARN_PUT);
  }

  /** Gives the objects of a borrowed sheaf back to their slabs, and its memory to kmalloc. */
  private discard(sheaf: SheafPtr, loans: PcsPtr = this.loans): void {
    this.unlink(sheaf, loans);
    this.flushSheaf(sheaf);
    this.cpu.inHand(0);
    this.sheaves.freeEmptySheaf(this.desc, sheaf);
  }

  /** Throws unless this thread has borrowed `sheaf` from this cache and not given it back; reads only. */
  private assertLent(sheaf: PrefilledSheaf): void {
    if (this.lent.lastIndexOf(sheaf) >= 0) return;
    if (!(sheaf instanceof PrefilledSheaf) || sheaf.cache === undefined) {
      throw new TypeError(`sheaf is ${describe(sheaf)}; it must be what prefill of ${this.name} returned`);
    }
    if (sheaf.ended !== '') throw endedLoan(sheaf);
    throw new SlabBugError('bad-sheaf', this.name, 0, `Prefilled sheaf ${this.whoseIs(sheaf)}`);
  }

  private whoseIs({ cache: owner }: PrefilledSheaf): string {
    const theirs = owner as PrefillKmemCache;
    if (theirs.m.buffer !== this.m.buffer) return `is of cache ${owner.name} in another arena`;
    if (theirs.desc.ptr !== this.desc.ptr) return `is of cache ${owner.name}`;
    return `was borrowed by CPU ${theirs.cpu.id}; this is CPU ${this.cpu.id}`;
  }
}
