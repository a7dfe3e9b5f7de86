/** The victim of corruption: a cache with an allocated and a freed object, and what is reported about it. */
import type { KmemCache } from '#src/cache/index.js';
import type { Arena, ArenaOptions, CheckLevel, SlabReport } from '#src/index.js';
import { allocMany, boot } from '../cache/support/arena.js';

export const LAYOUTS: Array<{ size: number; align: number }> = [
  { size: 8, align: 8 },
  { size: 24, align: 0 },
  { size: 50, align: 0 },
  { size: 64, align: 64 },
  { size: 300, align: 0 },
  { size: 2000, align: 128 },
];
if (process.env.GRANARY_LONG !== undefined) {
  let seed = 1;
  const random = (n: number): number => {
    seed = (Math.imul(seed, 1103515245) + 12345) & 0x7fffffff;
    return (seed >> 8) % n;
  };
  for (let i = 0; i < 1000; i++)
    LAYOUTS.push({ size: 2 + random(3000), align: [0, 8, 16, 64, 256][random(5)]! });
}

/** The columns of the matrix: what every case is tried in. A new option that hardens is one line in the last. */
export const COLUMNS: Record<'plain' | 'debug' | 'hardened', Partial<ArenaOptions>> = {
  plain: {},
  debug: { slabDebug: 'FZPU,victim' },
  hardened: {
    check: 'full',
    initOnAlloc: true,
    initOnFree: true,
    hardenedUsercopy: true,
    kmalloc: { copies: 3, seed: 0x5eed },
  },
};
/** Columns without debug flags, where damage of bytes is the user's own matter. */
export const WITHOUT_DEBUG = (['plain', 'hardened'] as const).map((name) => [name, COLUMNS[name]] as const);

export interface Scene {
  arena: Arena;
  cache: KmemCache;
  /** Allocated. */
  p: number;
  /** Freed, the next to be handed out. */
  free: number;
  errors: () => number;
  reports: SlabReport[];
}

export function scene(
  slabDebug: string,
  { size, align }: { size: number; align: number },
  check: CheckLevel = 'free',
  arena = boot({ slabDebug, check, bytes: 4 << 20 }),
): Scene {
  const cache = arena.createCache('victim', { size, align });
  const reports: SlabReport[] = [];
  arena.onSlabReport((report) => reports.push(report));
  const [p, free] = allocMany(cache, 2) as [number, number];
  cache.free(free);
  return { arena, cache, p, free, errors: () => cache.debug.errors, reports };
}
