export * from './barn.js';
export { barnForgetGrowth, barnGrowthMax, barnLimit } from './barnLimit.js';
export * from './pcs.js';
export { PCS_BATCH_MAX } from './pcsFlush.js';
export { BOOT_SHEAF, type MainCounters, type SheafSource } from './pcsLock.js';
export { PcsNolock } from './pcsNolock.js';
export * from './percpuArray.js';
export * from './prefilled.js';
export * from './sheaf.js';
