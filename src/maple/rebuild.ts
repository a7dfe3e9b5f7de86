/**
 * A store that changes more than a slot: new nodes take the place of old ones, and one store of a reference publishes
 * them all. Readers find the tree as it was or as it is. Kernel: `mas_wr_bnode`, `mas_wr_spanning_store`,
 * `mas_spanning_rebalance`, `mas_topiary_replace`.
 *
 * It goes up from the leaves. `left` and `right` are the nodes of a level that hold the ends of what changes, often the
 * same. What they keep and what is new between them goes to a {@link BigNode}:
 *
 *  W1  Too little for a node: the nearest neighbour joins in, and becomes `left` or `right`. Too much for one, and a
 *      neighbour below the same parent has room: it joins in, too, so that nodes become full before there are more.
 *  W2  It is divided into one to three new nodes, which take the place of `left` to `right`.
 *  W3  One new node in the place of one: its reference is stored into the parent. The parent's pivots stay. Done.
 *  W4  Otherwise the parents are `left` and `right` of the next level, up to a new root.
 *
 * Until W3, or the store of the root, nothing that others see has changed: a store that ends before it has not been.
 * Then, with the lock still held, what readers do not look at: parents of moved nodes, gaps, marks of dead nodes. What
 * was replaced:
 *
 *  D1  `left`, `right` and the neighbours of W1, each for itself: its children may live on below new nodes.
 *  D2  Whatever lies between these, or above them when the tree becomes lower, with all below that is not dead by D1.
 */
import type { Words } from '../struct/index.js';
import { storeRelease } from '../sync/index.js';
import { BigNode, PARTS_MAX, twoNodes } from './bigNode.js';
import { minOf, propagateGap } from './gaps.js';
import { type MapleTreePtr, MapleTreeStruct } from './mapleTree.js';
import {
  addressOf,
  endOf,
  enodeOf,
  HEIGHT_MAX,
  isDead,
  isLeaf,
  isNode,
  isRootNode,
  MAPLE_MAX,
  type MapleEnode,
  maxOf,
  NodeType,
  type NodeTypeId,
  nodeOf,
  PARENT,
  parentAddress,
  parentSlot,
  parentWord,
  pivotAt,
  ROOT_MARK,
  SLOTS,
  slotAt,
  slotFor,
  slotsOf,
} from './node.js';
import type { NodeSupply } from './supply.js';
import type { WriteWalk } from './writeWalk.js';

const { root: ROOT, height: HEIGHT } = MapleTreeStruct;
const { LEAF, ARANGE } = NodeType;

export class Rebuild {
  private readonly m: Words;
  private readonly tree: MapleTreePtr;
  private readonly innerType: NodeTypeId;
  private readonly supply: NodeSupply;
  private readonly big: BigNode;
  private left = 0;
  private right = 0;
  /** The new nodes of a level, with their greatest gaps and keys. */
  private readonly parts = new Int32Array(PARTS_MAX);
  private readonly partGaps = new Int32Array(PARTS_MAX);
  private readonly partMax = new Int32Array(PARTS_MAX);
  private nrParts = 0;
  /** All new nodes. */
  private readonly fresh = new Int32Array(PARTS_MAX * HEIGHT_MAX);
  private nrFresh = 0;
  /** D1, from `consumedFrom` on those of this level. */
  private readonly consumed: number[] = [];
  private consumedFrom = 0;
  /** What {@link neighbour} found besides. */
  private climbed = 0;
  /** Roots of D2. */
  private readonly dropped: number[] = [];

  constructor(m: Words, tree: MapleTreePtr, innerType: NodeTypeId, supply: NodeSupply) {
    this.m = m;
    this.tree = tree;
    this.innerType = innerType;
    this.supply = supply;
    this.big = new BigNode(m);
  }

  /** Stores what `walk` has found out about; its nodes are reserved. */
  run(walk: WriteWalk): void {
    this.reset();
    this.collectLeaves(walk);
    let level = 1;
    for (let type: NodeTypeId = LEAF; ; type = this.innerType, level++) {
      const whole = this.fillUp(type);
      // One inner node with one child is none, and one free range is none either.
      if (whole && this.big.count === 1 && (type !== LEAF || this.big.slots[0] === 0)) {
        this.publishRoot(this.big.slots[0]!, level - 1);
        return;
      }
      this.divide(type);
      if (whole && this.nrParts === 1) {
        this.publishRoot(this.parts[0]!, level);
        return;
      }
      if (whole) {
        this.big.reset(0);
        this.pushParts();
        this.divide(this.innerType);
        this.publishRoot(this.parts[0]!, level + 1);
        return;
      }
      if (this.nrParts === 1 && this.left === this.right) {
        this.publishInParent();
        return;
      }
      this.goUp();
    }
  }

  /** The first leaf of a tree that has no nodes, with `old` at key 0. Kernel: `mas_root_expand`. */
  makeRoot({ first, last, entry }: WriteWalk, old: number): void {
    const { big } = this;
    this.reset();
    big.reset(0);
    if (first > 0) {
      big.push(old, 0);
      if (first > 1) big.push(0, first - 1);
    }
    big.push(entry, last);
    if (last < MAPLE_MAX) big.push(0, MAPLE_MAX);
    this.divide(LEAF);
    this.publishRoot(this.parts[0]!, 1);
  }

  private reset(): void {
    this.nrFresh = 0;
    this.consumed.length = 0;
    this.dropped.length = 0;
    this.consumedFrom = 0;
    this.supply.begin();
  }

  /** What the leaves on both ends keep, and the entry between. */
  private collectLeaves({ first, last, entry }: WriteWalk): void {
    const { m, big } = this;
    const left = this.leafOf(first);
    const offset = slotFor(m, left, first);
    big.reset(minOf(m, left));
    if (offset > 0) big.pushSlots(left, 0, offset - 1);
    if (first > (offset > 0 ? pivotAt(m, left, offset - 1) + 1 : big.min)) {
      big.push(slotAt(m, left, offset), first - 1);
    }
    big.push(entry, last);
    const limit = maxOf(m, left);
    const spans = last > limit || (last === limit && entry === 0);
    const right = spans ? this.leafOf(last < MAPLE_MAX ? last + 1 : last) : left;
    if (last < maxOf(m, right)) big.pushFrom(right, last + 1);
    this.left = left;
    this.right = right;
    this.consume(left);
    if (right !== left) this.consume(right);
  }

  private leafOf(key: number): number {
    const { m } = this;
    let enode = m[this.tree + ROOT]!;
    while (!isLeaf(enode)) enode = slotAt(m, enode, slotFor(m, enode, key));
    return enode;
  }

  /** W1. Returns whether there is nothing on this level besides what is in hand: then the new root is here. */
  private fillUp(type: NodeTypeId): boolean {
    const { m, big } = this;
    if (this.left === this.right && isRootNode(m, this.left)) return true;
    while (big.isDeficient(type)) {
      const right = this.neighbour(this.right, 1);
      const rightClimb = this.climbed;
      const left = this.neighbour(this.left, -1);
      if (right === 0 && left === 0) return true;
      if (right !== 0 && (left === 0 || rightClimb <= this.climbed)) {
        this.right = right;
        big.pushSlots(right, 0, endOf(m, right));
        this.consume(right);
      } else {
        this.left = left;
        big.prepend(left, minOf(m, left));
        this.consume(left);
      }
    }
    if (this.left === this.right && big.count > SLOTS[type]!) this.pushAside(type);
    return false;
  }

  /** Two nodes for a neighbour's slots and ours, if they fit, instead of one more. Kernel: `mas_push_data`. */
  private pushAside(type: NodeTypeId): void {
    const { m, big } = this;
    // What divide() makes two nodes of.
    const room = twoNodes(type) - big.count;
    const left = this.neighbour(this.left, -1);
    if (left !== 0 && this.climbed === 1 && endOf(m, left) < room) {
      this.left = left;
      big.prepend(left, minOf(m, left));
      this.consume(left);
      return;
    }
    const right = this.neighbour(this.right, 1);
    if (right === 0 || this.climbed > 1 || endOf(m, right) >= room) return;
    this.right = right;
    big.pushSlots(right, 0, endOf(m, right));
    this.consume(right);
  }

  /** The node beside this one on its level, or 0; notes how far up the two have an ancestor in common. */
  private neighbour(enode: number, direction: 1 | -1): number {
    const { m } = this;
    let child = enode;
    for (this.climbed = 1; ; this.climbed++) {
      if (isRootNode(m, child)) return 0;
      const parent = this.parentOf(child);
      const slot = parentSlot(m, child) + direction;
      child = parent;
      if (slot < 0 || slot > endOf(m, parent)) continue;
      child = slotAt(m, parent, slot);
      break;
    }
    for (let i = 1; i < this.climbed; i++) child = slotAt(m, child, direction > 0 ? 0 : endOf(m, child));
    return child;
  }

  private parentOf(enode: number): MapleEnode {
    return enodeOf(parentAddress(this.m, enode), this.innerType);
  }

  /** W2. */
  private divide(type: NodeTypeId): void {
    const { big } = this;
    this.nrParts = big.divide(type);
    for (let part = 0; part < this.nrParts; part++) {
      const enode = enodeOf(this.supply.take(), type);
      this.partGaps[part] = big.write(part, enode);
      this.partMax[part] = big.maxOfPart(part);
      this.parts[part] = enode;
      this.fresh[this.nrFresh++] = enode;
    }
  }

  private pushParts(): void {
    for (let i = 0; i < this.nrParts; i++) this.big.push(this.parts[i]!, this.partMax[i]!, this.partGaps[i]!);
  }

  /** W4. */
  private goUp(): void {
    const { m, big } = this;
    const left = this.parentOf(this.left);
    const right = this.parentOf(this.right);
    const from = parentSlot(m, this.left);
    const to = parentSlot(m, this.right);
    big.reset(0);
    if (from > 0) big.pushSlots(left, 0, from - 1);
    this.pushParts();
    if (to < endOf(m, right)) big.pushSlots(right, to + 1, endOf(m, right));
    if (left === right) this.drop(left, from, to);
    else {
      this.drop(left, from, endOf(m, left));
      this.drop(right, 0, to);
    }
    this.consumedFrom = this.consumed.length;
    this.left = left;
    this.right = right;
    this.consume(left);
    if (right !== left) this.consume(right);
  }

  private consume(enode: number): void {
    this.consumed.push(enode);
  }

  /** Notes what lies below some slots for D2, but for what D1 has. */
  private drop(parent: number, from: number, to: number): void {
    const { m, consumed } = this;
    for (let i = from; i <= to; i++) {
      const child = slotAt(m, parent, i);
      if (consumed.indexOf(child, this.consumedFrom) < 0) this.dropped.push(child);
    }
  }

  /** W3. */
  private publishInParent(): void {
    const { m } = this;
    const parent = this.parentOf(this.left);
    const slot = parentSlot(m, this.left);
    const enode = this.parts[0]!;
    m[nodeOf(enode) + PARENT] = parentWord(parent, slot);
    storeRelease(m, slotsOf(parent) + slot, enode); // pairs with the loads of references in reader.ts
    this.supply.commit();
    this.adopt();
    if (this.innerType === ARANGE) propagateGap(m, enode, this.partGaps[0]!);
    this.bury();
  }

  private publishRoot(root: number, height: number): void {
    const { m, tree } = this;
    const old = m[tree + ROOT]!;
    if (root !== 0) m[nodeOf(root) + PARENT] = ROOT_MARK;
    storeRelease(m, tree + ROOT, root); // pairs with the load of the root in reader.ts
    m[tree + HEIGHT] = height;
    this.supply.commit();
    this.adopt();
    if (isNode(old)) this.dropped.push(old);
    this.bury();
  }

  /** New inner nodes become the parents of what is below them. Kernel: `mas_adopt_children`. */
  private adopt(): void {
    const { m } = this;
    for (let i = 0; i < this.nrFresh; i++) {
      const enode = this.fresh[i]!;
      if (isLeaf(enode)) continue;
      const end = endOf(m, enode);
      for (let slot = 0; slot <= end; slot++) {
        m[nodeOf(slotAt(m, enode, slot)) + PARENT] = parentWord(enode, slot);
      }
    }
  }

  /** D1 first, so that D2 stops there. */
  private bury(): void {
    for (const enode of this.consumed) this.markDead(enode);
    for (const enode of this.dropped) this.buryTree(enode);
  }

  private buryTree(enode: number): void {
    const { m } = this;
    if (isDead(m, enode)) return;
    this.markDead(enode);
    if (isLeaf(enode)) return;
    const end = endOf(m, enode);
    for (let slot = 0; slot <= end; slot++) this.buryTree(slotAt(m, enode, slot));
  }

  private markDead(enode: number): void {
    this.m[nodeOf(enode) + PARENT] = addressOf(enode);
    this.supply.replace(addressOf(enode));
  }
}
