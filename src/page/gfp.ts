/** Allocation flags, with the kernel's names. The values are ours. */
export const __GFP_ZERO = 1 << 0;
/** The caller may wait for memory to be reclaimed. */
export const __GFP_DIRECT_RECLAIM = 1 << 1;
/** Take the memory from the requested node or not at all. */
export const __GFP_THISNODE = 1 << 2;
export const __GFP_NOWARN = 1 << 3;
export const __GFP_NORETRY = 1 << 4;

export const GFP_KERNEL = __GFP_DIRECT_RECLAIM;
export const GFP_NOWAIT = 0;
export const GFP_ATOMIC = 0;

/** Internal, for restricted contexts: zone->lock is only tried. */
export const ALLOC_TRYLOCK = 1 << 30;

/** No preference for a node. */
export const NUMA_NO_NODE = -1;
