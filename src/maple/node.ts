/**
 * A maple node: 256 bytes, aligned to its size, so that the low byte of a reference to it is free for what it is.
 *
 * | word    | leaf, range                               | allocation range                       |
 * |---------|-------------------------------------------|----------------------------------------|
 * | 0       | parent                                    | the same                               |
 * | 1       | meta: `end` (slots in use - 1), sequence  | the same                               |
 * | 2..     | 31 pivots                                 | 20 pivots                              |
 * | after   | 31 slots                                  | 20 slots                               |
 * | after   |                                           | 20 gaps: longest free run below a slot |
 *
 * Slot i holds the keys from pivot i-1 (excluded; the node's own least key for i = 0) to pivot i (included). Pivots
 * beyond `end` are MAPLE_MAX, so that a search needs no look at `end`. A leaf's slots hold entries, 0 for a free range;
 * the others' hold references. A kernel of 64-bit words has 16 and 10 slots in the same bytes.
 *
 * | reference bits | meaning                                                     |
 * |----------------|-------------------------------------------------------------|
 * | 0-1            | 2: this is a node, not an entry                             |
 * | 3-5            | type: LEAF, RANGE, ARANGE                                   |
 * | 8-30           | address                                                     |
 *
 * The parent word is the parent's reference with the slot in place of tag and type (bits 0-4), ROOT_MARK for the root,
 * and the node's own address once it has been replaced: dead. Kernel: `struct maple_node`, `maple_enode`.
 */
import { type Ptr, struct } from '../struct/index.js';

export const MAPLE_NODE_BYTES = 256;
/** The greatest key; keys are integers from 0 to it. */
export const MAPLE_MAX = 0x7fffffff;

const MapleNode = struct('maple_node', { parent: 1, meta: 1, pivots: 62 });
type MapleNodePtr = Ptr<'maple_node'>;

/** A reference to a node: address, type and tag in one word. Kernel: `maple_enode`. */
export type MapleEnode = number & { readonly __enode: true };

export const NodeType = { LEAF: 1, RANGE: 2, ARANGE: 3 } as const;
export type NodeTypeId = (typeof NodeType)[keyof typeof NodeType];
export const NODE_TYPE_NAMES = ['', 'leaf', 'range', 'allocation range'];

/** Slots of a node, by type. */
export const SLOTS: readonly number[] = [0, 31, 31, 20];
/** Least `end` of a node that is not the root, by type. Kernel: `mt_min_slots`. */
export const MIN_END: readonly number[] = [0, 13, 13, 9];
/** More levels than any tree can have: a level divides its keys by 10 at least. Kernel: MAPLE_HEIGHT_MAX. */
export const HEIGHT_MAX = 31;

export const PARENT = MapleNode.parent;
export const META = MapleNode.meta;
export const PIVOTS = MapleNode.pivots;
/** Where slots begin, by type; gaps follow those of an allocation range node. */
export const SLOTS_AT: readonly number[] = [0, PIVOTS + 31, PIVOTS + 31, PIVOTS + 20];
export const LEAF_SLOTS_AT = PIVOTS + 31;
export const ARANGE_SLOTS_AT = PIVOTS + 20;
export const GAPS_AT = PIVOTS + 40;

const TAG_MASK = 3;
const NODE_TAG = 2;
const TYPE_SHIFT = 3;
const TYPE_MASK = 7;
const ADDRESS_MASK = ~0xff;
/** From a reference to the index of its node's first word: address / 4. */
const ADDRESS_SHIFT = 8;
const WORDS_SHIFT = 6;

const SLOT_MASK = 0x1f;
/** In the parent word of the root. */
export const ROOT_MARK = 0x20;

export const END_MASK = 0xff;
/** A leaf's sequence counts by this; odd while a store that takes more than one word is under way. */
export const SEQ_ONE = 0x100;

export const isNode = (word: number): boolean => (word & TAG_MASK) === NODE_TAG;
export const typeOf = (enode: number): NodeTypeId => ((enode >> TYPE_SHIFT) & TYPE_MASK) as NodeTypeId;
export const isLeaf = (enode: number): boolean => typeOf(enode) === NodeType.LEAF;
/** First word of the node. */
export const nodeOf = (enode: number): MapleNodePtr =>
  ((enode >> ADDRESS_SHIFT) << WORDS_SHIFT) as MapleNodePtr;
export const addressOf = (enode: number): number => enode & ADDRESS_MASK;
export const enodeOf = (address: number, type: NodeTypeId): MapleEnode =>
  (address | (type << TYPE_SHIFT) | NODE_TAG) as MapleEnode;

/** Where the slots of a node begin, as a word index. */
export const slotsOf = (enode: number): number => nodeOf(enode) + SLOTS_AT[typeOf(enode)]!;
export const endOf = (m: Int32Array, enode: number): number => m[nodeOf(enode) + META]! & END_MASK;
export const slotAt = (m: Int32Array, enode: number, i: number): number => m[slotsOf(enode) + i]!;
export const pivotAt = (m: Int32Array, enode: number, i: number): number => m[nodeOf(enode) + PIVOTS + i]!;
export const gapAt = (m: Int32Array, enode: number, i: number): number => m[nodeOf(enode) + GAPS_AT + i]!;
/** The greatest key of a node. */
export const maxOf = (m: Int32Array, enode: number): number => pivotAt(m, enode, endOf(m, enode));

/** The parent's address with the slot that this node is in. */
export const parentWord = (parent: number, slot: number): number => addressOf(parent) | slot;
export const isRootNode = (m: Int32Array, enode: number): boolean =>
  (m[nodeOf(enode) + PARENT]! & ROOT_MARK) !== 0;
export const parentSlot = (m: Int32Array, enode: number): number => m[nodeOf(enode) + PARENT]! & SLOT_MASK;
export const parentAddress = (m: Int32Array, enode: number): number => addressOf(m[nodeOf(enode) + PARENT]!);
/** Whether a node has been replaced. Kernel: `ma_dead_node`. */
export const isDead = (m: Int32Array, enode: number): boolean =>
  m[nodeOf(enode) + PARENT]! === addressOf(enode);

/**
 * The slot of a leaf or range node that holds `key`: the first whose pivot is not less. A binary search without
 * branches: keys are 31 bits, so the sign of a difference of two is their order. `at` is the first pivot's index.
 */
export function search31(m: Int32Array, at: number, key: number): number {
  let i = at | 0;
  i = (i + (((m[i + 15]! - key) >>> 31) << 4)) | 0;
  i = (i + (((m[i + 7]! - key) >>> 31) << 3)) | 0;
  i = (i + (((m[i + 3]! - key) >>> 31) << 2)) | 0;
  i = (i + (((m[i + 1]! - key) >>> 31) << 1)) | 0;
  i = (i + ((m[i]! - key) >>> 31)) | 0;
  return (i - at) | 0;
}

/** The same among the 20 pivots of an allocation range node. */
export function search20(m: Int32Array, at: number, key: number): number {
  let i = at | 0;
  i = (i + Math.imul((m[i + 9]! - key) >>> 31, 10)) | 0;
  i = (i + Math.imul((m[i + 4]! - key) >>> 31, 5)) | 0;
  i = (i + (((m[i + 1]! - key) >>> 31) << 1)) | 0;
  i = (i + ((m[i]! - key) >>> 31)) | 0;
  i = (i + ((m[i]! - key) >>> 31)) | 0;
  return (i - at) | 0;
}

/** The slot of any node that holds `key`. */
export function slotFor(m: Int32Array, enode: number, key: number): number {
  const at = nodeOf(enode) + PIVOTS;
  return typeOf(enode) === NodeType.ARANGE ? search20(m, at, key) : search31(m, at, key);
}
