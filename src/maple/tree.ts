/** Maple trees, which lie in the arena, as a thread calls them. */
import type { Caches, KmemCache } from '../cache/index.js';
import { __GFP_DIRECT_RECLAIM, __GFP_NOWARN, checkGfp, GFP_KERNEL, GFP_NOWAIT } from '../page/index.js';
import type { Rcu } from '../rcu/index.js';
import { CpuError, optionError, requireInteger, type Words } from '../struct/index.js';
import { LockClass, type LockClassId, type LockPtr, storeRelease } from '../sync/index.js';
import { MapleCursor } from './cursor.js';
import { duplicate } from './dup.js';
import { emptyArea, emptyAreaReverse } from './gaps.js';
import { checkKey, checkRange } from './keys.js';
import { type MapleTreePtr, MapleTreeStruct, MT_FLAGS_ALLOC_RANGE, MT_FLAGS_USE_RCU } from './mapleTree.js';
import { isNode, MAPLE_MAX } from './node.js';
import { MapleReader } from './reader.js';
import { freeNodes } from './teardown.js';
import { validateTree } from './validate.js';
import { MapleWriter } from './writer.js';
import type { StoreType } from './writeWalk.js';

const { root: ROOT, height: HEIGHT, flags: FLAGS } = MapleTreeStruct;
/** Nobody who holds the lock waits for memory: who frees some may need the lock. */
const GFP_UNDER_LOCK = GFP_NOWAIT | __GFP_NOWARN;
/** What alloc returns when nothing was found for want of nodes. */
const NO_MEMORY = -2;

/** A range of keys and what is stored there. */
export interface MapleRange {
  first: number;
  last: number;
  entry: number;
}

/** A lock that stands for a tree's own. */
interface ExternLock {
  /** The lock, or 0: whoever uses the tree has seen to it that nobody else does. */
  readonly word: LockPtr | 0;
  readonly cls: LockClassId;
}

/**
 * A map from ranges of keys to entries. One writer at a time, under its lock; readers on any CPU. Kernel: `struct maple_tree`.
 */
export class MapleTree {
  private readonly caches: Caches;
  private readonly m: Words;
  private readonly tree: MapleTreePtr;
  private readonly nodes: KmemCache;
  private readonly rcu: Rcu;
  private readonly reader: MapleReader;
  private readonly writer: MapleWriter;
  private readonly lockWord: LockPtr | 0;
  private readonly lockClass: LockClassId;
  /** Roots of what {@link clear} has taken out, to be freed without the lock: that may have to wait for readers. */
  private readonly cleared: number[] = [];
  /** Nesting of lock() on this thread. */
  private depth = 0;

  /**
   * `tree` is the index of the struct's first word, `nodes` this thread's handle of the nodes' cache. With `extern`, that
   * lock is taken for the tree's own. Kernel: MT_FLAGS_LOCK_EXTERN.
   */
  constructor(caches: Caches, tree: MapleTreePtr, nodes: KmemCache, extern?: ExternLock) {
    this.caches = caches;
    this.m = caches.views.m;
    this.tree = tree;
    this.nodes = nodes;
    this.rcu = caches.rcu;
    this.lockWord = extern?.word ?? ((tree + MapleTreeStruct.lock) as unknown as LockPtr);
    this.lockClass = extern?.cls ?? LockClass.MaLock;
    this.reader = new MapleReader(this.m, tree, (body) => this.locked(body));
    this.writer = new MapleWriter(this.m, tree, nodes);
  }

  /** The struct's address, by which other threads open the tree. */
  get address(): number {
    return this.tree * 4;
  }
  /** Whether it lies in the arena of these caches. @internal */
  isOf(caches: Caches): boolean {
    return this.m?.buffer === caches.views.m.buffer;
  }
  /** Whether it can find free ranges by their size. */
  get hasGaps(): boolean {
    return (this.m[this.tree + FLAGS]! & MT_FLAGS_ALLOC_RANGE) !== 0;
  }
  /** Whether it has readers without the lock. */
  get isRcu(): boolean {
    return (this.m[this.tree + FLAGS]! & MT_FLAGS_USE_RCU) !== 0;
  }
  /** Levels of nodes. */
  get height(): number {
    return this.m[this.tree + HEIGHT]!;
  }
  get isEmpty(): boolean {
    return this.m[this.tree + ROOT] === 0;
  }

  /**
   * The entry at `key`, 0 if it is free. Any CPU, no lock; what the entry names is safe until this turn's quiescent
   * state only if it is freed through RCU. Kernel: `mtree_load`.
   * @example
   * const p = tree.load(0x1000);
   */
  load(key: number): number {
    const { rcu } = this;
    rcu.readLock();
    try {
      return this.reader.lookup(key);
    } finally {
      rcu.readUnlock(); // also when the lookup finds that a writer has died
    }
  }

  /** The range that `key` is in, free (entry 0) or not. Kernel: `mas_walk`. */
  rangeAt(key: number): MapleRange {
    checkKey('key', key);
    const { reader } = this;
    const entry = this.load(key);
    return { first: reader.first, last: reader.last, entry };
  }

  /**
   * A cursor before `key`, for iteration. Use it in a read section, or with the lock held. Each step sees the tree as it
   * is then. Kernel: MA_STATE.
   * @example
   * arena.rcu.readLock();
   * const cursor = tree.cursor();
   * while (cursor.next() !== 0) use(cursor.first, cursor.last, cursor.entry);
   * arena.rcu.readUnlock();
   */
  cursor(key = 0): MapleCursor {
    return new MapleCursor(this.reader, checkKey('key', key));
  }

  /** All ranges with an entry that overlap [first, last], in order; each as it was when it was come by. */
  ranges(first = 0, last = MAPLE_MAX): MapleRange[] {
    checkKey('last', last);
    const { rcu } = this;
    const found: MapleRange[] = [];
    const cursor = this.cursor(first);
    rcu.readLock();
    try {
      while (cursor.next(last) !== 0) {
        found.push({ first: cursor.first, last: cursor.last, entry: cursor.entry });
      }
    } finally {
      rcu.readUnlock();
    }
    return found;
  }

  /**
   * Stores `entry`, any integer of 32 bits but 0, at all keys from `first` to `last`, over what is there. False when out
   * of memory: nothing was stored. Takes the lock, unless this thread has it. Kernel: `mtree_store_range`.
   * @example
   * if (!tree.store(0x1000, 0x1fff, vma)) return false;
   */
  store(first: number, last: number, entry: number, gfp: number = GFP_KERNEL): boolean {
    requireInteger('entry', entry, -0x80000000, 0x7fffffff);
    if (entry === 0)
      throw optionError('entry', entry, 'other than 0, which stands for a free range; use erase');
    return this.change(first, last, entry, gfp);
  }

  /** Frees all keys from `first` to `last`. False when out of memory. Kernel: `mtree_erase`, for a range. */
  erase(first: number, last: number = first, gfp: number = GFP_KERNEL): boolean {
    return this.change(first, last, 0, gfp);
  }

  /**
   * Stores `entry` at the lowest `size` free keys within [min, max]. Returns the first of them, -1 when there is no such
   * range, -2 when out of memory. Kernel: `mtree_alloc_range`, with EBUSY and ENOMEM.
   */
  alloc(entry: number, size: number, min = 0, max = MAPLE_MAX, gfp: number = GFP_KERNEL): number {
    return this.allocBy(emptyArea, entry, size, min, max, gfp);
  }

  /** The same from above. Kernel: `mtree_alloc_rrange`. */
  allocReverse(entry: number, size: number, min = 0, max = MAPLE_MAX, gfp: number = GFP_KERNEL): number {
    return this.allocBy(emptyAreaReverse, entry, size, min, max, gfp);
  }

  /** The first key of the lowest free range of `size` keys within [min, max], or -1. Kernel: `mas_empty_area`. */
  emptyArea(size: number, min = 0, max = MAPLE_MAX): number {
    return this.searchFree(emptyArea, size, min, max);
  }

  /** The first key of the highest such range, or -1. Kernel: `mas_empty_area_rev`. */
  emptyAreaReverse(size: number, min = 0, max = MAPLE_MAX): number {
    return this.searchFree(emptyAreaReverse, size, min, max);
  }

  /** Takes the tree's lock; nests on this thread. Kernel: `mtree_lock`. */
  lock(): void {
    if (this.depth === 0) {
      this.caches.cpu.assertOnline();
      this.takeLock();
    }
    this.depth++;
  }

  /** Gives it up, and frees what stores replaced meanwhile. Kernel: `mtree_unlock`. */
  unlock(): void {
    if (this.depth === 0) throw new CpuError('unlock() of a maple tree that this thread has not locked');
    if (--this.depth > 0) return;
    this.giveLockUp();
    this.finish();
  }

  /** Whether this thread has the lock. */
  get isLocked(): boolean {
    return this.depth > 0;
  }

  /**
   * With the lock held: reserves the nodes that storing `entry` (0 to erase) at [first, last] may need. False when out
   * of memory. {@link storePrealloc} of the same range then cannot fail. Kernel: `mas_preallocate`.
   */
  preallocate(first: number, last: number, entry: number): boolean {
    this.assertLocked('preallocate');
    checkRange(first, last);
    this.writer.prepare(first, last, entry);
    return this.writer.reserve(GFP_UNDER_LOCK);
  }

  /**
   * After a preallocate that failed, and without the lock: gets the nodes that it asked for, waiting for memory if `gfp`
   * allows. Then take the lock and begin again. False when out of memory.
   */
  reserve(gfp: number = GFP_KERNEL): boolean {
    checkGfp(gfp);
    return this.writer.reserve(gfp);
  }

  /** With the lock held: the store that was preallocated, with no store in between. Kernel: `mas_store_prealloc`. */
  storePrealloc(first: number, last: number, entry: number): void {
    this.assertLocked('storePrealloc');
    this.writer.prepare(first, last, entry);
    this.writer.apply();
  }

  /** What storing `entry` at [first, last] would be and take; changes nothing. */
  plan(first: number, last: number, entry: number): { type: StoreType; nodes: number } {
    checkRange(first, last);
    return this.locked(() => {
      this.writer.prepare(first, last, entry);
      const { type, request } = this.writer.walk;
      return { type, nodes: request };
    });
  }

  /** Nodes that the latest store of this handle took. */
  get nodesUsed(): number {
    return this.writer.supply.used;
  }

  /** Frees all nodes; the tree is empty then. Readers of an RCU tree go on with what they have. Kernel: `mtree_destroy`. */
  clear(): void {
    this.lock();
    try {
      const root = this.m[this.tree + ROOT]!;
      storeRelease(this.m, this.tree + ROOT, 0); // pairs with the load of the root in reader.ts
      this.m[this.tree + HEIGHT] = 0;
      if (isNode(root)) this.cleared.push(root);
    } finally {
      this.unlock();
    }
  }

  /**
   * With this tree's lock held: makes `to`, which is empty and known to nobody else, a copy of it, with the same entries.
   * False, and `to` stays empty, when out of memory. Kernel: `__mt_dup`.
   */
  duplicateInto(to: MapleTree): boolean {
    this.assertLocked('duplicateInto');
    if (!(to instanceof MapleTree) || !to.isOf(this.caches)) {
      throw new TypeError('`to` is no maple tree of this arena');
    }
    if (!to.isEmpty || to.hasGaps !== this.hasGaps) {
      throw new RangeError('`to` must be an empty tree, with gaps if this one has them');
    }
    const { m, tree } = this;
    const root = duplicate(m, to.nodes, m[tree + ROOT]!, GFP_UNDER_LOCK);
    if (root < 0) return false;
    m[to.tree + HEIGHT] = m[tree + HEIGHT]!;
    storeRelease(m, to.tree + ROOT, root); // pairs with the load of the root in reader.ts
    return true;
  }

  /** Checks every node; empty when the tree is sound. Takes the lock. Kernel: `mt_validate`. */
  validate(): string[] {
    return this.locked(() =>
      validateTree(this.m, this.m[this.tree + ROOT]!, this.height, this.hasGaps, this.nodes),
    );
  }

  /** Gives back what a preallocation did not use, and frees what was replaced. Kernel: `mas_destroy`. */
  finish(): void {
    this.writer.supply.finish();
    while (this.cleared.length > 0) freeNodes(this.m, this.nodes, this.cleared.pop()!, this.isRcu);
  }

  private change(first: number, last: number, entry: number, gfp: number): boolean {
    checkRange(first, last);
    checkGfp(gfp);
    return (
      this.attempt(gfp, () => {
        this.writer.prepare(first, last, entry);
        if (!this.writer.reserve(GFP_UNDER_LOCK)) return undefined;
        this.writer.apply();
        return true;
      }) === true
    );
  }

  private allocBy(
    search: Search,
    entry: number,
    size: number,
    min: number,
    max: number,
    gfp: number,
  ): number {
    requireInteger('entry', entry, -0x80000000, 0x7fffffff);
    if (entry === 0) throw optionError('entry', entry, 'other than 0, which stands for a free range');
    this.checkSearch(size, min, max);
    checkGfp(gfp);
    const found = this.attempt(gfp, () => {
      const first = search(this.m, this.m[this.tree + ROOT]!, min, max, size);
      if (first < 0) return first;
      this.writer.prepare(first, first + size - 1, entry);
      if (!this.writer.reserve(GFP_UNDER_LOCK)) return undefined;
      this.writer.apply();
      return first;
    });
    return found ?? NO_MEMORY;
  }

  private searchFree(search: Search, size: number, min: number, max: number): number {
    this.checkSearch(size, min, max);
    return this.locked(() => search(this.m, this.m[this.tree + ROOT]!, min, max, size));
  }

  private checkSearch(size: number, min: number, max: number): void {
    checkRange(min, max);
    requireInteger('size', size, 1, MAPLE_MAX);
    if (!this.hasGaps)
      throw new RangeError('this maple tree was made without gaps; make it with { gaps: true }');
  }

  /**
   * Runs `body` under the lock; it returns undefined when nodes are missing. Then the lock is given up, since memory may
   * have to be waited for, the nodes are got, and `body` runs again: other writers may have been there. Kernel:
   * `mas_nomem`.
   */
  private attempt<T>(gfp: number, body: () => T | undefined): T | undefined {
    const nested = this.depth > 0;
    this.lock();
    try {
      for (;;) {
        const result = body();
        if (result !== undefined || nested || !this.reserveWithoutLock(gfp)) return result;
      }
    } finally {
      if (this.depth > 0) this.unlock(); // unless it could not be had again
    }
  }

  private reserveWithoutLock(gfp: number): boolean {
    if ((gfp & __GFP_DIRECT_RECLAIM) === 0) return false;
    this.depth = 0;
    this.giveLockUp();
    const reserved = this.writer.reserve(gfp);
    this.takeLock();
    this.depth = 1;
    return reserved;
  }

  private takeLock(): void {
    if (this.lockWord !== 0) this.caches.cpu.locks.lock(this.lockWord, this.lockClass);
  }

  private giveLockUp(): void {
    if (this.lockWord !== 0) this.caches.cpu.locks.unlock(this.lockWord, this.lockClass);
  }

  private locked<T>(body: () => T): T {
    this.lock();
    try {
      return body();
    } finally {
      this.unlock();
    }
  }

  private assertLocked(what: string): void {
    if (this.depth === 0) throw new CpuError(`${what}() of a maple tree that this thread has not locked`);
  }
}

type Search = (m: Int32Array, root: number, min: number, max: number, size: number) => number;
