export { PercpuAllocator } from './allocator.js';
export type { BalanceReport } from './balance.js';
export * from './bitmap.js';
export { chunkContig, isEmptyPage, isPopulated } from './blocks.js';
export { PercpuCounters } from './counter.js';
export {
  countersInOrder,
  PERCPU_COUNTER_BYTES,
  PercpuCounter,
} from './counterList.js';
export type { PercpuChunkInfo, PercpuInfo } from './info.js';
export * from './layout.js';
export { type PercpuOptions, percpuWords, planPercpu } from './options.js';
export { countAreas } from './repair.js';
export { slotOf } from './slots.js';
