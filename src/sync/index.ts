export * from './atomic.js';
export * from './lock.js';
export * from './lockClass.js';
export * from './lockStat.js';
export * from './lockWord.js';
