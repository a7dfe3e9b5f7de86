/** Validation of one debug cache, slab by slab under list_lock, while others go on. Kernel: `validate_slab_cache`. */
import type { Caches } from '../cache/index.js';
import { Page, type PagePtr } from '../page/index.js';
import {
  type CacheDesc,
  KmemCacheNode,
  type KmemCacheNodePtr,
  listLock,
  nodeOf,
  SLAB_STORE_USER,
} from '../slab/index.js';
import { LockClass } from '../sync/index.js';

/** Returns how many slabs were looked at: full ones only where the cache keeps a list of them. */
export function validateSlabCache(caches: Caches, s: CacheDesc): number {
  let slabs = 0;
  for (let node = 0; node < s.nodes; node++) slabs += validateNode(caches, s, node);
  return slabs;
}

function validateNode(caches: Caches, s: CacheDesc, node: number): number {
  const { locks } = caches.cpu;
  const n = nodeOf(caches.views.m, s, node);
  locks.lock(listLock(n), LockClass.ListLock);
  try {
    const slabs = validateLists(caches, s, n);
    placeRepaired(caches, s, n);
    return slabs;
  } finally {
    locks.unlock(listLock(n), LockClass.ListLock);
  }
}

/** list_lock held. */
function validateLists(caches: Caches, s: CacheDesc, n: KmemCacheNodePtr): number {
  const { m } = caches.views;
  const partial = validateList(caches, s, m[n + KmemCacheNode.head] as PagePtr);
  expectCount(caches, s, partial, m[n + KmemCacheNode.nrPartial]!, 'partial slabs');
  if ((s.flags & SLAB_STORE_USER) === 0) return partial;
  const all = partial + validateList(caches, s, m[n + KmemCacheNode.full] as PagePtr);
  expectCount(caches, s, all, m[n + KmemCacheNode.nrSlabs]! - m[n + KmemCacheNode.disabled]!, 'slabs');
  return all;
}

/** list_lock held; the lists have been counted. */
function placeRepaired({ slabs, views }: Caches, s: CacheDesc, n: KmemCacheNodePtr): void {
  const { m } = views;
  for (let page = m[n + KmemCacheNode.head] as PagePtr, next = page; page !== 0; page = next) {
    next = m[page + Page.next] as PagePtr;
    slabs.placeRepaired(s, n, page);
  }
}

function validateList(caches: Caches, s: CacheDesc, first: PagePtr): number {
  const { m } = caches.views;
  let slabs = 0;
  for (let page = first; page !== 0; page = m[page + Page.next] as PagePtr) {
    caches.slabs.checks.validateSlab(s, page);
    slabs++;
  }
  return slabs;
}

function expectCount({ slabs }: Caches, s: CacheDesc, counted: number, said: number, what: string): void {
  if (counted === said) return;
  const page = 0 as PagePtr;
  slabs.checks.sink.bug(s, { what: `${counted} ${what} counted but counter=${said}`, page, object: 0 });
}
