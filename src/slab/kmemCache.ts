/** The shared structures of a cache: `kmem_cache` and, per node, `kmem_cache_node`. */
import {
  LAYERS,
  type Layer,
  LINE_WORDS,
  PAGE_SHIFT,
  type Ptr,
  struct,
  WORD_BYTES,
  type Words,
} from '../struct/index.js';
import { Lock, type LockPtr } from '../sync/index.js';
import { calculateCpuPartial } from './layout.js';

export const NAME_BYTES_MAX = 63;
const NAME_WORDS = 16;

/**
 * What a cache is. Everything but `minPartial` and the counters of its nodes is fixed at creation, so threads copy
 * it into a {@link CacheDesc}. The per-node pointers follow the struct: node structs first, then barns.
 */
export const KmemCacheStruct = struct('kmem_cache', {
  slot: 1,
  serial: 1,
  tag: 1,
  flags: 1,
  objectSize: 1,
  size: 1,
  inuse: 1,
  offset: 1,
  align: 1,
  order: 1,
  objects: 1,
  minOrder: 1,
  minObjects: 1,
  /** Empty slabs stay on a node's partial list while nr_partial is below this. Tunable. */
  minPartial: 1,
  sheafCapacity: 1,
  /** Objects of a CPU's array, in the layer `percpu-array`. */
  arraySize: 1,
  /** Index in LAYERS. */
  layer: 1,
  defragRatio: 1,
  /** Byte offset in a slot of the word with the requested size; 0: there is none. */
  origSize: 1,
  nameBytes: 1,
  name: NAME_WORDS,
});
export type KmemCachePtr = Ptr<'kmem_cache'>;

/** Slabs with free objects, linked through their pages. `listLock` protects the list, nrPartial and PG_PARTIAL. */
export const KmemCacheNode = struct(
  'kmem_cache_node',
  { listLock: Lock.SIZEOF, nrPartial: 1, head: 1, tail: 1, nrSlabs: 1, totalObjects: 1 },
  { alignWords: LINE_WORDS },
);
export type KmemCacheNodePtr = Ptr<'kmem_cache_node'>;

export const DEFRAG_RATIO_DEFAULT = 1000;

/** Bytes of a kmem_cache in an arena of so many nodes. */
export function kmemCacheBytes(nodes: number): number {
  return (KmemCacheStruct.SIZEOF + 2 * nodes) * WORD_BYTES;
}

/** This thread's copy of what never changes about a cache; slow paths read it instead of the arena. */
export interface CacheDesc {
  readonly ptr: KmemCachePtr;
  readonly slot: number;
  readonly serial: number;
  /** Byte that marks this cache's allocated objects in the shadow. */
  readonly tag: number;
  readonly name: string;
  readonly flags: number;
  readonly objectSize: number;
  /** Stride in bytes. */
  readonly size: number;
  readonly inuse: number;
  /** Byte offset of the free pointer within an object. */
  readonly offset: number;
  /** Byte offset in a slot of the word with the requested size; 0: there is none. */
  readonly origSize: number;
  readonly align: number;
  readonly order: number;
  readonly objects: number;
  readonly minOrder: number;
  readonly minObjects: number;
  readonly nodes: number;
  readonly layer: Layer;
  /** 2^RECIPROCAL_SHIFT / size, rounded up; 0 when slabs are too large for it to be exact. */
  readonly reciprocal: number;
  /** Objects that a CPU may have on its partial slabs, and the slabs that makes, half full; 0 in other layers. */
  readonly cpuPartial: number;
  readonly cpuPartialSlabs: number;
}

/**
 * Object index from byte offset without a division. With offset = index * size < 2^17 and an error of the reciprocal
 * below 1, the product's error stays below 2^17, and the product below 2^32, so the shift is exact.
 */
export const RECIPROCAL_SHIFT = 17;
const RECIPROCAL_ORDER_MAX = RECIPROCAL_SHIFT - PAGE_SHIFT;

export function readCacheDesc(m: Words, ptr: KmemCachePtr, nodes: number): CacheDesc {
  const K = KmemCacheStruct;
  const at = (field: number): number => m[ptr + field]!;
  const layer = LAYERS[at(K.layer)]!;
  const cpuPartial = layer === 'cpu-slab' ? calculateCpuPartial(at(K.size)) : 0;
  return {
    ptr,
    slot: at(K.slot),
    serial: at(K.serial),
    tag: at(K.tag),
    name: readName(m, ptr),
    flags: at(K.flags),
    objectSize: at(K.objectSize),
    size: at(K.size),
    inuse: at(K.inuse),
    offset: at(K.offset),
    origSize: at(K.origSize),
    align: at(K.align),
    order: at(K.order),
    objects: at(K.objects),
    minOrder: at(K.minOrder),
    minObjects: at(K.minObjects),
    nodes,
    layer,
    reciprocal: at(K.order) <= RECIPROCAL_ORDER_MAX ? Math.ceil((1 << RECIPROCAL_SHIFT) / at(K.size)) : 0,
    cpuPartial,
    cpuPartialSlabs: Math.ceil((cpuPartial * 2) / at(K.objects)),
  };
}

export function writeName(m: Words, ptr: KmemCachePtr, name: string): void {
  const bytes = new TextEncoder().encode(name);
  m.fill(0, ptr + KmemCacheStruct.name, ptr + KmemCacheStruct.name + NAME_WORDS);
  new Uint8Array(m.buffer, (ptr + KmemCacheStruct.name) * WORD_BYTES, bytes.length).set(bytes);
  m[ptr + KmemCacheStruct.nameBytes] = bytes.length;
}

export function readName(m: Words, ptr: KmemCachePtr): string {
  const at = (ptr + KmemCacheStruct.name) * WORD_BYTES;
  // Some engines refuse to decode a shared view: copy first.
  return new TextDecoder().decode(new Uint8Array(m.buffer, at, m[ptr + KmemCacheStruct.nameBytes]!).slice());
}

/** Word that holds the pointer to the cache's `kmem_cache_node` for `node`. */
export const nodeSlot = (s: CacheDesc, node: number): number => s.ptr + KmemCacheStruct.SIZEOF + node;
/** Word that holds the pointer to the cache's barn for `node`. */
export const barnSlot = (s: CacheDesc, node: number): number =>
  s.ptr + KmemCacheStruct.SIZEOF + s.nodes + node;

export const nodeOf = (m: Words, s: CacheDesc, node: number): KmemCacheNodePtr =>
  m[nodeSlot(s, node)] as KmemCacheNodePtr;

export const listLock = (n: KmemCacheNodePtr): LockPtr => (n + KmemCacheNode.listLock) as unknown as LockPtr;
