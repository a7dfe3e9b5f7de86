/** What the main thread and the two workers of a variant say to each other. */
import type { Arena } from '../../src/index.js';
import type { Ours, Workload } from './plan.js';

/** `probe` adds in registers: how the machine runs two threads that share nothing, not even a core. */
export type TeamKind = Ours | 'thi.ng' | 'Uint8Array' | 'probe';

export interface TeamSetup {
  readonly kind: TeamKind;
  readonly thread: 0 | 1;
  readonly handle?: Arena['handle'];
  readonly control: SharedArrayBuffer;
  readonly ring: SharedArrayBuffer;
}

export interface Command {
  readonly workload: Workload | 'probe';
  readonly size: number;
  readonly threads: 1 | 2;
  readonly operations: number;
}

export type ToWorker = { readonly run: Command } | { readonly stop: true };
export type FromWorker = { readonly ready: true } | { readonly ns: number } | { readonly failed: string };

/** Word of the control block that counts arrivals at the start line; it grows by two per two-thread command. */
export const ARRIVED = 0;
/** Word that takes what the probe added up. */
export const PROBE_WORD = 64;
export const CONTROL_BYTES = 1024;

/** The name of the cache that a row uses: rows do not inherit each other's free lists. */
export const cacheName = (workload: Workload, size: number): string => `peers-${workload}-${size}`;
