export { type Finding, INVARIANTS, type Invariant } from './finding.js';
export { validateArena, validateSlabCache } from './validate.js';
