export { type CacheInfo, cacheInfo, slabinfo } from './slabinfo.js';
