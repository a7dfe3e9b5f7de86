export * from './buddy.js';
export * from './gfp.js';
export * from './page.js';
export * from './pageAllocator.js';
export * from './reclaimer.js';
export * from './watermark.js';
export * from './zone.js';
