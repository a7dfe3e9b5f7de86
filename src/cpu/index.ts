export * from './deferred.js';
export * from './lockdepCpu.js';
export * from './percpu.js';
export * from './stat.js';
export * from './thisCpu.js';
export * from './threadSlot.js';
