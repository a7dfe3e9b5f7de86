/** What the kernel's slub_kunit has: caches that no boot option changes, and a count of errors that a test resets. */
import type { KmemCache } from '#src/cache/index.js';
import { Arena, type ArenaOptions, SLAB_NO_USER_FLAGS, type SlabReport } from '#src/index.js';

export interface Kunit {
  arena: Arena;
  /** `slab_errors`, since the test began or the last reset. */
  errors(): number;
  reset(): void;
  reports: SlabReport[];
}

export function kunit(options: Partial<ArenaOptions> = {}): Kunit {
  const arena = Arena.create({ bytes: 8 << 20, cpus: 2, ...options });
  arena.online({ cpu: 0 });
  const reports: SlabReport[] = [];
  let from = 0;
  arena.onSlabReport((report) => reports.push(report));
  return {
    arena,
    reports,
    errors: () => reports.slice(from).filter(({ kind }) => kind !== 'trace').length,
    reset: () => {
      from = reports.length;
    },
  };
}

/** Kernel: `test_kmem_cache_create`. */
export function testCache(arena: Arena, name: string, size: number, flags = 0): KmemCache {
  return arena.createCache(name, { size, flags: flags | SLAB_NO_USER_FLAGS });
}

/** Kernel: `validate_slab_cache`, whose return value is not the count of errors. */
export function validate(cache: KmemCache): number {
  return cache.debug.validate().errors;
}

/** What the test left must be sound, and nothing may have been reported that it did not count. */
export const bytesOf = (arena: Arena, p: number, from: number, to: number): number[] =>
  Array.from(arena.u8.subarray(p + from, p + to));
