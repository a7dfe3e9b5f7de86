export { lockStatText } from './lockStat.js';
export {
  PERF_LOCK_KEYS,
  type PerfLockKey,
  type PerfLockRow,
  perfLockContention,
  perfLockReport,
  perfTime,
} from './perfLock.js';
export { type CacheInfo, cacheInfo, slabinfo } from './slabinfo.js';
