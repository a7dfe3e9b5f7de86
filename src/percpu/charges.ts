/**
 * Charges for areas, apart from taking and giving them back: an object that keeps its areas while it is free is charged for
 * them while it is allocated. Kernel: seed 001's `pcpu_charge` and `pcpu_uncharge`, over the `obj_exts` of a chunk.
 *
 * A chunk in which anything was ever charged has a vector with a word for each word of a unit: at an area's first is the
 * group that it is charged to, 0 for nobody. The first charge makes the vector, and it goes with its chunk. No lock is taken
 * here: while an area is allocated that word is its user's, and whoever takes the group out of it, at a free or before, gives
 * the bytes back.
 */
import type { Caches, GroupPtr } from '../cache/index.js';
import { __GFP_ACCOUNT, __GFP_NOFAIL, __GFP_NOWARN, __GFP_ZERO } from '../page/index.js';
import { WORD_BYTES, type Words } from '../struct/index.js';
import { cmpxchg, exchange, loadAcquire, storeRelease } from '../sync/index.js';
import { areaEnd } from './area.js';
import type { AreaSource } from './areaSource.js';
import { PcpuChunk, type PcpuChunkPtr, type PcpuView, WORD_SHIFT } from './layout.js';

const { objExts: OBJ_EXTS } = PcpuChunk;

export class PercpuCharges {
  private readonly source: AreaSource;
  private readonly caches: Caches;
  private readonly v: PcpuView;
  private readonly m: Words;

  constructor(source: AreaSource, caches: Caches) {
    this.source = source;
    this.caches = caches;
    this.v = source.v;
    this.m = caches.views.m;
  }

  charge(p: number, gfp: number): boolean {
    const { m } = this;
    const { accounting } = this.caches;
    const { chunk, start } = this.source.checkedArea(p);
    const group = accounting.current;
    if (group === 0) return true;
    const exts = this.vectorOf(chunk) || this.makeVector(chunk, gfp);
    if (exts === 0) return false;
    if (loadAcquire(m, exts + start) !== 0) return true;
    if (!accounting.charge(this.bytesOf(chunk, start))) return false;
    // Pairs with the exchange in uncharge, of whoever gets the object next.
    storeRelease(m, exts + start, group);
    return true;
  }

  uncharge(p: number): void {
    const { chunk, start } = this.source.checkedArea(p);
    const exts = this.vectorOf(chunk);
    if (exts === 0) return;
    // Pairs with the store in charge. Of two threads that free the area, wrongly, one gets the group.
    const group = exchange(this.m, exts + start, 0);
    if (group !== 0) this.caches.accounting.uncharge(group as GroupPtr, this.bytesOf(chunk, start));
  }

  /** Of all copies. Bounds of an area that is allocated do not change: no lock is needed to read them. */
  private bytesOf(chunk: PcpuChunkPtr, start: number): number {
    const { v } = this;
    return ((areaEnd(v, chunk, start) - start) << WORD_SHIFT) * v.geometry.cpus;
  }

  private vectorOf(chunk: PcpuChunkPtr): number {
    return loadAcquire(this.m, chunk + OBJ_EXTS);
  }

  /** Of two threads that make it the first one's stays. Never charged itself. Kernel: `alloc_slab_obj_exts`. */
  private makeVector(chunk: PcpuChunkPtr, gfp: number): number {
    const { v, caches } = this;
    const flags = (gfp & ~(__GFP_ACCOUNT | __GFP_NOFAIL)) | __GFP_ZERO | __GFP_NOWARN;
    const p = caches.kmallocs.allocOwn(v.unitBits * WORD_BYTES, flags);
    if (p === 0) return 0;
    const other = cmpxchg(this.m, chunk + OBJ_EXTS, 0, p / WORD_BYTES);
    if (other === 0) return p / WORD_BYTES;
    caches.kmallocs.free(p);
    return other;
  }
}
