/**
 * An address space: areas in a maple tree, under mmap_lock, found by page faults without it. Every thread has a handle of
 * its own for the same space.
 */
import type { Caches, KmemCache } from '../cache/index.js';
import { MapleTree, type MapleTreePtr } from '../maple/index.js';
import { GFP_KERNEL } from '../page/index.js';
import { CpuError, requireInteger, requireKnown, requireObject, type Words } from '../struct/index.js';
import { LockClass, type LockPtr } from '../sync/index.js';
import { Areas } from './areas.js';
import { checkFlags, checkRange, pagesOf } from './checks.js';
import {
  AREA_PAGE,
  type MmPtr,
  MmStruct,
  TASK_SIZE,
  VM_GROWSDOWN,
  VM_READ,
  VM_WRITE,
  VmArea,
  type VmAreaPtr,
} from './layout.js';
import { vmaEndRead, vmaEndWriteAll, vmaStartRead } from './vmaLock.js';

const { start: START, end: END, flags: FLAGS } = VmArea;
const { mapCount: MAP_COUNT, startBrk: START_BRK, brk: BRK } = MmStruct;
/** An operation is begun again so often for want of memory that could be got between. */
const ATTEMPTS_MAX = 16;
const COPY_NODES = 32;
const DEFAULT_FLAGS = VM_READ | VM_WRITE;
type MapOptions = { at?: number; flags?: number };
const MAP_KNOWN = Object.keys({ at: true, flags: true } satisfies Record<keyof MapOptions, true>);

/** An area, as it was when it was looked at. */
export interface Area {
  start: number;
  /** The first byte behind it. */
  end: number;
  flags: number;
}

/** Page faults of one handle, by how their area was found. Kernel: VMA_LOCK_SUCCESS, VMA_LOCK_MISS. */
export interface FaultStats {
  /** Under RCU, with the area's own lock. */
  lockless: number;
  /** Under mmap_lock: the area was being changed, or there was none. */
  underMmapLock: number;
}

/** An address space, for one thread; from `arena.mms`. Kernel: `struct mm_struct`. */
export class Mm {
  private readonly caches: Caches;
  private readonly m: Words;
  private readonly mm: MmPtr;
  private readonly vmas: KmemCache;
  private readonly nodes: KmemCache;
  private readonly tree: MapleTree;
  private readonly areas: Areas;
  private readonly isPrivate: boolean;
  readonly faults: FaultStats = { lockless: 0, underMmapLock: 0 };

  /**
   * `mm` is the index of the struct's first word; the caches are this thread's handles. With `isPrivate`, nobody else
   * knows of the space yet, and its lock is not taken.
   */
  constructor(caches: Caches, mm: MmPtr, vmas: KmemCache, nodes: KmemCache, isPrivate = false) {
    const { m } = caches.views;
    this.caches = caches;
    this.m = m;
    this.mm = mm;
    this.vmas = vmas;
    this.nodes = nodes;
    const word = isPrivate ? 0 : ((mm + MmStruct.mmapLock) as unknown as LockPtr);
    this.isPrivate = isPrivate;
    const treeAt = (field: number): MapleTreePtr => (mm + field) as unknown as MapleTreePtr;
    this.tree = new MapleTree(caches, treeAt(MmStruct.tree), nodes, { word, cls: LockClass.MmapLock });
    const detached = new MapleTree(caches, treeAt(MmStruct.detached), nodes, {
      word: 0,
      cls: LockClass.MmapLock,
    });
    this.areas = new Areas(m, mm, this.tree, detached, vmas);
  }

  /** The struct's address, by which other threads open the space. */
  get address(): number {
    return this.mm * 4;
  }
  /** Whether it lies in the arena of these caches. @internal */
  isOf(caches: Caches): boolean {
    return this.m?.buffer === caches.views.m.buffer;
  }
  /** Areas there are. */
  get mapCount(): number {
    return this.m[this.mm + MAP_COUNT]!;
  }
  /** The tree of areas; an entry is an area's address in the arena. */
  get areasTree(): MapleTree {
    return this.tree;
  }

  /**
   * Maps `bytes`, rounded up to pages, at the highest place that is free, or over what is at `at`. Returns where, 0 when
   * there is no place or no memory. Kernel: `mmap`, MAP_FIXED.
   * @example
   * const start = mm.map(1 << 20);
   */
  map(bytes: number, options: MapOptions = {}): number {
    requireObject('options', options);
    requireKnown('options', options, MAP_KNOWN);
    const { at, flags = DEFAULT_FLAGS } = options;
    const size = pagesOf('bytes', bytes);
    checkFlags(flags);
    if (at !== undefined) checkRange(at, size);
    const result = this.change(() => {
      const start = at ?? this.areas.unmappedArea(size);
      if (start < 0) return 0;
      if (at !== undefined && this.areas.unmap(start, start + size) === undefined) return undefined;
      return this.areas.map(start, start + size, flags) === undefined ? undefined : start;
    });
    return result ?? 0;
  }

  /** Unmaps what is mapped in [start, start + bytes). Returns how many areas went, -1 when out of memory. Kernel: `munmap`. */
  unmap(start: number, bytes: number): number {
    const size = pagesOf('bytes', bytes);
    checkRange(start, size);
    return this.change(() => this.areas.unmap(start, start + size)) ?? -1;
  }

  /** Sets the flags of what is mapped there. False when out of memory; part of it may have them then. Kernel: `mprotect`. */
  protect(start: number, bytes: number, flags: number): boolean {
    const size = pagesOf('bytes', bytes);
    checkRange(start, size);
    checkFlags(flags);
    return this.change(() => this.areas.protect(start, start + size, flags)) ?? false;
  }

  /**
   * Moves the end of the heap, which begins where it was first set. False when out of memory, or when something else is
   * in the way: nothing was changed. Kernel: `brk`, `do_brk_flags`.
   */
  brk(end: number): boolean {
    checkRange(end, AREA_PAGE);
    const { m, mm, areas } = this;
    const done = this.change(() => {
      if (m[mm + START_BRK] === 0) {
        m[mm + START_BRK] = end;
        m[mm + BRK] = end;
      }
      const old = m[mm + BRK]!;
      if (end < m[mm + START_BRK]!) return false;
      if (end > old) {
        const inTheWay = areas.next(old);
        if (inTheWay !== 0 && m[inTheWay + START]! < end) return false;
        if (areas.map(old, end, DEFAULT_FLAGS) === undefined) return undefined;
      } else if (end < old && areas.unmap(end, old) === undefined) return undefined;
      m[mm + BRK] = end;
      return true;
    });
    return done ?? false;
  }

  /**
   * Lets the area above `address` grow down to it, as a stack does. False when there is none with VM_GROWSDOWN, or no
   * memory. Kernel: `expand_downwards`.
   */
  growDown(address: number): boolean {
    checkRange(address, AREA_PAGE);
    const { m, areas } = this;
    const done = this.change(() => {
      const vma = areas.next(address);
      if (vma === 0 || (m[vma + FLAGS]! & VM_GROWSDOWN) === 0) return false;
      if (m[vma + START]! <= address) return true;
      return areas.resize(vma, address, m[vma + END]!) ? true : undefined;
    });
    return done ?? false;
  }

  /** The area at `address` or the next one above; undefined when there is none. Takes mmap_lock. Kernel: `find_vma`. */
  find(address: number): Area | undefined {
    requireInteger('address', address, 0, TASK_SIZE);
    return this.locked(() => {
      const vma = this.areas.next(address);
      return vma === 0 ? undefined : this.describe(vma);
    });
  }

  /** All areas, in order. Takes mmap_lock. */
  list(): Area[] {
    return this.locked(() => this.tree.ranges().map(({ entry }) => this.describe((entry >> 2) as VmAreaPtr)));
  }

  /**
   * Finds the area at `address` without mmap_lock and takes a reference in it, so that nobody changes it until
   * {@link endFault}. Returns its address in the arena, 0 when it is being changed or there is none: ask under mmap_lock.
   * Kernel: `lock_vma_under_rcu`.
   */
  startFault(address: number): number {
    const { m, mm } = this;
    const { rcu } = this.caches;
    rcu.readLock();
    try {
      const p = this.tree.load(address);
      return p !== 0 && vmaStartRead(m, mm, (p >> 2) as VmAreaPtr, address) ? p : 0;
    } finally {
      rcu.readUnlock();
    }
  }

  /** Gives the reference back. */
  endFault(vma: number): void {
    vmaEndRead(this.m, (vma >> 2) as VmAreaPtr);
  }

  /**
   * A page fault: whether there is an area at `address` that has all of `flags`. Without mmap_lock if possible. Kernel:
   * `do_user_addr_fault`.
   */
  fault(address: number, flags = VM_READ): boolean {
    checkFlags(flags);
    const p = this.startFault(address);
    if (p === 0) {
      this.faults.underMmapLock++;
      return this.faultUnderMmapLock(address, flags);
    }
    this.faults.lockless++;
    const allowed = (this.m[(p >> 2) + FLAGS]! & flags) === flags;
    this.endFault(p);
    return allowed;
  }

  /** The same under mmap_lock, as all page faults were: what the area's own lock is compared with. */
  faultUnderMmapLock(address: number, flags = VM_READ): boolean {
    checkFlags(flags);
    this.tree.lock();
    try {
      const p = this.tree.load(address);
      return p !== 0 && (this.m[(p >> 2) + FLAGS]! & flags) === flags;
    } finally {
      this.tree.unlock();
    }
  }

  /**
   * Copies all areas into `child`, a private handle: the tree node by node, then each area. False when out of memory; the
   * child has none then. Kernel: `dup_mmap`.
   */
  forkInto(child: Mm): boolean {
    if (!(child instanceof Mm) || !child.isOf(this.caches)) {
      throw new TypeError('child is no address space of this arena; use mms.fork');
    }
    if (!child.isPrivate || child.mapCount !== 0) throw new RangeError('child must be new; use mms.fork');
    const done = this.change(() => child.locked(() => this.copyAreas(child)));
    return done ?? false;
  }

  /** Unmaps everything. Other threads must have stopped using the space. Kernel: `exit_mmap`. */
  exit(): void {
    this.locked(() => {
      const { areas, tree, m, mm } = this;
      const all = tree.ranges().map(({ entry }) => (entry >> 2) as VmAreaPtr);
      for (const vma of all) areas.lockArea(vma);
      tree.clear();
      for (const vma of all) areas.free(vma);
      m[mm + MAP_COUNT] = 0;
    });
  }

  /** What is wrong with the space; empty when it is sound. Takes mmap_lock. Kernel: `validate_mm`. */
  validate(): string[] {
    return this.locked(() => {
      const findings = this.tree.validate();
      const ranges = this.tree.ranges();
      for (const { first, last, entry } of ranges) {
        const vma = (entry >> 2) as VmAreaPtr;
        this.vmas.assertAllocated(entry);
        const { start, end } = this.describe(vma);
        if (start !== first || end !== last + 1)
          findings.push(`area [${start}, ${end}) is at [${first}, ${last}]`);
        if (this.m[vma + VmArea.mm] !== this.mm) findings.push(`the area at ${start} is another space's`);
        if (this.m[vma + VmArea.refcnt] !== 1) findings.push(`the area at ${start} has references`);
      }
      if (ranges.length !== this.mapCount)
        findings.push(`${ranges.length} areas; mapCount is ${this.mapCount}`);
      return findings;
    });
  }

  private copyAreas(child: Mm): true | undefined {
    const { m, areas, tree } = this;
    // First: one that readers keep throws, with nothing copied.
    for (const { entry } of tree.ranges()) areas.lockArea((entry >> 2) as VmAreaPtr);
    if (!tree.duplicateInto(child.tree)) return child.copiedInVain('copied nodes', areas);
    const ranges = child.tree.ranges();
    for (const { first, last, entry } of ranges) {
      const copy = areas.allocArea();
      if (copy === 0) return child.copiedInVain('area', areas);
      child.areas.initCopy(copy, (entry >> 2) as VmAreaPtr);
      // The range is a slot of its own: exact_fit, no nodes.
      child.tree.preallocate(first, last, copy * 4);
      child.tree.storePrealloc(first, last, copy * 4);
    }
    m[child.mm + MAP_COUNT] = ranges.length;
    m[child.mm + START_BRK] = m[this.mm + START_BRK]!;
    m[child.mm + BRK] = m[this.mm + BRK]!;
    return true;
  }

  /** Takes a copy back that could not be completed: in the tree are copies, and behind them areas of the parent. */
  private copiedInVain(missing: 'copied nodes' | 'area', parent: Areas): undefined {
    const { m } = this;
    parent.missing = missing;
    for (const { entry } of this.tree.ranges()) {
      if (m[(entry >> 2) + VmArea.mm] === this.mm) this.areas.free((entry >> 2) as VmAreaPtr);
    }
    this.tree.clear();
    return undefined;
  }

  private describe(vma: VmAreaPtr): Area {
    const { m } = this;
    return { start: m[vma + START]!, end: m[vma + END]!, flags: m[vma + FLAGS]! };
  }

  /** Runs an operation under mmap_lock, again and again while memory is missing that can be got without it. */
  private change<T>(body: () => T | undefined): T | undefined {
    let result: T | undefined;
    for (let attempts = 0; attempts < ATTEMPTS_MAX; attempts++) {
      this.areas.missing = '';
      result = this.locked(body);
      if (result !== undefined || !this.provide()) break;
    }
    this.dropSpare();
    return result;
  }

  /** Gets what was missing, waiting for memory if need be. */
  private provide(): boolean {
    const { areas } = this;
    switch (areas.missing) {
      case 'area':
        areas.spare = this.vmas.alloc(GFP_KERNEL);
        return areas.spare !== 0;
      case 'nodes':
        return this.tree.reserve(GFP_KERNEL);
      case 'detached nodes':
        return areas.detached.reserve(GFP_KERNEL);
      case 'copied nodes': {
        // What is returned is what the next attempt finds in the sheaves.
        const sheaf = this.nodes.prefill(COPY_NODES, GFP_KERNEL);
        if (sheaf !== null) this.nodes.return(sheaf);
        return sheaf !== null;
      }
      default:
        return false;
    }
  }

  private dropSpare(): void {
    const { spare } = this.areas;
    this.areas.spare = 0;
    if (spare !== 0) this.vmas.free(spare);
  }

  private locked<T>(body: () => T): T {
    const { areas, tree } = this;
    if (tree.isLocked) throw new CpuError('an operation on an address space within another one');
    tree.lock();
    areas.detached.lock();
    try {
      return body();
    } finally {
      if (areas.wrote) {
        areas.wrote = false;
        vmaEndWriteAll(this.m, this.mm);
      }
      if (!areas.detached.isEmpty) areas.detached.clear(); // what was gathered when something was thrown
      try {
        tree.unlock(); // frees what was replaced, which may find a lock stuck
      } finally {
        areas.detached.unlock();
      }
    }
  }
}
