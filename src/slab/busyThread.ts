/** Who runs constructors or destructors of a cache now, as another thread sees it, which would end the cache. */
import { type ThisCpu, ThreadRecord, type ThreadRecordPtr, threadRecordOf } from '../cpu/index.js';
import { Page } from '../page/index.js';
import type { Words } from '../struct/index.js';
import { loadAcquire, storeRelease } from '../sync/index.js';
import type { KmemCachePtr } from './kmemCache.js';

const { cache: CACHE, next: NEXT } = Page;
const {
  constructing: CONSTRUCTING,
  constructions: CONSTRUCTIONS,
  destructingOf: DESTRUCTING_OF,
} = ThreadRecord;
/** Of one cache only one slab is constructed at a time, and there are fewer caches. */
const NESTED_MAX = 256;
const WALKS_MAX = 4;

/** The slab that a thread constructs now, linked to those whose constructors needed it; 0 when it is done with all. */
export function setConstructing(m: Words, record: ThreadRecordPtr, page: number): void {
  // Pairs with constructs: who walks the slabs sees that they have changed since he began.
  storeRelease(m, record + CONSTRUCTIONS, (m[record + CONSTRUCTIONS]! + 1) | 0);
  storeRelease(m, record + CONSTRUCTING, page);
}

/** The thread slot that runs callbacks of a cache, or -1; that of `cpu` does not count. */
export function busyThread({ m, geometry, thread }: ThisCpu, cache: KmemCachePtr): number {
  for (let id = 0; id < geometry.threads; id++) {
    if (id === thread) continue;
    const record = threadRecordOf(geometry, id);
    if (loadAcquire(m, record + DESTRUCTING_OF) === cache || constructs(m, record, cache)) return id;
  }
  return -1;
}

/** Whether a slab of the cache is among those that a thread constructs, one within the other; it goes on meanwhile. */
function constructs(m: Words, record: ThreadRecordPtr, cache: KmemCachePtr): boolean {
  for (let walks = 0; walks < WALKS_MAX; walks++) {
    const before = loadAcquire(m, record + CONSTRUCTIONS);
    let page = loadAcquire(m, record + CONSTRUCTING);
    // A link holds only if nothing has changed in the end: it may lead anywhere, and round and round.
    for (let steps = 0; page !== 0 && steps < NESTED_MAX; steps++) {
      if (m[page + CACHE] === cache) break;
      page = loadAcquire(m, page + NEXT);
    }
    if (loadAcquire(m, record + CONSTRUCTIONS) === before) return page !== 0;
  }
  return true; // it constructs one slab after the other: to be asked again
}
