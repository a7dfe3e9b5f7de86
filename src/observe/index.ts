export { attributeFiles, readAttribute, writeAttribute } from './attributes.js';
export { lockStatText } from './lockStat.js';
export {
  PERF_LOCK_KEYS,
  type PerfLockKey,
  type PerfLockRow,
  perfLockContention,
  perfLockReport,
  perfTime,
} from './perfLock.js';
export { type CacheInfo, cacheInfo, type NodeInfo, slabinfo } from './slabinfo.js';
export { type SlabinfoOptions, type SlabinfoSort, selectCaches, slabinfoTool } from './slabinfoTool.js';
