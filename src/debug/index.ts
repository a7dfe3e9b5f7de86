export { type Finding, INVARIANTS, type Invariant } from './finding.js';
export { connectSlabDebug } from './slabDebug.js';
export type { ReportedObject, ReportedSlab, SlabReport } from './slabReport.js';
export { type SlabReportHandler, SlabReports } from './slabReports.js';
export { formatTraces } from './traceText.js';
export { validateArena, validateSlabCache } from './validate.js';
