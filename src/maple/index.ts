export type { MapleCursor } from './cursor.js';
export { initMapleTree, Maple, type MapleTreeOptions } from './maple.js';
export { type MapleTreePtr, MapleTreeStruct } from './mapleTree.js';
export { MAPLE_MAX } from './node.js';
export { type MapleRange, MapleTree } from './tree.js';
export { STORE_TYPES, type StoreType } from './writeWalk.js';
