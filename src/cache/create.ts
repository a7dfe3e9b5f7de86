/**
 * Making a cache: its struct, a node struct and a barn per node, an empty main sheaf per CPU. Everything is memory of
 * other caches, so each step can fail; what was taken is then given back in reverse.
 */
import { clearPercpuBlocks, Pcs, pcsOf, Stat } from '../cpu/index.js';
import { GFP_KERNEL } from '../page/index.js';
import { Barn, barnGrowthMax } from '../sheaf/index.js';
import {
  barnSlot,
  type CacheDesc,
  cacheRandom,
  DEFRAG_RATIO_DEFAULT,
  KmemCacheNode,
  type KmemCachePtr,
  KmemCacheStruct,
  kmemCacheBytes,
  nodeSlot,
  readCacheDesc,
  SLAB_KMALLOC,
  writeName,
} from '../slab/index.js';
import { LAYERS, type Layer, OutOfMemoryError, PAGE_SIZE, WORD_BYTES, type Words } from '../struct/index.js';
import type { Caches } from './caches.js';
import { forgetModule, noteModule } from './callbacks.js';
import { releaseGenerations } from './generations.js';
import { addQuarantine, releaseQuarantine } from './guard/quarantine.js';
import { addArrays, releaseArrays } from './layers/percpuArray.js';
import type { NewCache } from './newCache.js';
import type { CacheLayout } from './options.js';
import { nextSerial, publishSlot } from './registry.js';

/** Writes the fixed fields of a kmem_cache. Its per-node pointers are 0 afterwards. */
export function initKmemCache(
  m: Words,
  ptr: KmemCachePtr,
  nodes: number,
  slot: number,
  serial: number,
  made: NewCache,
): void {
  const K = KmemCacheStruct;
  const { layout } = made;
  m.fill(0, ptr, ptr + kmemCacheBytes(nodes) / WORD_BYTES);
  const set = (field: number, value: number): void => {
    m[ptr + field] = value;
  };
  set(K.slot, slot);
  set(K.serial, serial);
  set(K.tag, slot + 1);
  set(K.flags, made.flags);
  set(K.objectSize, made.objectSize);
  set(K.size, layout.size);
  set(K.redLeftPad, layout.redLeftPad);
  set(K.inuse, layout.inuse);
  set(K.offset, layout.offset);
  set(K.origSize, layout.origSize);
  set(K.align, layout.align);
  set(K.order, layout.order);
  set(K.objects, layout.objects);
  set(K.minOrder, layout.minOrder);
  set(K.minObjects, layout.minObjects);
  set(K.minPartial, layout.minPartial);
  set(K.layer, LAYERS.indexOf(made.layer));
  // Sheaves come last: until then the cache works without.
  set(K.sheafCapacity, 0);
  set(K.defragRatio, DEFRAG_RATIO_DEFAULT);
  set(K.refcount, made.refcount ?? 1);
  set(K.primary, made.primary ?? ptr);
  set(K.hidden, made.hidden === true ? 1 : 0);
  set(K.useroffset, made.useroffset ?? 0);
  set(K.usersize, made.usersize ?? 0);
  set(K.random, cacheRandom(m, slot, serial));
  set(K.module, made.module ?? 0);
  writeName(m, ptr, made.name);
}

/** Makes and publishes a cache in a free slot. slab_mutex held. Throws OutOfMemoryError, with nothing made. */
export function createInSlot(caches: Caches, slot: number, made: NewCache): CacheDesc {
  const { m } = caches.views;
  const { geometry } = caches;
  const { name, flags, layer, layout } = made;
  const ptr = allocStruct(caches, made);
  const serial = nextSerial(m, geometry);
  initKmemCache(m, ptr, geometry.nodes, slot, serial, made);
  clearPercpuBlocks(m, geometry, slot);
  const desc = readCacheDesc(m, ptr, geometry.nodes);
  if (!addNodes(caches, desc)) {
    releaseCache(caches, desc);
    throw outOfMemory(name, 'its nodes');
  }
  if ((flags & SLAB_KMALLOC) === 0 && !LAYER_SETUP[layer].add(caches, desc, layout)) {
    releaseCache(caches, desc);
    throw outOfMemory(name, `its ${layer}`);
  }
  if (!addQuarantine(caches, desc, made.quarantine ?? 0)) {
    releaseCache(caches, desc);
    throw outOfMemory(name, 'its quarantine');
  }
  if (made.definedIn) noteModule(caches, desc, made.definedIn);
  publishSlot(m, geometry, slot, serial, ptr);
  return desc;
}

/** Makes and publishes another name for `made.primary`'s storage. slab_mutex held. Throws as createInSlot does. */
export function createAliasInSlot(caches: Caches, slot: number, made: NewCache): void {
  const { m } = caches.views;
  const { geometry } = caches;
  const ptr = allocStruct(caches, made);
  const serial = nextSerial(m, geometry);
  initKmemCache(m, ptr, geometry.nodes, slot, serial, made);
  clearPercpuBlocks(m, geometry, slot);
  publishSlot(m, geometry, slot, serial, ptr);
}

function allocStruct(caches: Caches, { name, preallocated }: NewCache): KmemCachePtr {
  if (preallocated !== undefined) return preallocated;
  const p = caches.boot.kmemCache.alloc(GFP_KERNEL);
  if (p === 0) throw outOfMemory(name, 'its struct');
  return (p >> 2) as KmemCachePtr;
}

/** Gives a struct back, unless it is one that has its place for ever. */
export function freeStruct(caches: Caches, ptr: KmemCachePtr): void {
  // Below the heap nothing was allocated.
  if (ptr * WORD_BYTES < caches.geometry.firstPfn * PAGE_SIZE) return;
  caches.boot.kmemCache.free(ptr * WORD_BYTES);
}

function outOfMemory(name: string, what: string): OutOfMemoryError {
  return new OutOfMemoryError(`no memory for cache ${name}: could not allocate ${what}`);
}

/** A kmem_cache_node per node. Kernel: `init_kmem_cache_nodes`. */
function addNodes(caches: Caches, desc: CacheDesc): boolean {
  const { m } = caches.views;
  for (let node = 0; node < desc.nodes; node++) {
    const p = caches.boot.kmemCacheNode.allocNode(node);
    if (p === 0) return false;
    m.fill(0, p >> 2, (p >> 2) + KmemCacheNode.SIZEOF);
    m[nodeSlot(desc, node)] = p >> 2;
  }
  return true;
}

/** Barns and main sheaves; the capacity is set when all are there. Kernel: `init_percpu_sheaves`. */
function addSheaves(caches: Caches, desc: CacheDesc, capacity: number): boolean {
  const { m } = caches.views;
  for (let node = 0; node < desc.nodes; node++) {
    const p = caches.kmallocs.allocOwn(Barn.SIZEOF * WORD_BYTES, GFP_KERNEL, node);
    if (p === 0) return false;
    m.fill(0, p >> 2, (p >> 2) + Barn.SIZEOF);
    m[barnSlot(desc, node)] = p >> 2;
    m[(p >> 2) + Barn.most] = barnGrowthMax(caches.geometry, capacity, desc.size);
  }
  for (let cpu = 0; cpu < caches.geometry.cpus; cpu++) {
    const sheaf = caches.allocEmptySheaf(desc, capacity, GFP_KERNEL);
    if (sheaf === 0) return false;
    m[pcsOf(caches.geometry, cpu, desc.slot) + Pcs.main] = sheaf;
  }
  m[desc.ptr + KmemCacheStruct.sheafCapacity] = capacity;
  return true;
}

/** The shared memory of a layer. Per-CPU state hangs on the words of Pcs, guarded by the pcs lock in every layer. */
interface LayerSetup {
  /** Allocates it; false when out of memory, and then release gives back what was made. */
  add(caches: Caches, desc: CacheDesc, layout: CacheLayout): boolean;
  /** Gives it back, as far as it was made; the cache has no objects. */
  release(caches: Caches, desc: CacheDesc): void;
}

const nothing: LayerSetup = { add: () => true, release: () => {} };
const sheaves: LayerSetup = {
  add: (caches, desc, layout) =>
    addSheaves(caches, desc, caches.geometry.sheafCapacity || layout.sheafCapacity),
  release: releaseSheaves,
};
const arrays: LayerSetup = {
  add: (caches, desc, layout) => addArrays(caches, desc, layout.arraySize),
  release: releaseArrays,
};

export const LAYER_SETUP: Readonly<Record<Layer, LayerSetup>> = {
  sheaves,
  'percpu-array': arrays,
  'cpu-slab': nothing,
  none: nothing,
};

function releaseSheaves(caches: Caches, desc: CacheDesc): void {
  const { m } = caches.views;
  for (let cpu = 0; cpu < caches.geometry.cpus; cpu++) {
    const at = pcsOf(caches.geometry, cpu, desc.slot) + Pcs.main;
    if (m[at] !== 0) caches.freeEmptySheaf(desc, m[at] as never);
    m[at] = 0;
  }
  for (let node = 0; node < desc.nodes; node++) {
    const barn = m[barnSlot(desc, node)]!;
    if (barn !== 0) caches.kmallocs.free(barn * WORD_BYTES);
  }
}

/** Frees what the layer has, nodes and struct of a cache without objects, as far as they were made. */
export function releaseCache(caches: Caches, desc: CacheDesc): void {
  const { m } = caches.views;
  LAYER_SETUP[desc.layer].release(caches, desc);
  for (let node = 0; node < desc.nodes; node++) {
    const n = m[nodeSlot(desc, node)]!;
    if (n !== 0) caches.boot.kmemCacheNode.free(n * WORD_BYTES);
  }
  releaseQuarantine(caches, desc);
  releaseGenerations(caches, desc);
  forgetModule(caches, desc);
  freeStruct(caches, desc.ptr);
}

/** Counts sheaf allocations of a cache on the calling CPU. */
export function countSheaf(caches: Caches, desc: CacheDesc, item: 'SHEAF_ALLOC' | 'SHEAF_FREE'): void {
  caches.cpu.count(pcsOf(caches.geometry, caches.cpu.id, desc.slot), Stat[item], 1);
}
