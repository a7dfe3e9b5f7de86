/** What most tests of the core need: a small arena with this thread as a CPU, and a look at what lies in it. */

import { expect } from 'vitest';
import { type Caches, forEachSlab, type KmemCache } from '#src/cache/index.js';
import { Pcs, PERCPU_BLOCK_WORDS, pcsOf, ThreadRecord, threadRecordOf } from '#src/cpu/index.js';
import { Arena, type ArenaOptions, STAT_ITEMS, type StatItem } from '#src/index.js';
import { orderOf, Page, type PageAllocator, type PagePtr, pageAddress } from '#src/page/index.js';
import { Barn, barnOf, SHEAF_OBJECTS, Sheaf, type SheafPtr, sheafSize } from '#src/sheaf/index.js';
import { freelistOf, inuseOf, KmemCacheNode, nodeOf } from '#src/slab/index.js';
import { HELD_LOCKS_MAX, LOCKDEP_WORDS, LockRecord } from '#src/sync/index.js';

export const MiB = 1 << 20;

/** GRANARY_LONG=1: everything at full length. */
export const LONG = process.env.GRANARY_LONG === '1';

const booted: Arena[] = [];

/** The arenas that boot() made since the last call. */
export const takeBooted = (): Arena[] => booted.splice(0);

/** An arena whose creator is online as CPU 0. */
export function boot(options: Partial<ArenaOptions> = {}): Arena {
  const arena = Arena.create({ bytes: 8 * MiB, cpus: 2, lockdep: true, ...options });
  arena.online({ cpu: 0 });
  booted.push(arena);
  return arena;
}

/** A second CPU on this same thread: it takes part like another thread that is between two calls. */
export function secondCpu(arena: Arena, cpu = 1): Arena {
  const other = Arena.attach(arena.handle);
  other.online({ cpu });
  return other;
}

/** The layers below an arena's facade. */
export function inside(arena: Arena): Caches {
  return (arena as unknown as { caches: Caches }).caches;
}

export function pagesOf(arena: Arena): PageAllocator {
  return inside(arena).pages;
}

export function allocMany(cache: KmemCache, n: number): number[] {
  return Array.from({ length: n }, () => {
    const p = cache.alloc();
    if (p === 0) throw new Error(`the arena of this test is too small: no object of ${cache.name} left`);
    return p;
  });
}

export function freeMany(cache: KmemCache, objects: number[]): void {
  for (const p of objects) cache.free(p);
}

/** The counters that `action` moves, without those that it does not. */
export function moved(cache: KmemCache, action: () => void): Partial<Record<StatItem, number>> {
  const before = cache.stats();
  action();
  const after = cache.stats();
  const deltas: Partial<Record<StatItem, number>> = {};
  for (const item of STAT_ITEMS) {
    if (after[item] !== before[item]) deltas[item] = after[item] - before[item];
  }
  return deltas;
}

export interface SheafView {
  at: SheafPtr;
  size: number;
  objects: number[];
}

export function sheafAt(arena: Arena, at: number): SheafView {
  const size = sheafSize(arena.i32, at as SheafPtr);
  const first = at + SHEAF_OBJECTS;
  return { at: at as SheafPtr, size, objects: Array.from(arena.i32.subarray(first, first + size)) };
}

/** Main and spare of a CPU; its turn should have ended. */
export function sheavesOf(
  arena: Arena,
  cache: KmemCache,
  cpu = 0,
): { main: SheafView; spare: SheafView | undefined } {
  const pcs = pcsOf(arena.geometry, cpu, cache.desc.slot);
  const spare = arena.i32[pcs + Pcs.spare]!;
  return {
    main: sheafAt(arena, arena.i32[pcs + Pcs.main]!),
    spare: spare === 0 ? undefined : sheafAt(arena, spare),
  };
}

/** Sizes in the shape that tests compare: null is a missing spare. */
export function sheafSizes(arena: Arena, cache: KmemCache, cpu = 0): { main: number; spare: number | null } {
  const { main, spare } = sheavesOf(arena, cache, cpu);
  return { main: main.size, spare: spare?.size ?? null };
}

export function barnAt(arena: Arena, cache: KmemCache, node = 0): { full: SheafView[]; empty: SheafView[] } {
  const barn = barnOf(arena.cpu, cache.desc, node);
  const list = (head: number): SheafView[] => {
    const found: SheafView[] = [];
    for (let at = arena.i32[barn + head]!; at !== 0; at = arena.i32[at + Sheaf.link]!) {
      found.push(sheafAt(arena, at));
      if (found.length > 1000) throw new Error('the barn list is a cycle');
    }
    return found;
  };
  return { full: list(Barn.full), empty: list(Barn.empty) };
}

export function barnSizes(arena: Arena, cache: KmemCache, node = 0): { full: number[]; empty: number } {
  const { full, empty } = barnAt(arena, cache, node);
  return { full: full.map(({ size }) => size), empty: empty.length };
}

export interface SlabView {
  page: PagePtr;
  address: number;
  objects: number;
  inuse: number;
  freelist: number;
}

export function slabAt(arena: Arena, page: PagePtr): SlabView {
  const word = arena.i32[page + Page.slabWord]!;
  return {
    page,
    address: pageAddress(arena.geometry, page),
    objects: arena.i32[page + Page.objects]!,
    inuse: inuseOf(word),
    freelist: freelistOf(word),
  };
}

/** The node's partial list from head to tail. */
export function partialList(arena: Arena, cache: KmemCache, node = 0): SlabView[] {
  const n = nodeOf(arena.i32, cache.desc, node);
  const found: SlabView[] = [];
  for (let page = arena.i32[n + KmemCacheNode.head]!; page !== 0; page = arena.i32[page + Page.next]!) {
    found.push(slabAt(arena, page as PagePtr));
    if (found.length > 10_000) throw new Error('the partial list is a cycle');
  }
  return found;
}

export function nodeCounts(arena: Arena, cache: KmemCache, node = 0) {
  const n = nodeOf(arena.i32, cache.desc, node);
  return {
    partial: arena.i32[n + KmemCacheNode.nrPartial]!,
    slabs: arena.i32[n + KmemCacheNode.nrSlabs]!,
    objects: arena.i32[n + KmemCacheNode.totalObjects]!,
  };
}

/** Gives every cached page back, so that what is used is what was asked for. */
export function shrinkAll(arena: Arena): void {
  const caches = arena.cacheNames().map((name) => arena.openCache(name));
  // Sheaves are kmalloc objects: freeing those of one cache fills those of another.
  for (let round = 0; round < 3; round++) for (const cache of caches) cache.shrink();
}

/** What is in use once nothing is cached: objects by cache, and pages that belong to no slab. */
export function footprint(arena: Arena): Record<string, number> {
  shrinkAll(arena);
  const use: Record<string, number> = {};
  for (const { name, objects } of arena.cacheInfo()) use[name] = objects;
  let slabPages = 0;
  forEachSlab(arena.i32, arena.geometry, (page) => {
    slabPages += 1 << orderOf(arena.i32[page + Page.flags]!);
  });
  return { ...use, 'pages outside of slabs': arena.meminfo().usedPages - slabPages };
}

export function expectSound(arena: Arena): void {
  expect(arena.validate()).toEqual([]);
}

/**
 * What must not change: every word but the counters, what lockdep has seen, the notes about locks that were held before,
 * which every lock overwrites and of which only their count says how many hold, and what lies above the top of a sheaf.
 */
function imageOf(arena: Arena, image: Buffer): Buffer {
  arena.endTurn();
  image.set(arena.u8);
  const { geometry } = arena;
  if (geometry.lockdep !== 0) image.fill(0, geometry.lockdep * 4, (geometry.lockdep + LOCKDEP_WORDS) * 4);
  for (let cpu = 0; cpu < geometry.cpus; cpu++) {
    const held = threadRecordOf(geometry, cpu) + ThreadRecord.locks + LockRecord.held;
    image.fill(0, held * 4, (held + HELD_LOCKS_MAX) * 4);
    for (let slot = 0; slot < geometry.maxCaches; slot++) {
      const pcs = pcsOf(geometry, cpu, slot);
      image.fill(0, (pcs + Pcs.SIZEOF) * 4, (pcs + PERCPU_BLOCK_WORDS) * 4);
      // Where the last count began: of no meaning while the lock is free.
      image.fill(0, (pcs + Pcs.base) * 4, (pcs + Pcs.base + 1) * 4);
    }
    for (const cache of inside(arena).all()) {
      if (cache.mainCapacity === 0) continue;
      const { at, size } = sheavesOf(arena, cache, cpu).main;
      image.fill(0, (at + SHEAF_OBJECTS + size) * 4, (at + SHEAF_OBJECTS + cache.mainCapacity) * 4);
    }
  }
  return image;
}

const twoImages = (bytes: number): [Buffer, Buffer] => [Buffer.alloc(bytes), Buffer.alloc(bytes)];
/** Kept from look to look: fresh ones take longer than what is looked for. */
let images = twoImages(0);

/** Runs `action` and expects that it changed nothing in the arena. */
export function expectUnchanged(arena: Arena, action: () => void): void {
  if (images[0].length !== arena.geometry.bytes) images = twoImages(arena.geometry.bytes);
  const before = imageOf(arena, images[0]);
  action();
  const after = imageOf(arena, images[1]);
  if (before.equals(after)) return;
  const changed: string[] = [];
  for (let at = 0; at < before.length && changed.length < 8; at += 4) {
    const [was, is] = [before.readInt32LE(at), after.readInt32LE(at)];
    if (was !== is) changed.push(`word ${at / 4}: ${was} -> ${is}`);
  }
  expect(changed, 'words that a refused call changed').toEqual([]);
}

type ErrorClass = new (...args: never[]) => Error;

/** Expects a refusal of that class whose message matches, with nothing changed and the arena sound. */
export function expectRefused(arena: Arena, action: () => unknown, type: ErrorClass, message: RegExp): void {
  expectUnchanged(arena, () => {
    let thrown: unknown;
    try {
      action();
    } catch (error) {
      thrown = error;
    }
    expect(thrown, 'the call was accepted').toBeDefined();
    expect(thrown).toBeInstanceOf(type);
    expect((thrown as Error).message).toMatch(message);
  });
  expectSound(arena);
}
