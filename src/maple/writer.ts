/**
 * One store at a time, by whoever holds the tree's lock: find out what it takes, reserve the nodes, do it. The first
 * two change nothing; the third allocates nothing and cannot fail. Kernel: `mas_preallocate`, `mas_store_prealloc`.
 */
import type { KmemCache } from '../cache/index.js';
import type { Words } from '../struct/index.js';
import { storeRelease } from '../sync/index.js';
import { BigNode } from './bigNode.js';
import { greatestGap, minOf, propagateGap } from './gaps.js';
import { type MapleTreePtr, MapleTreeStruct, MT_FLAGS_ALLOC_RANGE, MT_FLAGS_USE_RCU } from './mapleTree.js';
import { LEAF_SLOTS_AT, META, maxOf, NodeType, nodeOf, PIVOTS, SEQ_ONE } from './node.js';
import { Rebuild } from './rebuild.js';
import { NodeSupply } from './supply.js';
import { WriteWalk } from './writeWalk.js';

const { root: ROOT, height: HEIGHT, flags: FLAGS } = MapleTreeStruct;

export class MapleWriter {
  private readonly m: Words;
  private readonly tree: MapleTreePtr;
  private readonly rcu: boolean;
  private readonly hasGaps: boolean;
  readonly supply: NodeSupply;
  readonly walk: WriteWalk;
  private readonly rebuild: Rebuild;
  private readonly big: BigNode;

  constructor(m: Words, tree: MapleTreePtr, nodes: KmemCache) {
    const flags = m[tree + FLAGS]!;
    this.m = m;
    this.tree = tree;
    this.rcu = (flags & MT_FLAGS_USE_RCU) !== 0;
    this.hasGaps = (flags & MT_FLAGS_ALLOC_RANGE) !== 0;
    this.supply = new NodeSupply(nodes, this.rcu);
    this.walk = new WriteWalk(m, this.rcu);
    this.rebuild = new Rebuild(m, tree, this.hasGaps ? NodeType.ARANGE : NodeType.RANGE, this.supply);
    this.big = new BigNode(m);
  }

  /** Finds out what storing `entry` at [first, last] takes: see `walk`. Kernel: `mas_wr_preallocate`. */
  prepare(first: number, last: number, entry: number): void {
    const { m, tree } = this;
    this.walk.prepare(m[tree + ROOT]!, m[tree + HEIGHT]!, first, last, entry);
  }

  /** Reserves what {@link prepare} said. False when out of memory. */
  reserve(gfp: number): boolean {
    return this.supply.reserve(this.walk.request, gfp);
  }

  /** Does what was prepared; nothing else was done to the tree since. Kernel: `mas_wr_store_entry`. */
  apply(): void {
    this.supply.used = 0;
    switch (this.walk.type) {
      case 'store_root':
        return this.storeRoot();
      case 'exact_fit':
        return this.storeSlot();
      case 'slot_store':
        return this.moveBoundaries();
      case 'append':
        return this.rewriteLeaf();
      case 'node_store':
        if (!this.rcu) return this.rewriteLeaf();
        break;
    }
    this.rebuild.run(this.walk);
  }

  private storeRoot(): void {
    const { m, tree, walk } = this;
    const { first, entry } = walk;
    const old = m[tree + ROOT]!;
    if (entry === 0) {
      if (first === 0) storeRelease(m, tree + ROOT, 0); // pairs with the load of the root in reader.ts
    } else if (walk.request === 0)
      storeRelease(m, tree + ROOT, entry); // the same
    else this.rebuild.makeRoot(walk, first > 0 ? old : 0);
  }

  /** One word changes: readers see the one entry or the other. */
  private storeSlot(): void {
    const { m, walk } = this;
    const { leaf, offset, entry } = walk;
    const at = nodeOf(leaf) + LEAF_SLOTS_AT + offset;
    const before = m[at]!;
    storeRelease(m, at, entry); // pairs with the load of the entry in reader.ts
    if ((before === 0) !== (entry === 0)) this.gapChanged(leaf);
  }

  /**
   * As many slots as before, but other boundaries: more than a word changes. The leaf's sequence is odd meanwhile, and a
   * reader that sees it, or sees it move, looks again. All of these accesses are sequentially consistent on both sides,
   * since a plain load could take the new pivot and the old entry.
   */
  private moveBoundaries(): void {
    const { m, walk } = this;
    const { leaf, offset, offsetEnd, first, last, entry, rangeFirst, rangeLast } = walk;
    const node = nodeOf(leaf);
    const meta = m[node + META]!;
    storeRelease(m, node + META, (meta + SEQ_ONE) | 0); // pairs with both loads of META in reader.ts
    const slot = first > rangeFirst ? offset + 1 : offset;
    if (slot > offset) storeRelease(m, node + PIVOTS + offset, first - 1);
    storeRelease(m, node + LEAF_SLOTS_AT + slot, entry);
    if (last < rangeLast && slot < offsetEnd) storeRelease(m, node + PIVOTS + slot, last);
    storeRelease(m, node + META, (meta + 2 * SEQ_ONE) | 0);
    this.gapChanged(leaf);
  }

  /** No readers: the leaf is written where it is. */
  private rewriteLeaf(): void {
    const { m, big, walk } = this;
    const { leaf, offset, first, last, entry, rangeFirst } = walk;
    big.reset(0);
    if (offset > 0) big.pushSlots(leaf, 0, offset - 1);
    if (first > rangeFirst) big.push(m[nodeOf(leaf) + LEAF_SLOTS_AT + offset]!, first - 1);
    big.push(entry, last);
    if (last < maxOf(m, leaf)) big.pushFrom(leaf, last + 1);
    big.overwrite(leaf);
    this.gapChanged(leaf);
  }

  private gapChanged(leaf: number): void {
    if (!this.hasGaps) return;
    propagateGap(this.m, leaf, greatestGap(this.m, leaf, minOf(this.m, leaf)));
  }
}
