/** What a cache does to an object as it leaves and comes back: its mark in the shadow, its contents if asked. */
import { __GFP_ZERO, Page } from '../page/index.js';
import { PcsNolock } from '../sheaf/index.js';
import { SLAB_CTOR, SLAB_KEEPS_STATE } from '../slab/index.js';
import type { Bytes, Doubles } from '../struct/index.js';
import { cmpxchgByte } from '../sync/index.js';
import { badFree } from './checkFree.js';
import type { CacheContext } from './context.js';
import { RESERVE_MARK } from './registry.js';

/** Up to here a loop is done before the engine's fill has begun. */
const LOOP_BYTES_MAX = 512;

export abstract class ObjectMarks extends PcsNolock {
  protected readonly context: CacheContext;
  protected readonly shadow: Bytes;
  protected readonly checked: boolean;
  private readonly exact: boolean;
  private readonly f64: Doubles;

  constructor(context: CacheContext, slot: number) {
    super(context.cpu, context.slabs, context, context.describe(slot));
    this.context = context;
    this.shadow = context.views.shadow;
    this.f64 = context.views.f64;
    this.checked = context.check !== 'none';
    this.exact = context.check === 'full';
  }

  /**
   * What the shadow says of an allocated object. Those of the reserve have a mark of their own, which no fast path
   * knows: it misses, and what it calls looks at the slab.
   */
  protected markOf(p: number): number {
    return this.slabs.isOfReserve(p) ? RESERVE_MARK : this.tag;
  }

  /** Whether the mark is that of an allocated object of this cache at `p`. */
  private isOurMark(mark: number, p: number): boolean {
    if (mark === this.tag) return true;
    return mark === RESERVE_MARK && this.m[this.slabs.slabOf(p) + Page.cache] === this.desc.ptr;
  }

  abstract free(p: number): void;
  abstract freeBulk(list: Int32Array, n: number): void;

  /** Marks an object as allocated and zeroes it if asked; 0 passes through. */
  protected handOut(p: number, gfp: number): number {
    if (p === 0) return this.noObject();
    // Only who reclaims gets an object of the reserve.
    if (this.checked) this.shadow[p >> 3] = this.slabs.pages.memalloc ? this.markOf(p) : this.tag;
    if ((gfp & __GFP_ZERO) !== 0) this.zero(p);
    return p;
  }

  /** There is no object to hand out. Throws if that is because a constructor threw; else it is as out of memory: 0. */
  protected noObject(): 0 {
    const { failure } = this.slabs.callbacks;
    if (failure?.cause !== undefined && failure.cache === this.desc.name) {
      this.slabs.callbacks.failure = undefined;
      throw failure;
    }
    return 0;
  }

  /** Zeroes an object that was handed out just now; one that is constructed goes back, with a RangeError. @internal */
  zero(p: number): void {
    if ((this.desc.flags & SLAB_KEEPS_STATE) !== 0) {
      this.free(p);
      throw this.refusesZero();
    }
    const { f64 } = this;
    // Unsigned: the end of the last object of a 2 GiB arena needs the sign bit.
    const end = (p + this.desc.inuse) >>> 3;
    if (this.desc.inuse > LOOP_BYTES_MAX) f64.fill(0, p >> 3, end);
    else for (let at = p >> 3; at < end; at++) f64[at] = 0;
  }

  /** The same for `list[0..n)`. */
  protected zeroAll(list: Int32Array, n: number): void {
    if ((this.desc.flags & SLAB_KEEPS_STATE) !== 0) {
      this.freeBulk(list, n);
      throw this.refusesZero();
    }
    for (let i = 0; i < n; i++) this.zero(list[i]!);
  }

  /** Throws before anything is done for a bulk call that must not zero. */
  protected checkZero(gfp: number): void {
    if ((gfp & __GFP_ZERO) !== 0 && (this.desc.flags & SLAB_KEEPS_STATE) !== 0) throw this.refusesZero();
  }

  private refusesZero(): RangeError {
    const { name, flags } = this.desc;
    const why = (flags & SLAB_CTOR) !== 0 ? 'constructor, whose work' : 'destructor, whose part of an object';
    return new RangeError(`gfp has __GFP_ZERO; cache ${name} has a ${why} zeroing would undo`);
  }

  /** Throws the report of what is wrong with an address that is not an allocated object; reads only. */
  protected assertFreeable(p: number): void {
    if (this.checked && !this.isMarked(p)) throw badFree(this.context, this.desc, p);
  }

  private isMarked(p: number): boolean {
    const { shadow } = this;
    const inside = p === (p | 0) && (p & 7) === 0 && p > 0 && p >> 3 < shadow.length;
    return inside && this.isOurMark(shadow[p >> 3]!, p);
  }

  /** Marks an object as free, or throws the report of what is wrong with the address. */
  protected takeBack(p: number): void {
    if (!this.checked) return;
    const { shadow } = this;
    // An address is its own 32-bit integer: what is not, the shift would fold onto somebody's object.
    const i = typeof p === 'number' && p === (p | 0) && (p & 7) === 0 ? p >> 3 : 0;
    const mark = i > 0 && i < shadow.length ? shadow[i]! : 0;
    if (this.isOurMark(mark, p)) {
      // 'full': of two threads that free the same object at once, exactly one wins.
      if (this.exact ? cmpxchgByte(shadow, i, mark, 0) === mark : this.clearMark(i)) return;
    }
    throw badFree(this.context, this.desc, p);
  }

  private clearMark(i: number): true {
    this.shadow[i] = 0;
    return true;
  }
}
