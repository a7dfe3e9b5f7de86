/** Many objects in one call, when the fast path of one sheaf does not serve. */
import { Pcs, Stat, TrylockStat } from '../cpu/index.js';
import { __GFP_NOFAIL, checkGfp, GFP_KERNEL } from '../page/index.js';
import { GOT_ROOM, SHEAF_OBJECTS, Sheaf } from '../sheaf/index.js';
import { describe, requireInteger } from '../struct/index.js';
import { Intent } from '../sync/index.js';
import { PrefillKmemCache } from './prefill.js';

const { size: SIZE } = Sheaf;

function requireList(name: string, list: unknown, n: number): void {
  if (!(list instanceof Int32Array)) {
    throw new TypeError(`${name} is ${describe(list)}; it must be an Int32Array of addresses`);
  }
  requireInteger('n', n, 0, 0x7fffffff);
  if (list.length < n) {
    throw new RangeError(`${name} has ${list.length} elements; it must have at least n = ${n}`);
  }
}

/**
 * Under the 'op' policy this is the whole cache: each operation takes the lock and gives it back. The fast paths of the
 * 'turn' policy override the four operations.
 */
export class BulkKmemCache extends PrefillKmemCache {
  override alloc(gfp: number = GFP_KERNEL): number {
    return this.allocOp(gfp);
  }

  override free(p: number): void {
    this.freeOp(p);
  }

  override allocBulk(out: Int32Array, n: number, gfp: number = GFP_KERNEL): boolean {
    return this.allocBulkSlow(out, n, gfp);
  }

  override freeBulk(list: Int32Array, n: number): void {
    this.freeBulkSlow(list, n);
  }

  /** Under 'op' the operation that took the lock gives it back. */
  protected override holdForTurn(): void {
    if (this.context.policy === 'turn') super.holdForTurn();
  }

  /** Kernel: `kmem_cache_alloc_bulk`. Sheaves first, then one batch from the slabs; all or nothing. */
  protected allocBulkSlow(out: Int32Array, n: number, gfp: number): boolean {
    this.assertAlive();
    requireList('out', out, n);
    checkGfp(gfp);
    this.checkZero(gfp);
    if (n === 0) return false;
    this.cpu.enter(Intent.BULK_ALLOC, this.desc.slot);
    try {
      return this.allocAll(out, n, gfp) || this.noObject() !== 0;
    } finally {
      this.cpu.leave();
    }
  }

  protected allocAll(out: Int32Array, n: number, gfp: number): boolean {
    if (this.m[this.request]! < 0) this.cpu.serveRequests();
    const popped = this.popBulk(out, n);
    if (popped < n) {
      const rest = n - popped;
      let refilled = this.slabs.refillObjects(this.desc, out, popped, rest, rest, gfp);
      if (refilled < rest && (gfp & __GFP_NOFAIL) !== 0) {
        refilled += this.insistOnRest(out, popped, refilled, n, gfp);
      }
      if (refilled < rest) {
        this.undoBulk(out, popped, refilled);
        return false;
      }
      this.count(Stat.ALLOC_SLOWPATH, rest);
    }
    for (let i = 0; i < n; i++) this.handOut(out[i]!, gfp);
    return true;
  }

  /** Waits for the rest of `out[0..n)`, for __GFP_NOFAIL. When it throws, everything has gone back. Returns how many came. */
  private insistOnRest(out: Int32Array, popped: number, refilled: number, n: number, gfp: number): number {
    const before = popped + refilled;
    let have = before;
    const fill = (): number => {
      have += this.slabs.refillObjects(this.desc, out, have, n - have, n - have, gfp);
      return have === n ? 1 : this.noObject();
    };
    try {
      this.slabs.pages.insist(fill, `${n} objects of ${this.name}`);
    } catch (error) {
      this.undoBulk(out, popped, have - popped);
      throw error;
    }
    return n - before;
  }

  /** Out of memory: `popped` objects out of what is cached and `refilled` out of slabs go back. */
  protected undoBulk(out: Int32Array, popped: number, refilled: number): void {
    this.slabs.freeObjects(this.desc, out, 0, popped + refilled);
  }

  /** Takes what main, spare and the barn have, up to `n`; nothing is refilled here. */
  private popBulk(out: Int32Array, n: number): number {
    const { m } = this;
    if (!this.lockForBulk() && !this.passBy(TrylockStat.allocBypasses, n)) return 0;
    let got = 0;
    try {
      while (got < n) {
        const size = m[this.main + SIZE]!;
        if (size === 0) {
          if (!this.getFullMain()) break;
          continue;
        }
        const batch = Math.min(size, n - got);
        const first = this.main + SHEAF_OBJECTS + size - batch;
        for (let i = 0; i < batch; i++) out[got + i] = m[first + i]!;
        m[this.main + SIZE] = size - batch;
        this.rebase(size - batch);
        this.count(this.counters.alloc, batch);
        got += batch;
      }
    } finally {
      this.unlockAfterBulk();
    }
    return got;
  }

  /** Kernel: `kmem_cache_free_bulk`. Into the sheaves while there is room, the rest slab by slab. */
  protected freeBulkSlow(list: Int32Array, n: number): void {
    this.assertAlive();
    requireList('list', list, n);
    this.cpu.enter(Intent.BULK_FREE, this.desc.slot);
    try {
      this.takeBackAll(list, n);
      this.freeAll(list, n);
    } finally {
      this.cpu.leave();
    }
  }

  /** Puts marks back after a bulk free met a bad address. */
  private takeBackAll(list: Int32Array, n: number): void {
    let i = 0;
    try {
      for (; i < n; i++) this.takeBack(list[i]!);
    } catch (error) {
      while (--i >= 0) this.shadow[list[i]! >> 3] = this.markOf(list[i]!);
      throw error;
    }
  }

  protected freeAll(list: Int32Array, n: number): void {
    if (this.m[this.request]! < 0) this.cpu.serveRequests();
    const remote = this.remoteToFront(list, n);
    const pushed = this.pushBulk(list, remote, n);
    if (remote > 0) this.slabs.freeObjectsSlow(this.desc, list, 0, remote);
    if (pushed < n) this.slabs.freeObjectsSlow(this.desc, list, pushed, n - pushed);
  }

  /**
   * Objects of other nodes and of the reserve never enter a sheaf: they go to the front of the list. Returns how many
   * there are.
   */
  private remoteToFront(list: Int32Array, n: number): number {
    let remote = 0;
    if (this.desc.nodes === 1 && !this.slabs.hasReserve) return remote;
    for (let i = 0; i < n; i++) {
      const p = list[i]!;
      if (this.isLocal(p)) continue;
      list[i] = list[remote]!;
      list[remote++] = p;
    }
    return remote;
  }

  /** Pushes `list[from..n)`; returns the index of the first that found no room. */
  protected pushBulk(list: Int32Array, from: number, n: number): number {
    const { m } = this;
    if (from === n) return from;
    if (!this.lockForBulk() && !this.passBy(TrylockStat.freeBypasses, n - from)) return from;
    let at = from;
    try {
      while (at < n) {
        const size = m[this.main + SIZE]!;
        const batch = Math.min(this.capacity - size, n - at);
        if (batch === 0) {
          if (!this.makeRoom()) break;
          continue;
        }
        const top = this.main + SHEAF_OBJECTS + size;
        for (let i = 0; i < batch; i++) m[top + i] = list[at + i]!;
        m[this.main + SIZE] = size + batch;
        this.rebase(size + batch);
        this.count(this.counters.free, batch);
        at += batch;
      }
    } finally {
      this.unlockAfterBulk();
    }
    return at;
  }

  private makeRoom(): boolean {
    if (this.capacity === 0) return false;
    if (this.getEmptyMain() === GOT_ROOM) return true;
    // Without a spare nothing was offered to the barn: there was no empty sheaf to become main.
    if (this.m[this.pcs + Pcs.spare] !== 0) this.count(Stat.BARN_PUT_FAIL);
    return false;
  }

  protected lockForBulk(): boolean {
    if (this.context.policy === 'turn') return this.lockForTurn();
    return this.trylockPcs();
  }

  protected unlockAfterBulk(): void {
    if (this.context.policy === 'op') this.release();
  }
}
