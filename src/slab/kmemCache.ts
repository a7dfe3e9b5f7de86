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
export const NAME_WORDS = 16;

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
  redLeftPad: 1,
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
  /** Reports of debugging, repairs included; counted atomically. */
  errors: 1,
  /** Names that use the storage; BOOT_REFCOUNT for caches that nothing may merge into. Under slab_mutex. */
  refcount: 1,
  /** The cache whose slabs and sheaves this one's objects come from: itself, unless it is an alias. */
  primary: 1,
  /** 1: the cache has no name, and lives for its aliases alone. */
  hidden: 1,
  /** First saved_alias, where aliases are mere names. */
  aliases: 1,
  /** Range of an object that may be copied in and out when hardened. */
  useroffset: 1,
  usersize: 1,
  /** Thread slot + 1 of the module that a static cache belongs to, or 0. */
  module: 1,
  /** Slabs that wait for destructors, linked through their pages; see slabCallbacks.ts. */
  dtorSlabs: 1,
  /** Address of the name of the module that defines the callbacks, a length and its bytes; or 0. */
  definedIn: 1,
  /** Byte offset in a slot of the word with the requested size; 0: there is none. */
  origSize: 1,
  /** Secret that free pointers are stored with, 0: they are stored as they are. */
  random: 1,
  /** Table of the rings in which freed objects wait, a word index; 0: there are none. */
  quarantine: 1,
  /** What counts the uses of its objects by handle, a word index; 0 until somebody asks for handles. */
  generations: 1,
  nameBytes: 1,
  name: NAME_WORDS,
});
export type KmemCachePtr = Ptr<'kmem_cache'>;

/**
 * Slabs with free objects, linked through their pages. `listLock` protects the lists, nrPartial and PG_PARTIAL, and the
 * list of full slabs, which only caches with SLAB_STORE_USER keep. `disabled` counts slabs that failed a check.
 */
export const KmemCacheNode = struct(
  'kmem_cache_node',
  {
    listLock: Lock.SIZEOF,
    nrPartial: 1,
    head: 1,
    tail: 1,
    nrSlabs: 1,
    totalObjects: 1,
    full: 1,
    disabled: 1,
    /** Empty slabs that wait for a grace period; see slabPages.ts. */
    rcuHead: 1,
    rcuTail: 1,
  },
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
  /** Bytes before an object in its slot; an object's address is the slot's and this. */
  readonly redLeftPad: number;
  readonly inuse: number;
  readonly usersize: number;
  /** Byte offset of the free pointer within an object. */
  readonly offset: number;
  /** Byte offset in a slot of the word with the requested size; 0: there is none. */
  readonly origSize: number;
  /** Secret that free pointers are stored with, 0: they are stored as they are. */
  readonly random: number;
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
    redLeftPad: at(K.redLeftPad),
    inuse: at(K.inuse),
    usersize: at(K.usersize),
    offset: at(K.offset),
    origSize: at(K.origSize),
    random: at(K.random),
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

/** Brings a copy up to date with the sizes that grew when another cache merged into this one. */
export function relearnSizes(m: Words, desc: CacheDesc): void {
  const copy = desc as { -readonly [K in keyof CacheDesc]: CacheDesc[K] };
  copy.objectSize = m[desc.ptr + KmemCacheStruct.objectSize]!;
  copy.inuse = m[desc.ptr + KmemCacheStruct.inuse]!;
}

export function writeName(m: Words, ptr: KmemCachePtr, name: string): void {
  writeNameAt(m, ptr + KmemCacheStruct.nameBytes, name);
}

export function readName(m: Words, ptr: KmemCachePtr): string {
  return readNameAt(m, ptr + KmemCacheStruct.nameBytes);
}

/** Writes a name: its bytes' number at word `at`, the bytes behind. */
export function writeNameAt(m: Words, at: number, name: string): void {
  const bytes = new TextEncoder().encode(name);
  m.fill(0, at + 1, at + 1 + NAME_WORDS);
  new Uint8Array(m.buffer, (at + 1) * WORD_BYTES, bytes.length).set(bytes);
  m[at] = bytes.length;
}

export function readNameAt(m: Words, at: number): string {
  // Some engines refuse to decode a shared view: copy first.
  return new TextDecoder().decode(new Uint8Array(m.buffer, (at + 1) * WORD_BYTES, m[at]!).slice());
}

const { SIZEOF: CACHE_WORDS, minPartial: MIN_PARTIAL } = KmemCacheStruct;
const { listLock: LIST_LOCK, nrPartial: NR_PARTIAL } = KmemCacheNode;

/** Word that holds the pointer to the cache's `kmem_cache_node` for `node`. */
export const nodeSlot = (s: CacheDesc, node: number): number => s.ptr + CACHE_WORDS + node;
/** Word that holds the pointer to the cache's barn for `node`. */
export const barnSlot = (s: CacheDesc, node: number): number => s.ptr + CACHE_WORDS + s.nodes + node;

export const nodeOf = (m: Words, s: CacheDesc, node: number): KmemCacheNodePtr =>
  m[nodeSlot(s, node)] as KmemCacheNodePtr;

export const listLock = (n: KmemCacheNodePtr): LockPtr => (n + LIST_LOCK) as unknown as LockPtr;

/** Whether a node has as many partial slabs as it keeps: one that becomes empty goes back to the pages. */
export const hasMinPartial = (m: Words, s: CacheDesc, n: KmemCacheNodePtr): boolean =>
  m[n + NR_PARTIAL]! >= m[s.ptr + MIN_PARTIAL]!;
