/** Is the tree what it should be? The lock is held. Kernel: `mt_validate`, `mt_validate_nulls`, `mas_validate_gaps`. */
import type { KmemCache } from '../cache/index.js';
import { greatestGap } from './gaps.js';
import {
  addressOf,
  endOf,
  gapAt,
  isLeaf,
  isNode,
  MAPLE_MAX,
  META,
  MIN_END,
  NODE_TYPE_NAMES,
  NodeType,
  nodeOf,
  PARENT,
  parentWord,
  pivotAt,
  ROOT_MARK,
  SEQ_ONE,
  SLOTS,
  slotAt,
  typeOf,
} from './node.js';

const FINDINGS_MAX = 20;

class Validation {
  readonly findings: string[] = [];
  private readonly m: Int32Array;
  private readonly height: number;
  private readonly hasGaps: boolean;
  private readonly nodes: KmemCache;

  constructor(m: Int32Array, height: number, hasGaps: boolean, nodes: KmemCache) {
    this.m = m;
    this.height = height;
    this.hasGaps = hasGaps;
    this.nodes = nodes;
  }

  /** A node that holds [min, max]. Returns its greatest gap. */
  visit(enode: number, min: number, max: number, level: number, parent: number): number {
    const { m } = this;
    if (!this.isSoundNode(enode, level, parent)) return 0;
    const end = endOf(m, enode);
    this.checkFill(enode, end, level);
    let below = min - 1;
    for (let i = 0; i <= end; i++) {
      const pivot = pivotAt(m, enode, i);
      if (pivot <= below) this.find(enode, `pivot ${i} is ${pivot}, not above ${below}`);
      if (isLeaf(enode)) this.checkEntry(enode, i, end);
      else this.checkChild(enode, i, below + 1, pivot, level);
      below = pivot;
    }
    if (below !== max) this.find(enode, `the last pivot is ${below}; its parent has ${max}`);
    return greatestGap(m, enode, min);
  }

  find(enode: number, what: string): void {
    if (this.findings.length >= FINDINGS_MAX) return;
    const name = NODE_TYPE_NAMES[typeOf(enode)] ?? 'unknown';
    this.findings.push(`${name} node 0x${addressOf(enode).toString(16)}: ${what}`);
  }

  private isSoundNode(enode: number, level: number, parent: number): boolean {
    const { m } = this;
    const before = this.findings.length;
    if (!isNode(enode) || addressOf(enode) <= 0) {
      this.findings.push(`level ${level}: ${enode} is no reference to a node`);
      return false;
    }
    const inner = this.hasGaps ? NodeType.ARANGE : NodeType.RANGE;
    const wanted = level === this.height ? NodeType.LEAF : inner;
    if (typeOf(enode) !== wanted) {
      this.find(enode, `level ${level} of ${this.height} has ${NODE_TYPE_NAMES[wanted]} nodes`);
    }
    try {
      this.nodes.assertAllocated(addressOf(enode));
    } catch (error) {
      this.find(enode, (error as Error).message);
    }
    const word = m[nodeOf(enode) + PARENT]!;
    if (word !== parent)
      this.find(enode, `the parent word is 0x${word.toString(16)}, not 0x${parent.toString(16)}`);
    if ((m[nodeOf(enode) + META]! & SEQ_ONE) !== 0)
      this.find(enode, 'its sequence is odd: a store was not completed');
    const end = endOf(m, enode);
    if (end >= SLOTS[typeOf(enode)]!) this.find(enode, `its end is ${end}`);
    return this.findings.length === before;
  }

  private checkFill(enode: number, end: number, level: number): void {
    const { m } = this;
    const type = typeOf(enode);
    const least = level > 1 ? MIN_END[type]! : type === NodeType.LEAF ? 0 : 1;
    if (end < least) this.find(enode, `${end + 1} slots are used, at least ${least + 1} must be`);
    for (let i = end + 1; i < SLOTS[type]!; i++) {
      if (pivotAt(m, enode, i) !== MAPLE_MAX)
        this.find(enode, `pivot ${i}, behind its end, is ${pivotAt(m, enode, i)}`);
    }
  }

  private checkEntry(enode: number, i: number, end: number): void {
    const { m } = this;
    if (slotAt(m, enode, i) !== 0) return;
    if (i > 0 && slotAt(m, enode, i - 1) === 0) this.find(enode, `slots ${i - 1} and ${i} are both free`);
    if (i === end && pivotAt(m, enode, i) !== MAPLE_MAX) this.find(enode, 'it ends with a free range');
  }

  private checkChild(enode: number, i: number, min: number, max: number, level: number): void {
    const gap = this.visit(slotAt(this.m, enode, i), min, max, level + 1, parentWord(enode, i));
    if (!this.hasGaps) return;
    const noted = gapAt(this.m, enode, i);
    if (noted !== gap) this.find(enode, `gap ${i} is ${noted}; below it is ${gap}`);
  }
}

/** What is wrong with a tree, a sentence each. */
export function validateTree(
  m: Int32Array,
  root: number,
  height: number,
  hasGaps: boolean,
  nodes: KmemCache,
): string[] {
  if (!isNode(root)) return height === 0 ? [] : [`there is no node, and the height is ${height}`];
  const validation = new Validation(m, height, hasGaps, nodes);
  validation.visit(root, 0, MAPLE_MAX, 1, ROOT_MARK);
  return validation.findings;
}
