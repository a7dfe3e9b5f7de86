/**
 * A copy of a tree, node by node: no key is looked up, and no node is split. One node for the root, then for each inner
 * node a prefilled sheaf with its children. Kernel: `mas_dup_build`.
 */
import type { KmemCache } from '../cache/index.js';
import {
  addressOf,
  endOf,
  enodeOf,
  isLeaf,
  isNode,
  MAPLE_NODE_BYTES,
  nodeOf,
  PARENT,
  parentWord,
  ROOT_MARK,
  slotAt,
  slotsOf,
  typeOf,
} from './node.js';

const NODE_WORDS = MAPLE_NODE_BYTES / 4;

/** Copies the tree below `root`. Returns the copy's root, or -1 when out of memory: nothing is left of it then. */
export function duplicate(m: Int32Array, nodes: KmemCache, root: number, gfp: number): number {
  if (!isNode(root)) return root;
  const made: number[] = [];
  const copy = (enode: number, address: number, parent: number): number => {
    made.push(address);
    const twin = enodeOf(address, typeOf(enode));
    const at = nodeOf(twin);
    m.copyWithin(at, nodeOf(enode), nodeOf(enode) + NODE_WORDS);
    m[at + PARENT] = parent;
    return twin;
  };
  /** Gives an inner node, whose slots are still the original's, children of its own. */
  const copyChildren = (twin: number): boolean => {
    const count = endOf(m, twin) + 1;
    const sheaf = nodes.prefill(count, gfp);
    if (sheaf === null) return false;
    for (let i = 0; i < count; i++) {
      m[slotsOf(twin) + i] = copy(slotAt(m, twin, i), sheaf.alloc(), parentWord(twin, i));
    }
    nodes.return(sheaf, gfp);
    for (let i = 0; i < count; i++) {
      const child = slotAt(m, twin, i);
      if (!isLeaf(child) && !copyChildren(child)) return false;
    }
    return true;
  };
  const address = nodes.alloc(gfp);
  if (address === 0) return -1;
  const twin = copy(root, addressOf(address), ROOT_MARK);
  if (isLeaf(twin) || copyChildren(twin)) return twin;
  for (const p of made) nodes.free(p);
  return -1;
}
