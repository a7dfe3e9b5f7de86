/** Where operations ended, from the counters of all caches: how many each figure grew by in a run. */
import type { Arena } from '../arena.js';
import type { StatItem, Stats } from '../cpu/index.js';

/** Summed over all caches. */
export interface PathCounts {
  /** Allocations and frees that the CPU's sheaves served. */
  fast: number;
  /** Those that went to a slab one by one. */
  slow: number;
  allocs: number;
  /** Sheaves that were exchanged with the barn. */
  barn: number;
  /** Exchanges that the barn could not serve: slabs were needed. */
  barnFailed: number;
  /** Objects that were taken out of slabs, one by one or to fill a sheaf. */
  fromSlabs: number;
  /** Objects that went between slabs and what stands in front of them, in either direction. */
  moved: number;
  /** Calls that went to a slab because another thread had the lock of this CPU's sheaves. */
  bypassed: number;
}

/** Calls of one cache, and those that its CPU's sheaves served. */
export interface CacheHits {
  calls: number;
  fast: number;
}

/** The counters that make up each figure. */
const PATH_ITEMS: Readonly<Record<Exclude<keyof PathCounts, 'bypassed'>, readonly StatItem[]>> = {
  fast: ['ALLOC_FASTPATH', 'FREE_FASTPATH'],
  slow: ['ALLOC_SLOWPATH', 'FREE_SLOWPATH'],
  allocs: ['ALLOC_FASTPATH', 'ALLOC_SLOWPATH'],
  barn: ['BARN_GET', 'BARN_PUT'],
  barnFailed: ['BARN_GET_FAIL', 'BARN_PUT_FAIL'],
  fromSlabs: ['ALLOC_SLOWPATH', 'SHEAF_REFILL'],
  moved: ['ALLOC_SLOWPATH', 'FREE_SLOWPATH', 'SHEAF_REFILL', 'SHEAF_FLUSH'],
};

export const noPaths = (): PathCounts => ({
  fast: 0,
  slow: 0,
  allocs: 0,
  barn: 0,
  barnFailed: 0,
  fromSlabs: 0,
  moved: 0,
  bypassed: 0,
});

/** What a build whose threads can share a CPU counts besides. */
interface Bypasses {
  readonly allocBypasses?: number;
  readonly freeBypasses?: number;
}

/** A cache whose layer counts what the 26 do not. */
interface LayerCounts {
  layerStats?(): Partial<Record<string, number>>;
}
/** Per-CPU arrays count their calls, and the objects they are filled with and flushed of, under names of their own. */
const LAYER_ITEMS: Partial<Record<keyof PathCounts, readonly string[]>> = {
  fast: ['ALLOC_PCA', 'FREE_PCA'],
  allocs: ['ALLOC_PCA'],
  fromSlabs: ['PCA_REFILL'],
  moved: ['PCA_REFILL', 'PCA_FLUSH'],
};

/** Adds `counts`, or with `sign` -1 takes them away. */
export function addPaths(sum: PathCounts, counts: PathCounts, sign: 1 | -1 = 1): PathCounts {
  for (const key of Object.keys(sum) as Array<keyof PathCounts>) sum[key] += sign * counts[key];
  return sum;
}

/** Follows the counters of an arena from run to run. */
export class PathCounter {
  #paths = noPaths();
  #hits = new Map<string, CacheHits>();
  readonly #hitsBefore = new Map<string, CacheHits>();

  /** Of the last run, by cache. */
  get hits(): ReadonlyMap<string, CacheHits> {
    return this.#hits;
  }

  /** What the counters of all caches grew by since the last call. */
  take(arena: Arena): PathCounts {
    const now = noPaths();
    this.#hits = new Map();
    for (const { name, stats, ...info } of arena.cacheInfo()) {
      this.#takeHits(name, stats);
      for (const key of Object.keys(PATH_ITEMS) as Array<keyof typeof PATH_ITEMS>) {
        for (const item of PATH_ITEMS[key]) now[key] += stats[item];
      }
      const { allocBypasses = 0, freeBypasses = 0 } = info as Bypasses;
      now.bypassed += allocBypasses + freeBypasses;
      const own = (arena.openCache(name) as unknown as LayerCounts).layerStats?.() ?? {};
      for (const key of Object.keys(LAYER_ITEMS) as Array<keyof PathCounts>) {
        for (const item of LAYER_ITEMS[key]!) now[key] += own[item] ?? 0;
      }
    }
    const grown = addPaths({ ...now }, this.#paths, -1);
    this.#paths = now;
    return grown;
  }

  #takeHits(name: string, stats: Stats): void {
    if (name.startsWith('km')) return;
    const fast = stats.ALLOC_FASTPATH + stats.FREE_FASTPATH + stats.FREE_RCU_SHEAF;
    const now = { fast, calls: fast + stats.ALLOC_SLOWPATH + stats.FREE_SLOWPATH };
    const before = this.#hitsBefore.get(name) ?? { fast: 0, calls: 0 };
    this.#hitsBefore.set(name, now);
    if (now.calls > before.calls) {
      this.#hits.set(name, { fast: now.fast - before.fast, calls: now.calls - before.calls });
    }
  }
}
