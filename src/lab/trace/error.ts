/** What can be wrong with a trace file or with its replay. */
import { GranaryError } from '../../struct/index.js';

/**
 * A trace that cannot be read: `file:line: what is wrong`. `line` counts from 1; it is 0 where the trouble is
 * the file as a whole (missing, empty).
 */
export class TraceError extends GranaryError {
  override name = 'TraceError';
  readonly file: string;
  readonly line: number;

  constructor(file: string, line: number, problem: string, options?: ErrorOptions) {
    super(line > 0 ? `${file}:${line}: ${problem}` : `${file}: ${problem}`);
    if (options?.cause !== undefined) this.cause = options.cause;
    this.file = file;
    this.line = line;
  }
}

/** Another CPU did not allocate, within the limit, the object that this one has to free. */
export class ReplayTimeoutError extends GranaryError {
  override name = 'ReplayTimeoutError';
  readonly cpu: number;
  readonly slot: number;
  readonly op: number;
  readonly waitedMs: number;

  constructor(cpu: number, slot: number, op: number, waitedMs: number) {
    super(
      `replay CPU ${cpu}, operation ${op}: waited ${waitedMs.toFixed(0)} ms for the object of slot ${slot}, ` +
        'which another CPU allocates; each CPU of the program needs a thread of its own that is still running',
    );
    this.cpu = cpu;
    this.slot = slot;
    this.op = op;
    this.waitedMs = waitedMs;
  }
}
