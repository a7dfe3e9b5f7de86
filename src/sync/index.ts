export * from './atomic.js';
export * from './lock.js';
export * from './lockClass.js';
export * from './lockdep.js';
export * from './lockdepGraph.js';
export * from './lockdepOff.js';
export * from './lockStat.js';
export * from './lockWord.js';
