/** What ending and shrinking a cache report. */

/** What destroy found: a cache is gone when nothing leaked, else it is unlinked and its memory stays. */
export interface LeakReport {
  cache: string;
  leaked: number;
  /** Addresses of the objects that were never freed, those in borrowed sheaves among them. */
  objects: number[];
  /** Prefilled sheaves that were not returned, if there are any. */
  sheaves?: number;
  /** Other names that the cache merged with and that still use its slabs, if there are any: what leaked is not known. */
  users?: number;
}

/** What {@link KmemCache.shrink} did. */
export interface ShrinkReport {
  /** Slabs that remain. */
  slabs: number;
  /** CPUs that did not give up their sheaves in time. */
  skippedCpus: number[];
}

/** What the destruction of a private set of kmalloc caches found: its caches with objects that were not freed. */
export interface BucketsLeakReport {
  buckets: string;
  /** Objects of all its caches that were not freed. */
  leaked: number;
  caches: LeakReport[];
}
