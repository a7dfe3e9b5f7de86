/** Grace periods that do not end: who holds them up, as a report and as an error. */
import { GranaryError } from '../struct/index.js';

/** A grace period did not end within the limit. */
export class RcuStallError extends GranaryError {
  override name = 'RcuStallError';
  /** CPUs that have not been quiescent. */
  readonly cpus: readonly number[];

  constructor(message: string, cpus: readonly number[]) {
    super(message);
    this.cpus = cpus;
  }
}

/** Who holds a grace period up, and for how long it has been waited for. */
export interface RcuStall {
  cpus: readonly number[];
  waitedMs: number;
}

const namesOf = (cpus: readonly number[]): string => cpus.map((cpu) => `CPU ${cpu}`).join(', ');

export function stallText({ cpus, waitedMs }: RcuStall): string {
  return (
    `granary: RCU grace period waits since ${Math.round(waitedMs)} ms for ${namesOf(cpus)}, which did not end ` +
    'its turn'
  );
}

/** The error after so many milliseconds; `what` the CPUs did not do. */
export function stallError(limitMs: number, cpus: readonly number[], what: string): RcuStallError {
  return new RcuStallError(
    `RCU stalled for ${limitMs} ms: ${namesOf(cpus) || 'CPUs that have left since'} ${what}; a long loop must call ` +
      'rcu.quiescent() or end its turn, and a thread that is gone must be reaped with cpuDead()',
    cpus,
  );
}
