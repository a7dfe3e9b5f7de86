/** defineCache, for functions that are called with an Arena. */
import type { Arena } from './arena.js';
import { type CacheDefinition, type DefinedCache, defineCache as define } from './cache/index.js';

/**
 * Says what a cache of that name is, with its constructor and destructor. Call it at the top of a module that every
 * thread imports which uses the cache. Throws TypeError or RangeError that name the option, also when the name has been
 * defined on this thread before. Kernel: `kmem_cache_args`, with seed 001's `ctor` that may fail and `dtor`.
 * @example
 * export const connections = defineCache('connection', {
 *   size: 96,
 *   ctor(p, arena, gfp) {
 *     const page = arena.allocPages(0, gfp);
 *     if (page === 0) return 12;
 *     arena.i32[(p + 88) >> 2] = page; // stays, however often the object is freed and allocated
 *   },
 *   dtor: (p, arena) => arena.freePages(arena.i32[(p + 88) >> 2]!, 0),
 * });
 */
export const defineCache: (name: string, definition: CacheDefinition<Arena>) => DefinedCache = define;
