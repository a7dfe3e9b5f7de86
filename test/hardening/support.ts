/** What the tests of hardened and shuffled freelists look at: the order of objects, and links as they are stored. */
import type { KmemCache } from '#src/cache/index.js';
import type { Arena, ArenaOptions, CacheOptions, SlabReport } from '#src/index.js';
import { freelistPtr } from '#src/slab/freePointer.js';
import { boot } from '../cache/support/arena.js';

export const HARDENED: Partial<ArenaOptions> = { freelistHardened: true };
export const RANDOM: Partial<ArenaOptions> = { freelistRandom: true, kmalloc: { seed: 7 } };
export const BOTH: Partial<ArenaOptions> = { ...HARDENED, ...RANDOM };

/** An arena and a cache of 64 objects a slab, whose objects come straight from slabs. */
export function setup(options: Partial<ArenaOptions>, cacheOptions: Partial<CacheOptions> = {}) {
  const arena = boot({ layer: 'none', ...options });
  const cache = arena.createCache('c', { size: 64, ...cacheOptions });
  const reports: SlabReport[] = [];
  arena.onSlabReport((report) => reports.push(report));
  return { arena, cache, reports };
}

/** Where the word of `p` lies that names the next free object. */
export const linkWord = (cache: KmemCache, p: number): number => (p + cache.desc.offset) >> 2;

/** Makes a free object lead to `to`, as somebody would who knew the secret. */
export function forgeLink(arena: Arena, cache: KmemCache, p: number, to: number): void {
  const { offset, random } = cache.desc;
  arena.i32[linkWord(cache, p)] = freelistPtr(to, random, p + offset);
}

/** Reports are sent when no lock is held, at the latest at the end of the turn. */
export const sent = (): Promise<void> => new Promise((resolve) => setImmediate(resolve));
