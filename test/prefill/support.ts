/** Scenes for prefilled sheaves: a cache whose sheaves hold 4 objects, and what lies in spare and barn. */
import { expect } from 'vitest';
import type { KmemCache, PrefilledSheaf } from '#src/cache/index.js';
import { type PcsPtr, pcsOf } from '#src/cpu/index.js';
import type { Arena, ArenaOptions, LockPolicy, StatItem } from '#src/index.js';
import { barnOf, barnPutEmptySheaf, prefilledSheaves } from '#src/sheaf/index.js';
import { boot, freeMany, inside, moved, pagesOf } from '../cache/support/arena.js';
import { slabAlloc, slabFree } from '../slab/support.js';

export const POLICIES: LockPolicy[] = ['turn', 'op'];
/** Objects in a sheaf of these scenes. */
export const C = 4;

export interface Scene {
  arena: Arena;
  cache: KmemCache;
  pcs: PcsPtr;
  /** Allocated objects that came from the slabs alone. */
  held: number[];
}

/** Main is empty, there is no spare, the barn is empty. */
export function setup(lockPolicy: LockPolicy, options: Partial<ArenaOptions> = {}): Scene {
  const arena = boot({ lockPolicy, bytes: 16 << 20, ...options });
  const cache = arena.createCache('c', { size: 4096 });
  const held = slabAlloc(arena, cache, 20 * C);
  arena.endTurn();
  return { arena, cache, held, pcs: pcsOf(arena.geometry, 0, cache.desc.slot) };
}

/** Main has one object, the spare is full, and so are `full` sheaves of the barn. */
export function withSpare({ arena, cache, held }: Scene, full = 0): void {
  freeMany(cache, held.splice(0, (full + 1) * C + 1));
  arena.endTurn();
}

/** Main is one short of full, and the spare is empty. */
export function withEmptySpare({ arena, cache, held }: Scene): void {
  held.push(cache.alloc());
  arena.endTurn();
}

export function addEmptySheaves({ arena, cache }: Scene, n: number): void {
  const barn = barnOf(arena.cpu, cache.desc, 0);
  for (let i = 0; i < n; i++) {
    barnPutEmptySheaf(arena.cpu, barn, inside(arena).allocEmptySheaf(cache.desc, cache.sheafCapacity));
  }
}

export function prefill(cache: KmemCache, n: number): PrefilledSheaf {
  const sheaf = cache.prefill(n);
  if (sheaf === null) throw new Error(`the arena of this test is too small: no sheaf of ${n}`);
  return sheaf;
}

/** Pops `n` objects, each of which must be there. */
export function take(sheaf: PrefilledSheaf, n: number): number[] {
  const objects = Array.from({ length: n }, () => sheaf.alloc());
  expect(objects).not.toContain(0);
  return objects;
}

export function borrowed({ arena, pcs }: Scene): number {
  return prefilledSheaves(arena.i32, pcs).length;
}

const OF_SLABS: StatItem[] = ['ALLOC_SLAB', 'FREE_SLAB', 'FREE_ADD_PARTIAL', 'FREE_REMOVE_PARTIAL'];

/** What an action counts, without what slabs that come and go count on the way. */
export function counted(cache: KmemCache, action: () => void): ReturnType<typeof moved> {
  const moves = moved(cache, action);
  for (const item of OF_SLABS) delete moves[item];
  return moves;
}

/** Refuses each request for pages while `action` runs. */
export function withoutPages<T>(arena: Arena, action: () => T): T {
  arena.failPageAlloc(1);
  try {
    return action();
  } finally {
    arena.failPageAlloc(0);
  }
}

/** Leaves `n` free objects in all slabs. */
export function leaveFree({ arena, cache, held }: Scene, n: number): void {
  withoutPages(arena, () => {
    for (let [p] = slabAlloc(arena, cache); p !== 0; [p] = slabAlloc(arena, cache)) held.push(p!);
  });
  slabFree(arena, cache, held.splice(0, n));
}

/** What a call returned when there is no memory. Handles lead to the whole arena: no test may print one. */
export function expectNull(sheaf: PrefilledSheaf | null): void {
  expect(sheaf === null, 'out of memory').toBe(true);
}

/** Nobody gets a page, a lock or a kmalloc of this thread. */
export function forbidAll(arena: Arena): void {
  const forbid = (name: string) => (): never => {
    throw new Error(`${name} was called`);
  };
  Object.assign(pagesOf(arena), { alloc: forbid('pages.alloc') });
  Object.assign(arena.cpu.locks, {
    lock: forbid('lock'),
    tryLock: forbid('tryLock'),
    unlock: forbid('unlock'),
    noteTry: forbid('trylockPcs'),
  });
  Object.assign(inside(arena).kmallocs, { alloc: forbid('kmalloc') });
}
