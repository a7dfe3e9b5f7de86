/** One variant, ready to measure: threads or processes of its own that sleep between commands. */
import type { Variant } from './plan.js';
import type { Command } from './protocol.js';

export interface Peer {
  readonly variant: Variant | 'probe';
  /** Nanoseconds that the slowest thread took. Rejects when the variant cannot go on. */
  run(command: Command): Promise<number>;
  /** Whether a failed command has spoilt the rows to come as well: they share threads and memory. */
  readonly spoilt: boolean;
  /** Ends its threads and processes; resolves with what is wrong with the state they left, or undefined. */
  close(): Promise<string | undefined>;
  /** Processes of its own, for the account of who used the machine. */
  pids(): number[];
}

/** Longest time for one command. A sample takes some 50 ms. */
export const COMMAND_LIMIT_MS = 60_000;

/** Rejects when `work` takes too long; says who and what. */
export async function withinLimit<T>(work: Promise<T>, what: string, limitMs = COMMAND_LIMIT_MS): Promise<T> {
  let timer: NodeJS.Timeout | undefined;
  const late = new Promise<never>((_, reject) => {
    timer = setTimeout(() => reject(new Error(`${what} did not end within ${limitMs / 1000} s`)), limitMs);
  });
  try {
    return await Promise.race([work, late]);
  } finally {
    clearTimeout(timer);
  }
}
