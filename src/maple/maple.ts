/** The maple trees of an arena, as one thread sees them. */
import type { Caches, KmemCache } from '../cache/index.js';
import { __GFP_ZERO, GFP_KERNEL } from '../page/index.js';
import { SLAB_PANIC } from '../slab/index.js';
import {
  describe,
  requireInteger,
  requireKnown,
  requireObject,
  SlabBugError,
  WORD_BYTES,
} from '../struct/index.js';
import { type MapleTreePtr, MapleTreeStruct, MT_FLAGS_ALLOC_RANGE, MT_FLAGS_USE_RCU } from './mapleTree.js';
import { MAPLE_NODE_BYTES } from './node.js';
import { MapleTree } from './tree.js';

/** What `arena.maple.create` takes. */
export interface MapleTreeOptions {
  /** Keep gaps, to find free ranges by their size; true by default. Kernel: MT_FLAGS_ALLOC_RANGE. */
  gaps?: boolean;
  /** Readers on other CPUs without the lock; true by default. Kernel: MT_FLAGS_USE_RCU. */
  rcu?: boolean;
}

const KNOWN = Object.keys({ gaps: true, rcu: true } satisfies Record<keyof MapleTreeOptions, true>);

/** The cache of nodes, with the capacity that the kernel asks for. */
const NODE_CACHE = 'maple_node';
const NODE_SHEAF_CAPACITY = 32;
const STRUCT_BYTES = MapleTreeStruct.SIZEOF * WORD_BYTES;

const perThread = new WeakMap<Caches, Maple>();

/** The maple trees of an arena, for one thread: `arena.maple`. */
export class Maple {
  private readonly caches: Caches;
  private cache: KmemCache | undefined;

  /** `Maple.of` makes one per thread. */
  private constructor(caches: Caches) {
    this.caches = caches;
  }

  static of(caches: Caches): Maple {
    const known = perThread.get(caches);
    if (known !== undefined) return known;
    const made = new Maple(caches);
    perThread.set(caches, made);
    return made;
  }

  /** The cache `maple_node`; made when it is first asked for. Throws OutOfMemoryError. */
  get nodes(): KmemCache {
    if (this.cache?.isAlive) return this.cache;
    this.cache = this.caches.openOrCreate(NODE_CACHE, {
      size: MAPLE_NODE_BYTES,
      align: MAPLE_NODE_BYTES,
      flags: SLAB_PANIC,
      sheafCapacity: NODE_SHEAF_CAPACITY,
    });
    return this.cache;
  }

  /**
   * Makes an empty tree; null when out of memory. Kernel: `mt_init_flags`.
   * @example
   * const tree = arena.maple.create()!;
   * tree.store(0x1000, 0x1fff, 42);
   * worker.postMessage({ arena: arena.handle, tree: tree.address });
   */
  create(options: MapleTreeOptions = {}): MapleTree | null {
    requireObject('options', options);
    requireKnown('options', options, KNOWN);
    const { gaps = true, rcu = true } = options;
    const nodes = this.nodes;
    const p = this.caches.kmallocs.alloc(STRUCT_BYTES, GFP_KERNEL | __GFP_ZERO);
    if (p === 0) return null;
    const tree = (p / WORD_BYTES) as MapleTreePtr;
    initMapleTree(this.caches.views.m, tree, gaps, rcu);
    return new MapleTree(this.caches, tree, nodes);
  }

  /** Opens a tree that any thread made, by its address. */
  open(address: number): MapleTree {
    requireInteger('address', address, WORD_BYTES, this.caches.geometry.bytes - STRUCT_BYTES);
    return new MapleTree(this.caches, (address / WORD_BYTES) as MapleTreePtr, this.nodes);
  }

  /** Frees a tree that {@link create} made: its nodes, and its struct after a grace period. Kernel: `mtree_destroy`. */
  destroy(tree: MapleTree): void {
    if (!(tree instanceof MapleTree))
      throw new TypeError(`tree is ${describe(tree)}; it must be a maple tree`);
    if (!tree.isOf(this.caches)) throw new TypeError('tree is a maple tree of another arena');
    const { address } = tree;
    const cache = this.caches.kmallocs.cacheOf(address);
    if (cache === undefined)
      throw new SlabBugError('not-a-slab', 'maple_tree', address, 'no tree was made there');
    cache.assertAllocated(address);
    tree.clear();
    this.caches.kmallocs.freeRcu(address);
  }
}

/** Writes the struct of an empty tree whose words are 0. */
export function initMapleTree(m: Int32Array, tree: MapleTreePtr, gaps: boolean, rcu: boolean): void {
  m[tree + MapleTreeStruct.flags] = (gaps ? MT_FLAGS_ALLOC_RANGE : 0) | (rcu ? MT_FLAGS_USE_RCU : 0);
}
