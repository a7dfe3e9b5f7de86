/**
 * Caches of areas in front of the chunks, off by default: what was proposed in place of constructors and destructors in
 * the review of that series, so that a study can judge it. Recently freed areas are kept, by powers of two, for a CPU or
 * for a few CPUs together; when there is none, a batch is taken under one acquisition of pcpu_alloc_mutex.
 *
 * A kept area is allocated as far as its chunk's maps go. The cached map marks its start, by an atomic or, so that of two
 * frees of it the second is refused whoever makes it.
 */
import { LINE_WORDS, type Ptr, struct, type Words } from '../struct/index.js';
import {
  fetchAnd,
  fetchOr,
  isOwnedBy,
  LockClass,
  type LockPtr,
  loadAcquire,
  storeRelease,
  UNLOCKED,
} from '../sync/index.js';
import { badAddress } from './badAddress.js';
import { type PcpuChunkPtr, type PcpuView, PERCPU_BASE, WORD_SHIFT } from './layout.js';
import type { PcpuEnv } from './populate.js';

/** Bytes of the areas that are kept; others go past the caches. */
export const AREA_CLASSES = [8, 16, 32, 64, 128, 256] as const;
export const AREA_CACHE_MAX = 64;

/** The lock and, for each class, how many areas there are; their addresses follow. */
const PcpuAreas = struct('pcpu_areas', { lock: 2, counts: AREA_CLASSES.length }, { alignWords: LINE_WORDS });
type PcpuAreasPtr = Ptr<'pcpu_areas'>;

const { counts: COUNTS, SIZEOF: ENTRIES } = PcpuAreas;

const wordsOf = (capacity: number): number =>
  ENTRIES + Math.ceil((AREA_CLASSES.length * capacity) / LINE_WORDS) * LINE_WORDS;

/** Words of all caches of an arena, none when they keep nothing. */
export const areaCacheWords = (cpus: number, cpusPerCache: number, capacity: number): number =>
  capacity === 0 ? 0 : Math.ceil(cpus / cpusPerCache) * wordsOf(capacity);

/** The class for an area, or -1. Its areas are aligned to their size. */
export function areaClass(size: number, align: number): number {
  return AREA_CLASSES.findIndex((bytes) => bytes >= size && bytes >= align);
}

export class AreaCache {
  private readonly env: PcpuEnv;
  private readonly v: PcpuView;
  private readonly m: Words;
  private readonly capacity: number;
  private readonly own: PcpuAreasPtr;

  constructor(env: PcpuEnv) {
    const { geometry } = env.v;
    this.env = env;
    this.v = env.v;
    this.m = env.v.m;
    this.capacity = geometry.pcpuAreaCache;
    this.own = this.cacheOf(env.cpu.id);
  }

  /** An area of a class, or 0 when none is kept. `hold` is told of it before it is out of the cache. */
  take(cls: number, hold: (p: number) => void): number {
    const { m } = this.v;
    return this.locked(this.own, () => {
      const n = m[this.own + COUNTS + cls]!;
      if (n === 0) return 0;
      const p = m[this.entries(this.own, cls) + n - 1]!;
      hold(p);
      m[this.own + COUNTS + cls] = n - 1;
      this.unmark(p);
      return p;
    });
  }

  /** Keeps an area; false when there is no room. Throws when it is kept already, wherever. */
  keep(p: number, cls: number): boolean {
    const { m, own } = this;
    return this.locked(own, () => {
      const n = m[own + COUNTS + cls]!;
      if (n >= this.capacity) return false;
      if (!this.mark(p)) throw badAddress('double-free', p, 'was freed already');
      m[this.entries(own, cls) + n] = p;
      // Last, so that whoever reaps this thread finds it here or in its hand.
      m[own + COUNTS + cls] = n + 1;
      return true;
    });
  }

  /** False when it was marked: somebody freed it before. */
  private mark(p: number): boolean {
    const { word, bit } = this.markOf(p);
    return (fetchOr(this.m, word, bit) & bit) === 0;
  }

  unmark(p: number): void {
    const { word, bit } = this.markOf(p);
    fetchAnd(this.m, word, ~bit);
  }

  isMarked(p: number): boolean {
    const { word, bit } = this.markOf(p);
    return (loadAcquire(this.m, word) & bit) !== 0;
  }

  /** Whether the cache of a CPU has it. */
  isKept(cpu: number, p: number): boolean {
    const cache = this.cacheOf(cpu);
    return this.locked(cache, () => {
      let found = false;
      this.forEachIn(cache, (each) => {
        found ||= each === p;
      });
      return found;
    });
  }

  /** Opens the cache of a CPU again if its lock died with that owner: its counts are right at any moment. */
  repair(cpu: number, owner: number): boolean {
    const cache = this.cacheOf(cpu);
    if (!isOwnedBy(loadAcquire(this.m, cache), owner)) return false;
    storeRelease(this.m, cache, UNLOCKED);
    return true;
  }

  /** Takes everything out of the cache of a CPU, to be freed by the caller. */
  drain(cpu: number, free: (p: number) => void): void {
    const { m } = this.v;
    const cache = this.cacheOf(cpu);
    const kept: number[] = [];
    this.locked(cache, () => {
      this.forEachIn(cache, (p) => kept.push(p));
      m.fill(0, cache + COUNTS, cache + COUNTS + AREA_CLASSES.length);
    });
    for (const p of kept) {
      this.unmark(p);
      free(p);
    }
  }

  private forEachIn(cache: PcpuAreasPtr, visit: (p: number) => void): void {
    const { m } = this;
    for (let cls = 0; cls < AREA_CLASSES.length; cls++) {
      const first = this.entries(cache, cls);
      for (let i = 0; i < m[cache + COUNTS + cls]!; i++) visit(m[first + i]!);
    }
  }

  private cacheOf(cpu: number): PcpuAreasPtr {
    const group = Math.floor(cpu / this.v.geometry.pcpuAreaCpus);
    return (this.v.areaCaches + group * wordsOf(this.capacity)) as PcpuAreasPtr;
  }

  private entries(cache: PcpuAreasPtr, cls: number): number {
    return cache + ENTRIES + cls * this.capacity;
  }

  private markOf(p: number): { word: number; bit: number } {
    const { v } = this;
    const chunk = v.chunkAt((p - PERCPU_BASE) >>> v.unitShift) as PcpuChunkPtr;
    const at = (p & (v.unitBytes - 1)) >> WORD_SHIFT;
    return { word: chunk + v.cachedMap + (at >> 5), bit: 1 << (at & 31) };
  }

  private locked<T>(cache: PcpuAreasPtr, body: () => T): T {
    const { locks } = this.env.cpu;
    const lock = cache as unknown as LockPtr;
    locks.lock(lock, LockClass.PcpuAreas);
    try {
      return body();
    } finally {
      locks.unlock(lock, LockClass.PcpuAreas);
    }
  }
}
