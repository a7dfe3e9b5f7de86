export type { DetachedCpuSlab } from './cpuSlabs.js';
export * from './flags.js';
export { type FreelistLoops, linkObjects, makeFreelistLoops } from './freelist.js';
export * from './kmemCache.js';
export * from './layout.js';
export { oomReport } from './oomReport.js';
export * from './partialList.js';
export { SlabAllocator } from './shrink.js';
export * from './slabWord.js';
