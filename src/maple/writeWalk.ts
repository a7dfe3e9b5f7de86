/**
 * What a store will have to do, and how many nodes that may take, found on the way down; nothing is changed. The lock is
 * held. Kernel: `mas_wr_store_type`, `mas_prealloc_calc`.
 *
 * h is the tree's height, v the level of the deepest ancestor that has room for one more slot, s that of the deepest
 * which can do with one less; levels count from 1 at the root, and 0 is above it.
 *
 * | store type      | when                                                            | nodes                          |
 * |-----------------|-----------------------------------------------------------------|--------------------------------|
 * | store_root      | no nodes yet                                                    | 0 for key 0 alone, else 1      |
 * | exact_fit       | the range is a slot's                                           | 0                              |
 * | new_root        | everything, in a tree of one leaf                               | 1                              |
 * | append          | no readers; in the leaf's last slot                             | 0                              |
 * | slot_store      | as many slots as before; with readers, one boundary moves       | 0                              |
 * | node_store      | one leaf is written anew                                        | 1 with readers, else 0         |
 * | split_store     | the leaf overflows                                              | 2 (h - v) + 1                  |
 * | rebalance       | the leaf becomes too small                                      | 2 (h - s) + 1 if s < v, else v |
 * | spanning_store  | the range ends in another leaf, or frees the end of a leaf      | 3 (h - s) + 1 if s < v, else v |
 */
import { minOf } from './gaps.js';
import {
  endOf,
  isLeaf,
  isNode,
  LEAF_SLOTS_AT,
  MAPLE_MAX,
  MIN_END,
  NodeType,
  nodeOf,
  PIVOTS,
  pivotAt,
  SLOTS,
  slotAt,
  slotFor,
  typeOf,
} from './node.js';

/** How a store can go about it, from the cheapest on. Kernel: `enum store_type`. */
export const STORE_TYPES = [
  'store_root',
  'exact_fit',
  'new_root',
  'append',
  'slot_store',
  'node_store',
  'split_store',
  'rebalance',
  'spanning_store',
] as const;
/** One of them. */
export type StoreType = (typeof STORE_TYPES)[number];

const LEAF_SLOTS = SLOTS[NodeType.LEAF]!;
const LEAF_MIN_END = MIN_END[NodeType.LEAF]!;

export class WriteWalk {
  private readonly m: Int32Array;
  private readonly rcu: boolean;
  type: StoreType = 'store_root';
  /** Nodes that the store may need. */
  request = 0;
  /** The range to store, with the free ranges beside it when it is to become free. */
  first = 0;
  last = 0;
  entry = 0;
  /** The leaf, unless the store spans several. */
  leaf = 0;
  /** Slots of the leaf that hold the first and the last key. */
  offset = 0;
  offsetEnd = 0;
  /** The range of these slots together. */
  rangeFirst = 0;
  rangeLast = 0;
  private vacant = 0;
  private sufficient = 0;

  constructor(m: Int32Array, rcu: boolean) {
    this.m = m;
    this.rcu = rcu;
  }

  /** Finds out what storing `entry` at [first, last] takes. */
  prepare(root: number, height: number, first: number, last: number, entry: number): void {
    this.first = first;
    this.last = last;
    this.entry = entry;
    this.type = isNode(root) ? this.walk(root) : 'store_root';
    this.request = this.nodes(height);
  }

  private nodes(height: number): number {
    const { vacant, sufficient } = this;
    const level = sufficient < vacant ? sufficient : vacant;
    switch (this.type) {
      case 'store_root':
        return (this.first | this.last) !== 0 || isNode(this.entry) ? 1 : 0;
      case 'new_root':
        return 1;
      case 'node_store':
        return this.rcu ? 1 : 0;
      case 'split_store':
        return 2 * (height - vacant) + 1;
      case 'rebalance':
        return 2 * (height - level) + 1;
      case 'spanning_store':
        return 3 * (height - level) + 1;
      default:
        return 0;
    }
  }

  private walk(root: number): StoreType {
    const { m, first, last, entry } = this;
    let enode = root;
    this.rangeFirst = 0;
    this.vacant = 0;
    this.sufficient = 0;
    for (let level = 1; ; level++) {
      const slot = slotFor(m, enode, first);
      const end = endOf(m, enode);
      const leaf = isLeaf(enode);
      const limit = pivotAt(m, enode, leaf ? end : slot);
      // No leaf but the last may end with a free range: to free its end takes the next one.
      if (last > limit || (last === limit && entry === 0 && last !== MAPLE_MAX)) return 'spanning_store';
      if (slot > 0) this.rangeFirst = pivotAt(m, enode, slot - 1) + 1;
      if (leaf) {
        this.leaf = enode;
        this.offset = slot;
        return this.inLeaf(end, level === 1);
      }
      const type = typeOf(enode);
      if (end < SLOTS[type]! - 1) this.vacant = level;
      if (level === 1 ? end > 2 : end > MIN_END[type]! + 1) this.sufficient = level;
      enode = slotAt(m, enode, slot);
    }
  }

  private inLeaf(end: number, isRoot: boolean): StoreType {
    const { m, leaf } = this;
    let offsetEnd = this.offset;
    while (pivotAt(m, leaf, offsetEnd) < this.last) offsetEnd++;
    this.offsetEnd = offsetEnd;
    this.rangeLast = pivotAt(m, leaf, offsetEnd);
    if (this.entry === 0) this.extendNull(end);
    const { first, last, offset, rcu } = this;
    const startsInside = first > this.rangeFirst;
    const endsInside = last < this.rangeLast;
    const covered = this.offsetEnd - offset;
    if (covered === 0 && !startsInside && !endsInside) return 'exact_fit';
    if (first === 0 && last === MAPLE_MAX) return 'new_root';
    const newEnd = end - covered + (startsInside ? 1 : 0) + (endsInside ? 1 : 0);
    if (newEnd < LEAF_MIN_END) return isRoot ? 'node_store' : 'rebalance';
    if (newEnd >= LEAF_SLOTS) return 'split_store';
    if (!rcu && offset === end) return 'append';
    if (newEnd === end && (!rcu || covered === 1)) return 'slot_store';
    return 'node_store';
  }

  /** A range that becomes free grows over the free ranges beside it. Kernel: `mas_wr_extend_null`. */
  private extendNull(end: number): void {
    const { m, leaf, offset } = this;
    const slots = nodeOf(leaf) + LEAF_SLOTS_AT;
    const pivots = nodeOf(leaf) + PIVOTS;
    if (m[slots + offset] === 0) this.first = this.rangeFirst;
    else if (this.first === this.rangeFirst && offset > 0 && m[slots + offset - 1] === 0) {
      this.offset = offset - 1;
      this.rangeFirst = offset > 1 ? m[pivots + offset - 2]! + 1 : minOf(m, leaf);
      this.first = this.rangeFirst;
    }
    const { offsetEnd } = this;
    if (m[slots + offsetEnd] === 0) this.last = this.rangeLast;
    else if (this.last === this.rangeLast && offsetEnd < end && m[slots + offsetEnd + 1] === 0) {
      this.offsetEnd = offsetEnd + 1;
      this.rangeLast = m[pivots + offsetEnd + 1]!;
      this.last = this.rangeLast;
    }
  }
}
