export * from './barn.js';
export * from './pcs.js';
export * from './sheaf.js';
