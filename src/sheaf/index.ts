export * from './barn.js';
export * from './pcs.js';
export { PCS_BATCH_MAX } from './pcsFlush.js';
export { BOOT_SHEAF, type SheafSource } from './pcsLock.js';
export { PcsNolock } from './pcsNolock.js';
export * from './sheaf.js';
