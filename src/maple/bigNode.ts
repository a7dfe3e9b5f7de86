/**
 * What the new nodes of one level will hold, before it is known how many they are. JavaScript memory of the writing
 * thread: nothing of it is seen by others until it has been copied to nodes and these are published. Kernel:
 * `maple_big_node`.
 */
import {
  endOf,
  GAPS_AT,
  LEAF_SLOTS_AT,
  MAPLE_MAX,
  type MapleEnode,
  META,
  MIN_END,
  NodeType,
  type NodeTypeId,
  nodeOf,
  PARENT,
  PIVOTS,
  SLOTS,
  SLOTS_AT,
  slotFor,
  slotsOf,
  typeOf,
} from './node.js';

/** Two leaves less a slot each, three new pieces, and a neighbour that fills up what came out too small. */
const BIG_SLOTS = 128;
/** A level may need so many nodes: two half-full ends and what lies between. */
export const PARTS_MAX = 3;

/** So many slots fit in two nodes: two full leaves would leave no room to move a boundary off a free range. */
export const twoNodes = (type: NodeTypeId): number => 2 * SLOTS[type]! - (type === NodeType.LEAF ? 2 : 0);

export class BigNode {
  private readonly m: Int32Array;
  readonly pivots = new Int32Array(BIG_SLOTS);
  readonly slots = new Int32Array(BIG_SLOTS);
  readonly gaps = new Int32Array(BIG_SLOTS);
  count = 0;
  /** The least key of the first slot. */
  min = 0;
  /** Where each part ends, after {@link divide}. */
  private readonly ends = new Int32Array(PARTS_MAX);

  constructor(m: Int32Array) {
    this.m = m;
  }

  reset(min: number): void {
    this.count = 0;
    this.min = min;
  }

  /** Appends a slot. Free ranges side by side are one. */
  push(slot: number, pivot: number, gap = 0): void {
    const { count } = this;
    if (slot === 0 && count > 0 && this.slots[count - 1] === 0) {
      this.pivots[count - 1] = pivot;
      return;
    }
    this.slots[count] = slot;
    this.pivots[count] = pivot;
    this.gaps[count] = gap;
    this.count = count + 1;
  }

  /** Appends slots `from` to `to`, included, of a node. */
  pushSlots(enode: number, from: number, to: number): void {
    const { m } = this;
    const node = nodeOf(enode);
    const slots = slotsOf(enode);
    const hasGaps = typeOf(enode) === NodeType.ARANGE;
    for (let i = from; i <= to; i++) {
      this.push(m[slots + i]!, m[node + PIVOTS + i]!, hasGaps ? m[node + GAPS_AT + i]! : 0);
    }
  }

  /** Appends what a leaf has from `key` on. */
  pushFrom(leaf: number, key: number): void {
    this.pushSlots(leaf, slotFor(this.m, leaf, key), endOf(this.m, leaf));
  }

  /** Puts a whole node in front, whose least key is `min`. */
  prepend(enode: number, min: number): void {
    const { m, count } = this;
    const added = endOf(m, enode) + 1;
    for (const array of [this.pivots, this.slots, this.gaps]) array.copyWithin(added, 0, count);
    this.reset(min);
    this.pushSlots(enode, 0, added - 1);
    this.count = added + count;
  }

  /** How many nodes of a type it takes, and which slots go where. No leaf but the last may end with a free range. */
  divide(type: NodeTypeId): number {
    const { count, ends, slots } = this;
    const most = SLOTS[type]!;
    const leaf = type === NodeType.LEAF;
    const parts = count <= most ? 1 : count <= twoNodes(type) ? 2 : PARTS_MAX;
    let from = 0;
    for (let part = 0; part < parts - 1; part++) {
      let size = Math.floor((count - from) / (parts - part));
      if (leaf && slots[from + size - 1] === 0) size += size < most ? 1 : -1;
      from += size;
      ends[part] = from;
    }
    ends[parts - 1] = count;
    return parts;
  }

  /** Writes part `part` into the node at `enode`, which nobody else knows yet. Returns its greatest gap. */
  write(part: number, enode: MapleEnode): number {
    const { m, pivots, slots, gaps } = this;
    const type = typeOf(enode);
    const node = nodeOf(enode);
    const from = part === 0 ? 0 : this.ends[part - 1]!;
    const count = this.ends[part]! - from;
    const most = SLOTS[type]!;
    const slotsAt = node + SLOTS_AT[type]!;
    m[node + PARENT] = 0; // what was here before may have left it marked as dead
    m[node + META] = count - 1;
    for (let i = 0; i < most; i++) {
      const used = i < count;
      m[node + PIVOTS + i] = used ? pivots[from + i]! : MAPLE_MAX;
      m[slotsAt + i] = used ? slots[from + i]! : 0;
    }
    if (type === NodeType.LEAF) return this.leafGap(from, count);
    if (type === NodeType.RANGE) return 0;
    let greatest = 0;
    for (let i = 0; i < most; i++) {
      const gap = i < count ? gaps[from + i]! : 0;
      m[node + GAPS_AT + i] = gap;
      if (gap > greatest) greatest = gap;
    }
    return greatest;
  }

  /** Writes over a leaf that nobody reads without the lock. */
  overwrite(enode: number): void {
    const { m, count } = this;
    const node = nodeOf(enode);
    m[node + META] = count - 1;
    for (let i = 0; i < SLOTS[NodeType.LEAF]!; i++) {
      m[node + PIVOTS + i] = i < count ? this.pivots[i]! : MAPLE_MAX;
      m[node + LEAF_SLOTS_AT + i] = i < count ? this.slots[i]! : 0;
    }
  }

  /** The greatest key of a part. */
  maxOfPart(part: number): number {
    return this.pivots[this.ends[part]! - 1]!;
  }

  /** Whether a node of this type would have too few slots, were it not the root. */
  isDeficient(type: NodeTypeId): boolean {
    return this.count <= MIN_END[type]!;
  }

  private leafGap(from: number, count: number): number {
    const { pivots, slots } = this;
    let greatest = 0;
    for (let i = from; i < from + count; i++) {
      if (slots[i] !== 0) continue;
      const gap = pivots[i]! - (i > 0 ? pivots[i - 1]! : this.min - 1);
      if (gap > greatest) greatest = gap;
    }
    return greatest;
  }
}
