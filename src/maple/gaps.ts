/** Gaps: the longest free range below each slot of an allocation range node, kept by whoever holds the lock. */
import {
  ARANGE_SLOTS_AT,
  END_MASK,
  enodeOf,
  GAPS_AT,
  isLeaf,
  isNode,
  isRootNode,
  LEAF_SLOTS_AT,
  MAPLE_MAX,
  META,
  NodeType,
  nodeOf,
  PARENT,
  PIVOTS,
  parentAddress,
  parentSlot,
  slotFor,
} from './node.js';

/** The greatest gap of a node whose least key is `min`. Kernel: `mas_leaf_max_gap`, `ma_max_gap`. */
export function greatestGap(m: Int32Array, enode: number, min: number): number {
  const node = nodeOf(enode);
  const end = m[node + META]! & END_MASK;
  let greatest = 0;
  for (let i = 0; i <= end; i++) {
    const gap = isLeaf(enode) ? leafGap(m, node, i, min) : m[node + GAPS_AT + i]!;
    if (gap > greatest) greatest = gap;
  }
  return greatest;
}

function leafGap(m: Int32Array, node: number, i: number, min: number): number {
  if (m[node + LEAF_SLOTS_AT + i] !== 0) return 0;
  return m[node + PIVOTS + i]! - (i > 0 ? m[node + PIVOTS + i - 1]! : min - 1);
}

/** A node's greatest gap is now `gap`: tells its ancestors, as far up as it matters. Kernel: `mas_parent_gap`. */
export function propagateGap(m: Int32Array, enode: number, gap: number): void {
  let child = enode;
  let greatest = gap;
  while (!isRootNode(m, child)) {
    const slot = parentSlot(m, child);
    const parent = enodeOf(parentAddress(m, child), NodeType.ARANGE);
    const at = nodeOf(parent) + GAPS_AT + slot;
    if (m[at] === greatest) return;
    m[at] = greatest;
    greatest = greatestGap(m, parent, 0);
    child = parent;
  }
}

/** The least key of a node. */
export function minOf(m: Int32Array, enode: number): number {
  // A parent word leads to a node as a reference does.
  for (let child = enode; !isRootNode(m, child); child = m[nodeOf(child) + PARENT]!) {
    const slot = parentSlot(m, child);
    if (slot > 0) return m[nodeOf(parentAddress(m, child)) + PIVOTS + slot - 1]! + 1;
  }
  return 0;
}

/**
 * The lowest `size` free keys within [min, max]: the first of them, or -1. The lock is held. Kernel: `mas_empty_area`.
 * A descent follows slots whose gap is large enough, and that end at or after `key`; where the gap turns out to lie
 * before `key` or beyond `max`, the next descent begins behind that leaf.
 */
export function emptyArea(m: Int32Array, root: number, min: number, max: number, size: number): number {
  if (!isNode(root)) return emptyAreaInRoot(root, min, max, size, false);
  for (let key = min; key <= max - size + 1; ) {
    let enode = root;
    let low = 0;
    let found = true;
    while (!isLeaf(enode) && found) {
      const node = nodeOf(enode);
      const end = m[node + META]! & END_MASK;
      let i = slotFor(m, enode, key);
      while (i <= end && m[node + GAPS_AT + i]! < size) i++;
      found = i <= end;
      // All of this node is too small: its last pivot is where to go on.
      if (!found) i = end;
      if (i > 0) low = m[node + PIVOTS + i - 1]! + 1;
      if (!found) key = m[node + PIVOTS + i]!;
      else {
        if (low > key) key = low;
        enode = m[node + ARANGE_SLOTS_AT + i]!;
      }
    }
    if (found) {
      const first = lowestInLeaf(m, enode, low, key, max, size);
      if (first >= 0) return first;
      const node = nodeOf(enode);
      key = m[node + PIVOTS + (m[node + META]! & END_MASK)]!;
    }
    if (key === MAPLE_MAX) return -1;
    key++;
  }
  return -1;
}

function lowestInLeaf(
  m: Int32Array,
  enode: number,
  low: number,
  key: number,
  max: number,
  size: number,
): number {
  const node = nodeOf(enode);
  const end = m[node + META]! & END_MASK;
  for (let i = slotFor(m, enode, key); i <= end; i++) {
    if (m[node + LEAF_SLOTS_AT + i] !== 0) continue;
    const first = Math.max(key, i > 0 ? m[node + PIVOTS + i - 1]! + 1 : low);
    if (Math.min(m[node + PIVOTS + i]!, max) - first >= size - 1) return first;
  }
  return -1;
}

/** The same from above: the highest free keys; returns the first of them. Kernel: `mas_empty_area_rev`. */
export function emptyAreaReverse(
  m: Int32Array,
  root: number,
  min: number,
  max: number,
  size: number,
): number {
  if (!isNode(root)) return emptyAreaInRoot(root, min, max, size, true);
  for (let key = max; key >= min + size - 1; ) {
    let enode = root;
    let low = 0;
    let found = true;
    while (!isLeaf(enode) && found) {
      const node = nodeOf(enode);
      let i = slotFor(m, enode, key);
      while (i >= 0 && m[node + GAPS_AT + i]! < size) i--;
      found = i >= 0;
      if (!found) break;
      key = Math.min(key, m[node + PIVOTS + i]!);
      if (i > 0) low = m[node + PIVOTS + i - 1]! + 1;
      enode = m[node + ARANGE_SLOTS_AT + i]!;
    }
    if (found) {
      const first = highestInLeaf(m, enode, low, key, min, size);
      if (first >= 0) return first;
    }
    // Below this node there may be more; what is in it has been seen.
    key = low - 1;
  }
  return -1;
}

function highestInLeaf(
  m: Int32Array,
  enode: number,
  low: number,
  key: number,
  min: number,
  size: number,
): number {
  const node = nodeOf(enode);
  for (let i = slotFor(m, enode, key); i >= 0; i--) {
    if (m[node + LEAF_SLOTS_AT + i] !== 0) continue;
    const last = Math.min(key, m[node + PIVOTS + i]!);
    const first = Math.max(min, i > 0 ? m[node + PIVOTS + i - 1]! + 1 : low);
    if (last - first >= size - 1) return last - size + 1;
  }
  return -1;
}

/** No nodes: everything is free, but for key 0 when the root is an entry. */
function emptyAreaInRoot(root: number, min: number, max: number, size: number, reverse: boolean): number {
  const low = root !== 0 && min === 0 ? 1 : min;
  if (max - low < size - 1) return -1;
  return reverse ? max - size + 1 : low;
}
