/** Where a tree's nodes lie, for tests that damage them. */
import type { Arena, MapleTree } from '#src/index.js';
import { MapleTreeStruct } from '#src/maple/index.js';

export const LEAF_META = 1;
const PIVOTS = 2;
const ARANGE_SLOTS = PIVOTS + 20;
const LEAF = 1;

/** The first word of the leaf that has `key`, in a tree with gaps. */
export function leafOf(arena: Arena, tree: MapleTree, key: number): number {
  const m = arena.i32;
  let reference = m[tree.address / 4 + MapleTreeStruct.root]!;
  for (;;) {
    const node = (reference >> 8) << 6;
    if (((reference >> 3) & 7) === LEAF) return node;
    let slot = 0;
    while (m[node + PIVOTS + slot]! < key) slot++;
    reference = m[node + ARANGE_SLOTS + slot]!;
  }
}
