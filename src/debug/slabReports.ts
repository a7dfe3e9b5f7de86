/** Where the reports of one thread go: to whoever wants them, or else to the console. They outlive its time on a CPU. */
import { describe } from '../struct/index.js';
import type { SlabReport } from './slabReport.js';

/** What `arena.onSlabReport` takes: called with each report that this thread makes, when it holds no lock. */
export type SlabReportHandler = (report: SlabReport) => void;

export class SlabReports {
  private readonly handlers = new Set<SlabReportHandler>();
  private pending: Array<{ report: SlabReport; quiet: boolean }> = [];

  /** Calls `handler` with each report of this thread from now on, in place of the console. Returns how to end that. */
  on(handler: SlabReportHandler): () => void {
    if (typeof handler !== 'function') {
      throw new TypeError(`handler is ${describe(handler)}; it must be a function of a report`);
    }
    this.handlers.add(handler);
    return () => this.handlers.delete(handler);
  }

  get hasHandlers(): boolean {
    return this.handlers.size > 0;
  }

  get hasPending(): boolean {
    return this.pending.length > 0;
  }

  /** Notes a report; a lock may be held. Without handlers a quiet one is dropped. */
  note(report: SlabReport, quiet = false): void {
    this.pending.push({ report, quiet });
  }

  /** Sends what was noted. What a handler throws is thrown when this turn has ended: the operation is not its business. */
  flush(): void {
    if (this.pending.length === 0) return;
    const { pending } = this;
    this.pending = [];
    for (const { report, quiet } of pending) {
      if (this.handlers.size === 0 && !quiet) console.error(report.text);
      for (const handler of this.handlers) {
        try {
          handler(report);
        } catch (error) {
          queueMicrotask(() => {
            throw error;
          });
        }
      }
    }
  }
}
