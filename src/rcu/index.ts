export type { RcuCallback } from './callbacks.js';
export { GracePeriods, initGracePeriods, isSince } from './gracePeriod.js';
export { Rcu } from './rcu.js';
export {
  KFREE_RCU_BATCH,
  KfreeRcuCpu,
  type KfreeRcuCpuPtr,
  krcpOf,
  RcuState,
  rcuStateOf,
  rcuWords,
} from './rcuRecord.js';
export { type RcuStall, RcuStallError } from './stall.js';
