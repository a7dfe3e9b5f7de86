/** The struct of a tree in the arena. Everything but `root` is read and written by whoever holds the lock. */
import { LINE_WORDS, type Ptr, struct } from '../struct/index.js';
import { Lock } from '../sync/index.js';

export const MapleTreeStruct = struct(
  'maple_tree',
  {
    lock: Lock.SIZEOF,
    /** 0: empty; an entry: the range [0, 0]; else a reference to the root node. Readers load it with acquire. */
    root: 1,
    flags: 1,
    /** Levels of nodes; 0 while there is none. */
    height: 1,
  },
  { alignWords: LINE_WORDS },
);
export type MapleTreePtr = Ptr<'maple_tree'>;

/** Inner nodes keep gaps. Kernel: MT_FLAGS_ALLOC_RANGE. */
export const MT_FLAGS_ALLOC_RANGE = 1;
/** There are readers without the lock. Kernel: MT_FLAGS_USE_RCU. */
export const MT_FLAGS_USE_RCU = 2;
