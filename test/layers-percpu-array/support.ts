/** Caches with arrays, and a look into them. */
import { expect } from 'vitest';
import type { KmemCache } from '#src/cache/index.js';
import { Pcs, pcsOf } from '#src/cpu/index.js';
import type { Arena, ArenaOptions, CheckLevel, LockPolicy } from '#src/index.js';
import { PercpuArray } from '#src/sheaf/index.js';
import { ownerWord } from '#src/sync/index.js';
import { boot, footprint, moved } from '../cache/support/arena.js';

export interface Mode {
  lockPolicy: LockPolicy;
  check: CheckLevel;
}

export const POLICIES: LockPolicy[] = ['turn', 'op'];
export const MODES: Mode[] = POLICIES.flatMap((lockPolicy) =>
  (['none', 'free', 'full'] as CheckLevel[]).map((check) => ({ lockPolicy, check })),
);

export function setup(mode: Partial<ArenaOptions>, arraySize = 8, size = 256) {
  const arena = boot({ cpus: 2, bytes: 16 << 20, ...mode });
  return { arena, cache: arena.createCache('c', { size, layer: 'percpu-array', arraySize }) };
}

/** The objects in a CPU's array, from the bottom up; its turn should have ended. */
export function arrayOf(arena: Arena, cache: KmemCache, cpu = 0): number[] {
  const m = arena.i32;
  const array = m[pcsOf(arena.geometry, cpu, cache.desc.slot) + Pcs.main]!;
  const first = array + PercpuArray.SIZEOF;
  return Array.from(m.subarray(first, first + m[array + PercpuArray.used]!));
}

export function usedOf(arena: Arena, cache: KmemCache, cpu = 0): number {
  arena.endTurn();
  return arrayOf(arena, cache, cpu).length;
}

/** What `action` adds to the counters, those of the layer included. */
export function counted(cache: KmemCache, action: () => void): Record<string, number> {
  const before = cache.layerStats();
  const base = moved(cache, action);
  const deltas: Record<string, number> = { ...base };
  for (const [item, value] of Object.entries(cache.layerStats())) {
    if (value !== before[item]) deltas[item] = value - before[item]!;
  }
  return deltas;
}

/** Every allocation and every free is counted once. */
export function expectBalanced(cache: KmemCache, live: number): void {
  const { ALLOC_SLOWPATH, FREE_SLOWPATH } = cache.stats();
  const { ALLOC_PCA, FREE_PCA } = cache.layerStats();
  expect(ALLOC_PCA! + ALLOC_SLOWPATH - FREE_PCA! - FREE_SLOWPATH).toBe(live);
}

/** Objects that are allocated once nothing is cached: what has leaked shows. */
export function inUse(arena: Arena, cache: KmemCache): number {
  return footprint(arena)[cache.name]!;
}

/** Holds a CPU's array lock as another CPU would that drains it. Returns how to give it back. */
export function stealLock(arena: Arena, cache: KmemCache, cpu = 0): () => void {
  const lock = pcsOf(arena.geometry, cpu, cache.desc.slot) + Pcs.lock;
  expect(arena.i32[lock], 'nobody has the lock').toBe(0);
  arena.i32[lock] = ownerWord(1, 1);
  return () => {
    arena.i32[lock] = 0;
  };
}
