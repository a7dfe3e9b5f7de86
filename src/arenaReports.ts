/** What an arena tells about itself: whether it is sound, and its figures. */
import { ArenaHeap } from './arenaHeap.js';
import { type Finding, validateArena } from './debug/index.js';
import { type CacheInfo, cacheInfo, readAttribute, slabinfo, writeAttribute } from './observe/index.js';
import { lockStatOf, type Meminfo, type ReclaimInfo, reclaimInfoOf, sumMeminfo } from './reports.js';
import type { CallbackError } from './slab/index.js';
import type { Doubles, Geometry, Words } from './struct/index.js';
import { type LockdepInfo, type LockStatRow, readLockdep } from './sync/index.js';

export abstract class ArenaReports extends ArenaHeap {
  abstract readonly i32: Words;
  abstract readonly f64: Doubles;
  abstract readonly geometry: Geometry;
  abstract endTurn(): void;

  /**
   * Checks the whole arena against its invariants; empty when it is sound. {@link INVARIANTS} has them. Other CPUs must be
   * quiet. Ends this turn.
   * @example
   * for (const { invariant, where, what } of arena.validate()) console.error(invariant, where, what);
   */
  validate(): Finding[] {
    this.endTurn();
    return validateArena(this.caches);
  }

  /**
   * What destructors threw on this thread, and what could not be freed after a grace period since a lock's owner had died:
   * nobody calls these who could be told. At most the last 16.
   */
  get callbackErrors(): readonly CallbackError[] {
    return this.caches.slabs.callbacks.errors;
  }

  /** What this thread's allocations had to do for memory since it went online. */
  reclaimInfo(): ReclaimInfo {
    return reclaimInfoOf(this.caches);
  }

  /** The text of /proc/slabinfo. */
  slabinfo(): string {
    return this.caches.withSlabMutex(() => slabinfo(this.caches));
  }

  /**
   * Reads a file of /sys/kernel/slab/<name>, by one of the names of a cache or by its id; {@link attributeFiles} has the
   * files. Throws RangeError when there is no such cache or file.
   * @example
   * arena.readAttribute('vm_area_struct', 'slabs'); // '12 N0=12'
   */
  readAttribute(name: string, file: string): string {
    return readAttribute(this.caches, name, file);
  }

  /**
   * Writes one: `min_partial`, `remote_node_defrag_ratio`, `trace` of a debug cache, '1' to `shrink` and `validate`, '0' to a counter. Throws
   * RangeError where the kernel says EINVAL, and SlabBugError when validate finds something.
   */
  writeAttribute(name: string, file: string, text: string): void {
    writeAttribute(this.caches, name, file, text);
  }

  /** Attributes and counters of each cache, by the names under /sys/kernel/slab. */
  cacheInfo(): CacheInfo[] {
    return this.caches.withSlabMutex(() => this.caches.all().map((cache) => cacheInfo(this.caches, cache)));
  }

  /** Lock statistics by class; empty when the arena was made without. lockStatText and the perf reports show them. */
  lockStat(): LockStatRow[] {
    return lockStatOf(this.i32, this.f64, this.geometry);
  }

  /** What lockdep has seen and reported on all threads; empty when the arena was made without. */
  lockdep(): LockdepInfo {
    return readLockdep(this.i32, this.geometry.lockdep);
  }

  /** Pages in total, free and at the high-water mark. */
  meminfo(): Meminfo {
    return sumMeminfo(this.caches.pages.meminfo());
  }
}
