export { type Finding, INVARIANTS, type Invariant } from './finding.js';
export { validateArena } from './validate.js';
