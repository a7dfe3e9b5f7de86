/**
 * Lookups, on any CPU, without a lock. The caller is in an RCU read section, or holds the tree's lock.
 *
 *  R1  References and entries are loaded with acquire: what was written to a node, or to what an entry names, before it
 *      was published is visible. A plain load would do on the hardware, by the dependency of address on value; in
 *      ECMAScript's model it orders nothing.
 *  R2  Pivots of inner nodes are loaded plain: they are written before the node is published, and never again.
 *  R3  Pivots of a leaf may move (`moveBoundaries` in writer.ts). They are searched with plain loads, which may be wrong
 *      by then, and the two that bound the slot are loaded again between two loads of the leaf's sequence: all five
 *      accesses, entry included, are sequentially consistent, so equal and even sequences mean that nothing moved.
 *  R4  A node that was replaced stays as it was while somebody may read it. What is found there was so at some moment of
 *      this lookup.
 *  R5  A writer between its two stores of the sequence is descheduled or dead: a reader that has looked too often asks
 *      for the range under the lock, and sleeps or learns of the death there.
 */
import { GranaryError, type Words } from '../struct/index.js';
import { loadAcquire } from '../sync/index.js';
import { checkKey } from './keys.js';
import { type MapleTreePtr, MapleTreeStruct } from './mapleTree.js';
import {
  ARANGE_SLOTS_AT,
  LEAF_SLOTS_AT,
  MAPLE_MAX,
  META,
  NodeType,
  PIVOTS,
  SEQ_ONE,
  search20,
  search31,
} from './node.js';

// Imported names are looked up at each use; module-local constants are folded.
const load = loadAcquire;
const inArange = search20;
const inRange = search31;
const { root: ROOT } = MapleTreeStruct;
const { LEAF, ARANGE } = NodeType;
const AT = PIVOTS;
const SEQ = META;
const ENTRIES = LEAF_SLOTS_AT;
const ARANGE_SLOTS = ARANGE_SLOTS_AT;
const ODD = SEQ_ONE;
const MAX = MAPLE_MAX;
const TRIES_MAX = 100;

export class MapleReader {
  private readonly m: Words;
  private readonly root: number;
  private readonly underLock: (body: () => void) => void;
  /** Whether a lookup of this reader has taken the lock. */
  private locked = false;
  /** The range that the latest lookup found. */
  first = 0;
  last = 0;

  constructor(m: Words, tree: MapleTreePtr, underLock: (body: () => void) => void) {
    this.m = m;
    this.root = tree + ROOT;
    this.underLock = underLock;
  }

  /** The entry at `key`, 0 if it is free; `first` and `last` are the range that it has. Kernel: `mas_walk`. */
  lookup(key: number): number {
    const { m } = this;
    let reference = load(m, this.root);
    if ((reference & 3) !== 2) return this.withoutNodes(reference, key);
    let low = 0;
    for (;;) {
      const node = (reference >> 8) << 6;
      const type = (reference >> 3) & 7;
      if (type === LEAF) return this.inLeaf(node, key, low);
      const arange = type === ARANGE;
      const slot = arange ? inArange(m, node + AT, key) : inRange(m, node + AT, key);
      if (slot !== 0) low = (m[node + AT - 1 + slot]! + 1) | 0;
      reference = load(m, node + (arange ? ARANGE_SLOTS : ENTRIES) + slot);
    }
  }

  private inLeaf(node: number, key: number, low: number): number {
    const { m } = this;
    const pivots = (node + AT) | 0;
    for (let tries = 0; tries < TRIES_MAX; tries++) {
      const sequence = load(m, node + SEQ);
      const slot = inRange(m, pivots, key);
      if (slot > (sequence & 0xff)) continue; // the plain search mixed pivots of two states
      const last = load(m, pivots + slot);
      const first = slot === 0 ? low : load(m, pivots + slot - 1) + 1;
      const entry = load(m, node + ENTRIES + slot);
      if ((sequence & ODD) !== 0 || load(m, node + SEQ) !== sequence || key < first || key > last) continue;
      this.first = first;
      this.last = last;
      return entry;
    }
    return this.lookupUnderLock(key);
  }

  private withoutNodes(entry: number, key: number): number {
    this.first = entry !== 0 && key > 0 ? 1 : 0;
    this.last = entry !== 0 && key === 0 ? 0 : MAX;
    return key === 0 ? entry : 0;
  }

  private lookupUnderLock(key: number): number {
    checkKey('key', key); // what is no key is in no range, however often we look
    if (this.locked)
      throw new GranaryError(`maple tree: a leaf at key ${key} is half written, and nobody writes`);
    let entry = 0;
    this.underLock(() => {
      this.locked = true;
      try {
        entry = this.lookup(key); // nobody moves boundaries now
      } finally {
        this.locked = false;
      }
    });
    return entry;
  }
}
