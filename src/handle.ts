/** Plain data about arenas and the threads that come to them. */

/** What a worker needs to attach: plain data that survives postMessage, workerData and piscina tasks. */
export interface ArenaHandle {
  /** Says whose handle it is. */
  readonly granary: 1;
  readonly buffer: SharedArrayBuffer;
}

/** What {@link Arena.online} takes. */
export interface OnlineOptions {
  /** The CPU slot to run on; by default that of the thread slot. */
  cpu?: number;
  /** The thread slot to take; the lowest free one by default. The same as `cpu`, unless threads share CPUs. */
  thread?: number;
  /** Any integer by which the thread can be told later, e.g. its threadId. */
  tid?: number;
}
