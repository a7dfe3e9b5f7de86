export type { RcuCallback } from './callbacks.js';
export { GracePeriods, initGracePeriods, isSince } from './gracePeriod.js';
export { Rcu, type RcuStall, RcuStallError } from './rcu.js';
export { RcuCpu, RcuState, rcuCpuOf, rcuStateOf, rcuWords } from './rcuRecord.js';
