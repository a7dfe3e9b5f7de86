/** Many objects in one call, when the fast path of one sheaf does not serve. */
import { Pcs, Stat } from '../cpu/index.js';
import { __GFP_NOFAIL, checkGfp } from '../page/index.js';
import { GOT_ROOM, SHEAF_OBJECTS, Sheaf } from '../sheaf/index.js';
import { describe, requireInteger } from '../struct/index.js';
import { Intent } from '../sync/index.js';
import { KmemCache } from './kmemCache.js';

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

export abstract class BulkKmemCache extends KmemCache {
  /** Kernel: `kmem_cache_alloc_bulk`. Sheaves first, then one batch from the slabs; all or nothing. */
  protected allocBulkSlow(out: Int32Array, n: number, gfp: number): boolean {
    this.assertAlive();
    requireList('out', out, n);
    checkGfp(gfp);
    if (n === 0) return false;
    this.cpu.enter(Intent.BULK_ALLOC, this.desc.slot);
    try {
      return this.allocAll(out, n, gfp);
    } finally {
      this.cpu.leave();
    }
  }

  private allocAll(out: Int32Array, n: number, gfp: number): boolean {
    if (this.m[this.request]! < 0) this.cpu.serveRequests();
    let got = this.popBulk(out, n);
    if (got < n) {
      const rest = n - got;
      const refilled = this.slabs.refillObjects(this.desc, out, got, rest, rest, gfp);
      got += refilled;
      if (got < n && (gfp & __GFP_NOFAIL) !== 0) got += this.insistOnRest(out, got, n, gfp);
      if (got < n) {
        this.slabs.freeObjects(this.desc, out, 0, got);
        return false;
      }
      this.count(Stat.ALLOC_SLOWPATH, rest);
    }
    for (let i = 0; i < n; i++) this.handOut(out[i]!, gfp);
    return true;
  }

  /** Waits for `out[got..n)`, for __GFP_NOFAIL. When it throws, everything has gone back. Returns n - got. */
  private insistOnRest(out: Int32Array, got: number, n: number, gfp: number): number {
    let have = got;
    const fill = (): number => {
      have += this.slabs.refillObjects(this.desc, out, have, n - have, n - have, gfp);
      return have === n ? 1 : 0;
    };
    try {
      this.slabs.pages.insist(fill, `${n} objects of ${this.name}`);
    } catch (error) {
      this.slabs.freeObjects(this.desc, out, 0, have);
      throw error;
    }
    return n - got;
  }

  /** Takes what main, spare and the barn have, up to `n`; nothing is refilled here. */
  private popBulk(out: Int32Array, n: number): number {
    const { m } = this;
    if (!this.lockForBulk()) return 0;
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
        this.count(Stat.ALLOC_FASTPATH, batch);
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

  private freeAll(list: Int32Array, n: number): void {
    if (this.m[this.request]! < 0) this.cpu.serveRequests();
    const remote = this.desc.nodes === 1 ? 0 : this.remoteToFront(list, n);
    const pushed = this.pushBulk(list, remote, n);
    if (remote > 0) this.slabs.freeObjectsSlow(this.desc, list, 0, remote);
    if (pushed < n) this.slabs.freeObjectsSlow(this.desc, list, pushed, n - pushed);
  }

  /** Objects of other nodes never enter a sheaf: they go to the front of the list. Returns how many there are. */
  private remoteToFront(list: Int32Array, n: number): number {
    let remote = 0;
    for (let i = 0; i < n; i++) {
      const p = list[i]!;
      if (this.isLocal(p)) continue;
      list[i] = list[remote]!;
      list[remote++] = p;
    }
    return remote;
  }

  /** Pushes `list[from..n)`; returns the index of the first that found no room. */
  private pushBulk(list: Int32Array, from: number, n: number): number {
    const { m } = this;
    if (from === n || !this.lockForBulk()) return from;
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
        this.count(Stat.FREE_FASTPATH, batch);
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

  private lockForBulk(): boolean {
    if (this.context.policy === 'turn') return this.lockForTurn();
    return this.trylockPcs();
  }

  private unlockAfterBulk(): void {
    if (this.context.policy === 'op') this.release();
  }
}
