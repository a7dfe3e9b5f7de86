/**
 * Freeing what was taken out of the lists of kfree_rcu (kfreeRcuLists.ts, K2): those of one cache that follow one another
 * go in one call. `to` moves before such a run and `from` after it, so that between them lies what a thread that
 * dies may have freed, whatever else its record says: it may have died in an operation that a free led to, or in none.
 */
import { KfreeRcuCpu, type KfreeRcuCpuPtr } from '../../rcu/index.js';
import type { Words } from '../../struct/index.js';
import type { Caches } from '../caches.js';
import type { KmemCache } from '../kmemCache.js';

const { from: FROM, to: TO, end: END, batch: BATCH } = KfreeRcuCpu;

export class KfreeRcuBatch {
  private readonly caches: Caches;
  private readonly m: Words;

  constructor(caches: Caches) {
    this.caches = caches;
    this.m = caches.views.m;
  }

  /** Makes an object all that a thread has in its batch, which is empty. */
  putOne(krcp: KfreeRcuCpuPtr, p: number): void {
    const { m } = this;
    m[krcp + END] = 0; // first: what was in it stays as it is, and is not to be had again
    m[krcp + FROM] = 0;
    m[krcp + TO] = 0;
    m[krcp + BATCH] = p;
    m[krcp + END] = 1;
  }

  /** Frees what is in the batch: this thread's, or that of one that is gone. */
  free(krcp: KfreeRcuCpuPtr): void {
    const { m } = this;
    const batch = m.subarray(krcp + BATCH, krcp + BATCH + m[krcp + END]!);
    const { kmallocs } = this.caches;
    try {
      for (let i = m[krcp + FROM]!; i < batch.length; i++) batch[i] = kmallocs.objectAt(batch[i]!);
      while (m[krcp + FROM]! < batch.length) this.freeRun(krcp, batch, m[krcp + FROM]!);
    } finally {
      m[krcp + FROM] = batch.length; // after an error nobody goes on with it
    }
  }

  private freeRun(krcp: KfreeRcuCpuPtr, batch: Int32Array, from: number): void {
    const { m } = this;
    const { kmallocs } = this.caches;
    const cache = kmallocs.cacheOf(batch[from]!);
    const to = this.endOfRun(batch, from, cache);
    m[krcp + TO] = to;
    if (cache === undefined) kmallocs.freeAfterGracePeriod(batch[from]!);
    else if (to === from + 1) cache.freeAfterGracePeriod(batch[from]!);
    else cache.freeBulkAfterGracePeriod(batch.subarray(from, to), to - from);
    m[krcp + FROM] = to;
  }

  /** Where those end that are freed in one operation with the first. */
  private endOfRun(batch: Int32Array, from: number, cache: KmemCache | undefined): number {
    let to = from + 1;
    if (cache === undefined || cache.freesSingly) return to;
    while (to < batch.length && this.caches.kmallocs.cacheOf(batch[to]!) === cache) to++;
    return to;
  }

  /**
   * Passes by what a thread that is gone may have freed: its run, which cannot be looked up again, since its slab may
   * have been given back. Returns what may be lost with it, in words.
   */
  skipRun(dead: KfreeRcuCpuPtr): string[] {
    const { m } = this;
    const from = m[dead + FROM]!;
    const to = m[dead + TO]!;
    if (from >= to || from >= m[dead + END]!) return [];
    const name = this.caches.kmallocs.cacheOf(m[dead + BATCH + from]!)?.name ?? 'kmalloc';
    m[dead + FROM] = to;
    return [`${to - from} objects of ${name} that kfree_rcu was freeing may be lost`];
  }
}
