/**
 * The arena as it was before a call, to see that a refused one changed nothing. What may differ: counters, the notes of
 * locks that were held, what lies above the top of a sheaf, the count of reports of a debug cache.
 */
import type { Caches, KmemCache } from '../../cache/index.js';
import { Pcs, PERCPU_BLOCK_WORDS, pcsOf, ThreadRecord, threadRecordOf } from '../../cpu/index.js';
import type { Arena } from '../../index.js';
import { SHEAF_OBJECTS, Sheaf } from '../../sheaf/index.js';
import { KmemCacheStruct } from '../../slab/index.js';
import { HELD_LOCKS_MAX, LockRecord } from '../../sync/index.js';

/** Bytes that are compared at a time. */
const CHUNK = 32_768;

export function inside(arena: Arena): Caches {
  return (arena as unknown as { caches: Caches }).caches;
}

export class ArenaImage {
  private readonly arena: Arena;
  private readonly now: Buffer[] = [];
  private readonly kept: Buffer[] = [];
  private readonly words: Int32Array;
  private readonly free: Uint8Array;

  constructor(arena: Arena) {
    this.arena = arena;
    const { bytes } = arena.geometry;
    const copy = Buffer.alloc(bytes);
    this.words = new Int32Array(copy.buffer, copy.byteOffset, bytes / 4);
    for (let at = 0; at < bytes; at += CHUNK) {
      const room = Math.min(CHUNK, bytes - at);
      this.now.push(Buffer.from(arena.buffer as never, at, room));
      this.kept.push(copy.subarray(at, at + room));
    }
    this.free = new Uint8Array(bytes / 4);
    this.markStatic();
  }

  /** Words that any call may change, wherever the caches are. */
  private markStatic(): void {
    const { geometry } = this.arena;
    for (let thread = 0; thread < geometry.threads; thread++) {
      const held = threadRecordOf(geometry, thread) + ThreadRecord.locks + LockRecord.held;
      this.free.fill(1, held, held + HELD_LOCKS_MAX);
      // What the thread was at: of no meaning at depth 0.
      const { intentOp, intentSlot } = LockRecord;
      for (const word of [intentOp, intentSlot]) this.free[held - LockRecord.held + word] = 1;
      for (let slot = 0; slot < geometry.maxCaches; slot++) {
        const pcs = pcsOf(geometry, thread, slot);
        this.free.fill(1, pcs + Pcs.SIZEOF, pcs + PERCPU_BLOCK_WORDS);
        this.free[pcs + Pcs.base] = 1;
      }
    }
  }

  /** Keeps the arena as it is now. */
  take(): void {
    for (let i = 0; i < this.now.length; i++) {
      if (!this.now[i]!.equals(this.kept[i]!)) this.kept[i]!.set(this.now[i]!);
    }
  }

  /** Words that have changed since and may not have, at most four, in words. */
  changes(): string[] {
    const changed: string[] = [];
    for (let i = 0; i < this.now.length && changed.length < 4; i++) {
      if (!this.now[i]!.equals(this.kept[i]!)) this.look((i * CHUNK) / 4, changed);
    }
    return changed;
  }

  private look(first: number, changed: string[]): void {
    const { i32 } = this.arena;
    let stale: Set<number> | undefined;
    const end = Math.min(first + CHUNK / 4, i32.length);
    for (let at = first; at < end && changed.length < 4; at++) {
      if (i32[at] === this.words[at] || this.free[at] === 1) continue;
      stale ??= this.staleWords();
      if (!stale.has(at)) changed.push(`word ${at}: ${this.words[at]} -> ${i32[at]}`);
    }
  }

  private staleWords(): Set<number> {
    const stale = new Set<number>();
    for (const cache of inside(this.arena).all()) {
      stale.add(cache.desc.ptr + KmemCacheStruct.errors);
      for (let cpu = 0; cpu < this.arena.geometry.cpus; cpu++) this.aboveTop(cache, cpu, stale);
    }
    return stale;
  }

  private aboveTop(cache: KmemCache, cpu: number, stale: Set<number>): void {
    if (cache.mainCapacity === 0) return;
    const { geometry, i32 } = this.arena;
    const main = i32[pcsOf(geometry, cpu, cache.desc.slot) + Pcs.main]!;
    const top = main + SHEAF_OBJECTS + i32[main + Sheaf.size]!;
    for (let at = top; at < main + SHEAF_OBJECTS + cache.mainCapacity; at++) stale.add(at);
  }
}
