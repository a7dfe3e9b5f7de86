export type { MapleCursor } from './cursor.js';
export { initMapleTree, Maple, type MapleTreeOptions } from './maple.js';
export { type MapleTreePtr, MapleTreeStruct } from './mapleTree.js';
export { MAPLE_MAX, MAPLE_NODE_BYTES } from './node.js';
export { type ExternLock, type MapleRange, MapleTree } from './tree.js';
export { STORE_TYPES, type StoreType } from './writeWalk.js';
