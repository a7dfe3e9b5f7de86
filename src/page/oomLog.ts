/** Reports of failed allocations: kept, not printed, and not more than a few at a time. */

/** Kernel: the default rate limit of its messages. */
const BURST = 10;
const INTERVAL_MS = 5000;

export class OomLog {
  /** The latest report. */
  last: string | undefined;
  /** Failures that wanted a report. */
  failures = 0;
  /** How many of them got none, since there were too many. */
  suppressed = 0;
  private windowStart = 0;
  private inWindow = 0;

  /** Keeps a report. `text` is called only if the rate allows it. */
  report(text: () => string): void {
    this.failures++;
    const now = performance.now();
    if (now - this.windowStart > INTERVAL_MS) {
      this.windowStart = now;
      this.inWindow = 0;
    }
    if (++this.inWindow > BURST) this.suppressed++;
    else this.last = text();
  }
}
