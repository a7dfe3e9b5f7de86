/** Planting corruption, and expecting what validate() says about it. */
import { expect } from 'vitest';
import type { KmemCache } from '#src/cache/index.js';
import { pcsOf } from '#src/cpu/index.js';
import type { Invariant } from '#src/debug/index.js';
import type { Arena, CheckLevel } from '#src/index.js';
import { barnOf } from '#src/sheaf/index.js';
import { nodeOf } from '#src/slab/index.js';
import { allocMany, boot, freeMany } from '../cache/support/arena.js';
import { slabAlloc, slabFree } from '../slab/support.js';

export interface Scene {
  arena: Arena;
  m: Int32Array;
  cache: KmemCache;
  /** Allocated objects, and some of them the only ones of their slabs. */
  held: number[];
  pcs: number;
  barn: number;
  n: number;
  shadowOf: (p: number) => number;
}

/** A cache with something everywhere: main, spare, barn, partial and full slabs, allocated objects. */
export function setup(check: CheckLevel = 'free'): Scene {
  const arena = boot({ bytes: 4 << 20, check });
  const cache = arena.createCache('c', { size: 256 });
  const held = [...slabAlloc(arena, cache, 100), ...allocMany(cache, 200)];
  freeMany(cache, held.splice(-180));
  slabFree(arena, cache, [held[1]!, held[20]!, held[21]!]);
  held.splice(20, 2);
  held.splice(1, 1);
  arena.endTurn();
  expect(arena.validate()).toEqual([]);
  return {
    arena,
    m: arena.i32,
    cache,
    held,
    pcs: pcsOf(arena.geometry, 0, cache.desc.slot),
    barn: barnOf(arena.cpu, cache.desc, 0),
    n: nodeOf(arena.i32, cache.desc, 0),
    shadowOf: (p) => arena.geometry.shadow + (p >> 3),
  };
}

/** Corrupts, validates, and expects exactly these invariants to be reported, with words that name the place. */
export function plant(
  invariants: Invariant[],
  what: RegExp,
  corrupt: (scene: Scene) => void,
  check?: CheckLevel,
): void {
  const scene = setup(check);
  corrupt(scene);
  const findings = scene.arena.validate();
  expect([...new Set(findings.map(({ invariant }) => invariant))].sort()).toEqual([...invariants].sort());
  expect(findings.map(({ where, what: text }) => `${where}: ${text}`).join('\n')).toMatch(what);
}
