/**
 * Where a case of the corruption matrix takes place: a cache of some layout with one slab whose objects are all in hand,
 * in an arena of one of the columns.
 */
import type { KmemCache } from '#src/cache/index.js';
import {
  type Arena,
  type ArenaOptions,
  type DefinedCache,
  defineCache,
  type SlabReport,
} from '#src/index.js';
import { type PagePtr, pageAddress } from '#src/page/index.js';
import { boot, inside, LONG, secondCpu } from '../../cache/support/arena.js';

export type Column = 'plain' | 'debug' | 'hardened';

/** The columns of the matrix: what every case is tried in. A new option that hardens is one line in the last. */
export const COLUMNS: Record<Column, Partial<ArenaOptions>> = {
  plain: {},
  debug: { slabDebug: 'FZPU,victim*' },
  hardened: {
    check: 'full',
    initOnAlloc: true,
    initOnFree: true,
    hardenedUsercopy: true,
    freelistRandom: true,
    freelistHardened: true,
    kmalloc: { copies: 3, seed: 0x5eed },
  },
};
export const COLUMN_NAMES = Object.keys(COLUMNS) as Column[];

export interface Layout {
  size: number;
  align: number;
  ctor?: boolean;
  /** Which of the slab's objects is the victim, as a part of 1. */
  position?: number;
}

export const LAYOUTS: Layout[] = [
  { size: 8, align: 8 },
  { size: 24, align: 0, position: 0.999 },
  { size: 50, align: 0, ctor: true, position: 0.3 },
  { size: 64, align: 64, position: 0.5 },
  { size: 300, align: 0, position: 0.2 },
  { size: 2000, align: 128, position: 0.7 },
];

const numberOf = (variable: string, otherwise: number): number => Number(process.env[variable] ?? otherwise);

/** The same ones for the same seed. */
export function randomLayouts(n: number, seed: number): Layout[] {
  let state = seed;
  const random = (): number => {
    state = (Math.imul(state, 1103515245) + 12345) & 0x7fffffff;
    return (state >>> 8) / 2 ** 23;
  };
  return Array.from({ length: n }, () => ({
    size: 2 + Math.floor(random() * (random() < 0.5 ? 200 : 3000)),
    align: [0, 8, 16, 64, 256][Math.floor(random() * 5)]!,
    ctor: random() < 0.25,
    position: random(),
  }));
}
if (LONG) LAYOUTS.push(...randomLayouts(numberOf('GRANARY_LAYOUTS', 1000), numberOf('GRANARY_SEED', 1)));

export const CONSTRUCTED = 7;

export interface Scene {
  column: Column;
  layout: Layout;
  arena: Arena;
  cache: KmemCache;
  /** The objects of one slab, by address: all are allocated but `free`. */
  objects: number[];
  page: PagePtr;
  /** Allocated. */
  p: number;
  /** Freed, the next to be handed out. */
  free: number;
  /** What was ever handed out. What of it is allocated at the end is freed. */
  seen: Set<number>;
  /** Allocates one more. */
  take: () => number;
  reports: SlabReport[];
  /** The same cache on a second CPU of this thread, which goes when the case is over. */
  other: () => { arena: Arena; cache: KmemCache };
  /** The turns of all its CPUs end. */
  endTurns: () => void;
  /** The second CPU goes. */
  endOther: () => void;
  /** Reports go to the console again. */
  endReports: () => void;
}

const byKind = new Map<string, Arena>();

/** An arena that a case has left as it was, or a new one. */
function arenaOf(options: Partial<ArenaOptions>): Arena {
  const kind = JSON.stringify(options);
  const arena = byKind.get(kind) ?? boot({ bytes: 4 << 20, ...options });
  byKind.delete(kind);
  return arena;
}

/** What is sound and empty serves the next case: to boot one takes longer than most of them. */
export function keepArena(arena: Arena, options: Partial<ArenaOptions>): void {
  byKind.set(JSON.stringify(options), arena);
}

const definitions = new Map<string, DefinedCache>();

/** Constructed objects are full of one byte. A name can be defined once. */
function constructed({ size, align }: Layout): DefinedCache {
  const name = `victim-${size}-${align}`;
  const known = definitions.get(name);
  if (known !== undefined) return known;
  const ctor = (p: number, arena: Arena): void => void arena.u8.fill(CONSTRUCTED, p, p + size);
  const definition = defineCache(name, { size, align, ctor });
  definitions.set(name, definition);
  return definition;
}

export function isMarked({ arena, cache }: Pick<Scene, 'arena' | 'cache'>, p: number): boolean {
  return arena.u8[arena.geometry.shadow + (p >> 3)] === cache.desc.tag;
}

/** Frees what is allocated of all that was handed out. */
export function freeAll(scene: Pick<Scene, 'arena' | 'cache' | 'seen'>): void {
  for (const p of scene.seen) if (isMarked(scene, p)) scene.cache.free(p);
}

/** All objects of the slab, by address. */
export function objectsOf({ arena, cache }: Pick<Scene, 'arena' | 'cache'>, page: PagePtr): number[] {
  const first = pageAddress(arena.geometry, page) + cache.desc.redLeftPad;
  return Array.from({ length: cache.desc.objects }, (_, i) => first + i * cache.size);
}

function victimOf(arena: Arena, layout: Layout): KmemCache {
  const { size, align, ctor = false } = layout;
  return ctor ? arena.createCache(constructed(layout)) : arena.createCache('victim', { size, align });
}

/** A slab whose objects are all in hand. */
function fullSlab(arena: Arena, cache: KmemCache, take: () => number): PagePtr {
  const { slabs, guards } = inside(arena);
  const found = new Map<number, number>();
  for (;;) {
    const q = take();
    if (guards.owns(q)) continue;
    const page = slabs.slabOf(q);
    found.set(page, (found.get(page) ?? 0) + 1);
    if (found.get(page) === cache.desc.objects) return page;
  }
}

export function setScene(column: Column, layout: Layout, options: Partial<ArenaOptions>): Scene {
  const arena = arenaOf(options);
  const cache = victimOf(arena, layout);
  const reports: SlabReport[] = [];
  const endReports = arena.onSlabReport((report) => reports.push(report));
  const seen = new Set<number>();
  const take = (): number => {
    const p = cache.alloc();
    if (p === 0) throw new Error('the arena of the matrix is too small');
    seen.add(p);
    return p;
  };
  const page = fullSlab(arena, cache, take);
  const objects = objectsOf({ arena, cache }, page);
  const at = Math.floor((layout.position ?? 0) * objects.length);
  const free = objects[(at + 1) % objects.length]!;
  cache.free(free);
  let second: Arena | undefined;
  const other = (): { arena: Arena; cache: KmemCache } => {
    if (second === undefined) {
      second = secondCpu(arena);
      second.onSlabReport((report) => reports.push(report));
    }
    return { arena: second, cache: second.openCache(cache.name) };
  };
  const endTurns = (): void => {
    arena.endTurn();
    second?.endTurn();
  };
  const endOther = (): void => {
    endTurns();
    second?.offline();
  };
  return {
    column,
    layout,
    arena,
    cache,
    objects,
    page,
    p: objects[at]!,
    free,
    seen,
    take,
    reports,
    other,
    endTurns,
    endOther,
    endReports,
  };
}
