/** defineCache, for functions that are called with an Arena. */
import type { Arena } from './arena.js';
import { type CacheDefinition, type DefinedCache, defineCache as define } from './cache/index.js';

export const defineCache: (name: string, definition: CacheDefinition<Arena>) => DefinedCache = define;
