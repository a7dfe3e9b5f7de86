export { lockStatText } from './lockStat.js';
export {
  PERF_LOCK_KEYS,
  type PerfLockKey,
  perfLockContention,
  perfLockReport,
} from './perfLock.js';
export { type CacheInfo, cacheInfo, slabinfo } from './slabinfo.js';
