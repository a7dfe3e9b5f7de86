/**
 * Making the first caches. Caches are objects of the cache `kmem_cache`, whose node structs are objects of
 * `kmem_cache_node`, and sheaves are kmalloc'ed. So, in the kernel's order:
 *
 *  1. two static structs in the superblock's pages stand for kmem_cache and kmem_cache_node; each kmem_cache_node of the
 *     latter is carved by hand out of a slab of its own
 *  2. both structs move into objects of kmem_cache, and their slabs are told
 *  3. the kmalloc caches are made, without sheaves
 *  4. kmalloc works; its caches get barns and sheaves from it
 */
import { __GFP_THISNODE, GFP_NOWAIT, Page, type PagePtr } from '../page/index.js';
import {
  addPartialHead,
  BOOT_REFCOUNT,
  calculateSizes,
  KmemCacheNode,
  type KmemCachePtr,
  KmemCacheStruct,
  kmemCacheBytes,
  nodeOf,
  nodeSlot,
  packSlabWord,
  readCacheDesc,
  SLAB_NO_SHEAVES,
} from '../slab/index.js';
import { PAGE_SIZE, WORD_BYTES } from '../struct/index.js';
import type { Caches } from './caches.js';
import { createInSlot, initKmemCache, LAYER_SETUP } from './create.js';
import { type CachePlan, planKmalloc } from './debug/debugPlan.js';
import { KMALLOC_SIZES, kmallocFamilies, kmallocSizeName } from './kmalloc/kmallocTypes.js';
import { withArray } from './options.js';
import { nextSerial, publishSlot } from './registry.js';

export const KMEM_CACHE_NODE_SLOT = 0;
export const KMEM_CACHE_SLOT = 1;
export const FIRST_KMALLOC_SLOT = 2;

/** Words for the two static structs. */
export const bootCacheWords = (nodes: number): number => (2 * kmemCacheBytes(nodes)) / WORD_BYTES;

/** Boots the caches of a new arena; its zones are ready. Throws when it has too few pages. */
export function bootstrap(caches: Caches): void {
  const { geometry } = caches;
  const first = geometry.bootCaches as KmemCachePtr;
  const second = (geometry.bootCaches + kmemCacheBytes(geometry.nodes) / WORD_BYTES) as KmemCachePtr;
  staticCache(caches, first, KMEM_CACHE_NODE_SLOT, 'kmem_cache_node', KmemCacheNode.SIZEOF * WORD_BYTES);
  staticCache(caches, second, KMEM_CACHE_SLOT, 'kmem_cache', kmemCacheBytes(geometry.nodes));
  for (let node = 0; node < geometry.nodes; node++) carveFirstNode(caches, first, node);
  caches.openBootCaches();
  for (let node = 0; node < geometry.nodes; node++) {
    const p = need(caches.boot.kmemCacheNode.allocNode(node));
    caches.views.m.fill(0, p >> 2, (p >> 2) + KmemCacheNode.SIZEOF);
    caches.views.m[nodeSlot(readCacheDesc(caches.views.m, second, geometry.nodes), node)] = p >> 2;
  }
  moveToSlab(caches, first, KMEM_CACHE_NODE_SLOT);
  moveToSlab(caches, second, KMEM_CACHE_SLOT);
  caches.openBootCaches();
  bootKmalloc(caches);
}

function need(p: number): number {
  if (p === 0) throw new RangeError('bytes is too small: the first caches do not fit; give the arena more');
  return p;
}

function staticCache(caches: Caches, ptr: KmemCachePtr, slot: number, name: string, bytes: number): void {
  const { m } = caches.views;
  const { geometry } = caches;
  const layout = calculateSizes({
    objectSize: bytes,
    hwcacheAlign: true,
    cpus: geometry.cpus,
    tiny: geometry.tiny !== 0,
  });
  const serial = nextSerial(m, geometry);
  initKmemCache(m, ptr, geometry.nodes, slot, serial, {
    name,
    objectSize: bytes,
    flags: SLAB_NO_SHEAVES,
    layer: 'none',
    layout: withArray(layout),
    refcount: BOOT_REFCOUNT,
  });
  publishSlot(m, geometry, slot, serial, ptr);
}

/** The first object of a new slab becomes the node struct that owns the slab. Kernel: `early_kmem_cache_node_alloc`. */
function carveFirstNode(caches: Caches, ptr: KmemCachePtr, node: number): void {
  const { m, shadow } = caches.views;
  const s = readCacheDesc(m, ptr, caches.geometry.nodes);
  const page = caches.slabs.pages.alloc(s.order, GFP_NOWAIT | __GFP_THISNODE, node);
  need(page);
  caches.slabs.initSlab(s, page, s.order);
  const base = caches.slabs.slabAddress(page);
  caches.slabs.linkObjects(s, base, 1, s.objects);
  m[page + Page.slabWord] = packSlabWord(2, 1);
  const n = base >> 2;
  m.fill(0, n, n + KmemCacheNode.SIZEOF);
  m[nodeSlot(s, node)] = n;
  m[n + KmemCacheNode.nrSlabs] = 1;
  m[n + KmemCacheNode.totalObjects] = s.objects;
  if (caches.check !== 'none') shadow[base >> 3] = s.tag;
  addPartialHead(m, nodeOf(m, s, node), page);
}

/** Copies a static struct into an object of kmem_cache and tells its slabs. Kernel: `bootstrap`. */
function moveToSlab(caches: Caches, from: KmemCachePtr, slot: number): void {
  const { m } = caches.views;
  const { geometry } = caches;
  const to = (need(caches.boot.kmemCache.alloc(GFP_NOWAIT)) >> 2) as KmemCachePtr;
  m.copyWithin(to, from, from + kmemCacheBytes(geometry.nodes) / WORD_BYTES);
  m[to + KmemCacheStruct.primary] = to;
  const s = readCacheDesc(m, to, geometry.nodes);
  for (let node = 0; node < geometry.nodes; node++) {
    for (let page = m[nodeOf(m, s, node) + KmemCacheNode.head] as PagePtr; page !== 0; ) {
      const pages = (PAGE_SIZE << s.order) / PAGE_SIZE;
      for (let i = 0; i < pages; i++) m[page + i * Page.SIZEOF + Page.cache] = to;
      page = m[page + Page.next] as PagePtr;
    }
  }
  publishSlot(m, geometry, slot, s.serial, to);
  // kmem_cache allocates the next struct, so its handle must know its new place at once.
  caches.openBootCaches();
}

function bootKmalloc(caches: Caches): void {
  const made: CachePlan[] = [];
  for (const { prefix, flags } of kmallocFamilies(caches.geometry)) {
    for (const size of KMALLOC_SIZES) {
      const name = prefix + kmallocSizeName(size);
      const plan = planKmalloc(caches, name, size, flags);
      // What kmalloc gives is for any use, and so may be copied whole.
      const usersize = size;
      createInSlot(caches, FIRST_KMALLOC_SLOT + made.length, { name, objectSize: size, usersize, ...plan });
      made.push(plan);
    }
  }
  caches.kmallocs.bind(FIRST_KMALLOC_SLOT);
  for (const [i, { layer, layout }] of made.entries()) {
    const { desc } = caches.handle(FIRST_KMALLOC_SLOT + i);
    if (!LAYER_SETUP[layer].add(caches, desc, layout)) need(0);
  }
  // Handles that were opened before the layer was there learn of it.
  for (let i = 0; i < made.length; i++) {
    const cache = caches.handle(FIRST_KMALLOC_SLOT + i);
    cache.release();
    cache.learnCapacity();
  }
}
