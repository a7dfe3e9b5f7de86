/** The combinations that every layer must get right, and what the suites of this folder share. */
import { describe } from 'vitest';
import type { Arena, ArenaOptions, KmemCache } from '#src/index.js';
import { LAYERS, type Layer, type LockPolicy } from '#src/struct/index.js';
import { boot } from '../cache/support/arena.js';

export interface Variant {
  layer: Layer;
  lockPolicy: LockPolicy;
  tiny?: boolean;
  name: string;
}

const POLICIES = ['turn', 'op'] as const;

export const VARIANTS: readonly Variant[] = [
  ...LAYERS.flatMap((layer) =>
    POLICIES.map((lockPolicy) => ({ layer, lockPolicy, name: `${layer}, ${lockPolicy}` })),
  ),
  ...POLICIES.map((lockPolicy) => ({
    layer: 'none' as const,
    lockPolicy,
    tiny: true,
    name: `tiny, ${lockPolicy}`,
  })),
];

/** Runs a suite once per layer and lock policy, and in tiny arenas. */
export function forEachVariant(suite: (variant: Variant) => void): void {
  describe.each(VARIANTS)('$name', suite);
}

export function bootVariant({ name: _, ...variant }: Variant, options: Partial<ArenaOptions> = {}): Arena {
  return boot({ ...variant, ...options });
}

/** Allocates until there is no memory; the objects are distinct. */
export function exhaust(cache: KmemCache, limit = 1_000_000): number[] {
  const held: number[] = [];
  for (let p = cache.alloc(); p !== 0 && held.length < limit; p = cache.alloc()) held.push(p);
  return held;
}
