export * from './errors.js';
export * from './geometry.js';
export * from './hex.js';
export * from './inspect.js';
export * from './nearest.js';
export * from './struct.js';
export * from './views.js';
