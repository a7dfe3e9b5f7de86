/**
 * Changes to an address space's areas, by whoever holds mmap_lock. Each may find that memory is missing, returns
 * undefined then, and may be begun again from the start: what it has done by then is complete in itself (an area that was
 * split stays split).
 *
 * | operation              | vm_area_struct          | stores                                               |
 * |------------------------|-------------------------|------------------------------------------------------|
 * | map                    | alloc                   | one                                                  |
 * | map beside its like    | free, if it joins two   | one: the neighbour grows                             |
 * | split                  | alloc                   | one                                                  |
 * | unmap of n areas       | up to 2 splits; n frees | n into a tree of its own, one to clear the range     |
 * | grow                   | -                       | one                                                  |
 *
 * Nodes are reserved before anything is changed; a store then cannot fail. Kernel: mm/vma.c.
 */
import type { KmemCache } from '../cache/index.js';
import type { MapleCursor, MapleTree } from '../maple/index.js';
import { __GFP_NOWARN, GFP_NOWAIT } from '../page/index.js';
import type { Words } from '../struct/index.js';
import { MMAP_MIN, type MmPtr, MmStruct, TASK_SIZE, VmArea, type VmAreaPtr } from './layout.js';
import { vmaMarkAttached, vmaMarkDetached, vmaStartWrite } from './vmaLock.js';

const { start: START, end: END, mm: MM, flags: FLAGS, refcnt: REFCNT, lockSeq: LOCK_SEQ } = VmArea;
const { pgoff: PGOFF, file: FILE } = VmArea;
const { seq: SEQ, mapCount: MAP_COUNT } = MmStruct;
const GFP_UNDER_LOCK = GFP_NOWAIT | __GFP_NOWARN;
const NONE = 0 as VmAreaPtr;

/** What was missing when an operation returned undefined. */
type Missing = '' | 'area' | 'nodes' | 'detached nodes' | 'copied nodes';

export class Areas {
  private readonly m: Words;
  private readonly mm: MmPtr;
  readonly tree: MapleTree;
  readonly detached: MapleTree;
  private readonly vmas: KmemCache;
  private readonly cursor: MapleCursor;
  missing: Missing = '';
  /** An area for an operation that found none, got without the lock. */
  spare = 0;
  /** Whether an area is locked for writing. */
  wrote = false;

  constructor(m: Words, mm: MmPtr, tree: MapleTree, detached: MapleTree, vmas: KmemCache) {
    this.m = m;
    this.mm = mm;
    this.tree = tree;
    this.detached = detached;
    this.vmas = vmas;
    this.cursor = tree.cursor();
  }

  /** Makes [start, end) an area; whatever is there has been unmapped. Kernel: `__mmap_region`. */
  map(start: number, end: number, flags: number): boolean | undefined {
    if (this.mergeNew(start, end, flags)) return true;
    if (this.missing !== '') return undefined;
    const vma = this.allocArea();
    if (vma === 0) return undefined;
    this.init(vma, start, end, flags, 0);
    if (!this.reserve(start, end, vma)) return this.giveBack(vma);
    this.attach(vma);
    return true;
  }

  /** The highest place for so many bytes, or -1. Kernel: `vm_unmapped_area`, top down. */
  unmappedArea(bytes: number): number {
    return this.tree.emptyAreaReverse(bytes, MMAP_MIN, TASK_SIZE - 1);
  }

  /** The areas on both sides of a new one, if they are alike, take it in. Kernel: `vma_merge_new_range`. */
  private mergeNew(start: number, end: number, flags: number): boolean {
    const below = this.at(start - 1);
    const above = this.at(end);
    const joinsBelow = below !== 0 && this.isLike(below, flags);
    const joinsAbove = above !== 0 && this.isLike(above, flags);
    if (joinsBelow && joinsAbove) return this.join(below, above);
    if (joinsBelow) return this.resize(below, this.m[below + START]!, end);
    return joinsAbove && this.resize(above, start, this.m[above + END]!);
  }

  /** `below` grows over the space between and over `above`, which goes. */
  private join(below: VmAreaPtr, above: VmAreaPtr): boolean {
    const { m, mm } = this;
    const end = m[above + END]!;
    if (!this.reserve(m[below + START]!, end, below)) return false;
    this.lockArea(below);
    this.lockArea(above);
    this.tree.storePrealloc(m[below + START]!, end - 1, below * 4);
    m[below + END] = end;
    m[mm + MAP_COUNT] = m[mm + MAP_COUNT]! - 1;
    this.free(above);
    return true;
  }

  /** Gives an area other bounds: what it leaves becomes free, what it takes was free. Kernel: `vma_expand`, `vma_shrink`. */
  resize(vma: VmAreaPtr, start: number, end: number): boolean {
    const { m } = this;
    if (!this.reserve(start, end, vma)) return false;
    this.lockArea(vma);
    this.tree.storePrealloc(start, end - 1, vma * 4);
    m[vma + PGOFF] = m[vma + PGOFF]! + (start - m[vma + START]!);
    m[vma + START] = start;
    m[vma + END] = end;
    return true;
  }

  /** Makes two areas of one, at `address`. Kernel: `__split_vma`. */
  private split(vma: VmAreaPtr, address: number): boolean {
    const { m, mm } = this;
    this.lockArea(vma); // first: one that readers keep throws
    const upper = this.allocArea();
    if (upper === 0) return false;
    const end = m[vma + END]!;
    this.init(upper, address, end, m[vma + FLAGS]!, m[vma + FILE]!);
    m[upper + PGOFF] = m[vma + PGOFF]! + (address - m[vma + START]!);
    if (!this.reserve(address, end, upper)) {
      this.giveBack(upper);
      return false;
    }
    m[vma + END] = address;
    this.tree.storePrealloc(address, end - 1, upper * 4);
    vmaMarkAttached(m, upper);
    m[mm + MAP_COUNT] = m[mm + MAP_COUNT]! + 1;
    return true;
  }

  /** Splits so that areas begin and end at these addresses. False when memory is missing. */
  private splitAt(start: number, end: number): boolean {
    for (const address of [start, end]) {
      const vma = this.at(address);
      if (vma !== 0 && this.m[vma + START]! < address && !this.split(vma, address)) return false;
    }
    return true;
  }

  /** Frees [start, end) of areas. Returns how many went. Kernel: `do_vmi_align_munmap`. */
  unmap(start: number, end: number): number | undefined {
    const { m, mm, tree, detached, cursor } = this;
    if (!this.splitAt(start, end)) return undefined;
    let count = 0;
    cursor.set(start);
    for (let at = cursor.next(end - 1); at !== 0; at = cursor.next(end - 1), count++) {
      if (!detached.store(count, count, at, GFP_UNDER_LOCK)) return this.gatheredInVain();
    }
    if (count === 0) return 0;
    if (!this.reserve(start, end, NONE)) return this.gatheredInVain();
    for (let i = 0; i < count; i++) this.lockArea((detached.load(i) >> 2) as VmAreaPtr);
    tree.storePrealloc(start, end - 1, 0);
    for (let i = 0; i < count; i++) this.free((detached.load(i) >> 2) as VmAreaPtr);
    detached.clear();
    m[mm + MAP_COUNT] = m[mm + MAP_COUNT]! - count;
    return count;
  }

  private gatheredInVain(): undefined {
    if (this.missing === '') this.missing = 'detached nodes';
    this.detached.clear();
    return undefined;
  }

  /** Sets the flags of what is mapped in [start, end), and joins areas that became alike. Kernel: `mprotect_fixup`. */
  protect(start: number, end: number, flags: number): boolean | undefined {
    const { m, cursor } = this;
    if (!this.splitAt(start, end)) return undefined;
    cursor.set(start);
    for (let at = cursor.next(end - 1); at !== 0; at = cursor.next(end - 1)) {
      const vma = (at >> 2) as VmAreaPtr;
      this.lockArea(vma);
      m[vma + FLAGS] = flags;
    }
    return this.joinAlike(start, end);
  }

  /** Joins areas side by side that are alike, from the one before `start` to the one at `end`. */
  private joinAlike(start: number, end: number): boolean | undefined {
    const { m } = this;
    let below = this.at(start - 1);
    if (below === 0) below = this.next(start);
    while (below !== 0 && m[below + END]! <= end) {
      const above = this.at(m[below + END]!);
      if (above === 0) below = this.next(m[below + END]!);
      else if (!this.isLike(above, m[below + FLAGS]!)) below = above;
      else if (!this.join(below, above)) return undefined;
    }
    return true;
  }

  /** The area at `address`, or 0. */
  at(address: number): VmAreaPtr {
    return address < 0 ? NONE : ((this.tree.load(address) >> 2) as VmAreaPtr);
  }

  /** The area at `address` or the next one above, or 0. Kernel: `find_vma`. */
  next(address: number): VmAreaPtr {
    this.cursor.set(address);
    return (this.cursor.next() >> 2) as VmAreaPtr;
  }

  private isLike(vma: VmAreaPtr, flags: number): boolean {
    return this.m[vma + FLAGS] === flags && this.m[vma + FILE] === 0;
  }

  /** An area nobody knows yet; undefined, to be returned, when there is none. */
  allocArea(): VmAreaPtr {
    const p = this.spare !== 0 ? this.spare : this.vmas.alloc(GFP_UNDER_LOCK);
    this.spare = 0;
    if (p === 0) this.missing = 'area';
    return (p >> 2) as VmAreaPtr;
  }

  init(vma: VmAreaPtr, start: number, end: number, flags: number, file: number): void {
    const { m, mm } = this;
    m[vma + REFCNT] = 0; // in no tree, which is what readers that come by the memory find, too
    m[vma + START] = start;
    m[vma + END] = end;
    m[vma + MM] = mm;
    m[vma + FLAGS] = flags;
    m[vma + PGOFF] = 0;
    m[vma + FILE] = file;
    // Locked for writing until the operation is done.
    m[vma + LOCK_SEQ] = m[mm + SEQ]!;
    this.wrote = true;
  }

  /** Makes an area like another space's; it is attached, and its place in the tree is there. Kernel: `vm_area_dup`. */
  initCopy(copy: VmAreaPtr, original: VmAreaPtr): void {
    const { m } = this;
    this.init(copy, m[original + START]!, m[original + END]!, m[original + FLAGS]!, m[original + FILE]!);
    m[copy + PGOFF] = m[original + PGOFF]!;
    vmaMarkAttached(m, copy);
  }

  /** Puts a new area, whose nodes are reserved, into the tree. */
  private attach(vma: VmAreaPtr): void {
    const { m, mm } = this;
    vmaMarkAttached(m, vma);
    this.tree.storePrealloc(m[vma + START]!, m[vma + END]! - 1, vma * 4);
    m[mm + MAP_COUNT] = m[mm + MAP_COUNT]! + 1;
  }

  lockArea(vma: VmAreaPtr): void {
    this.wrote = true;
    vmaStartWrite(this.m, this.mm, vma);
  }

  /** Frees an area that has left the tree: at once, its memory stays an area's while somebody may look. */
  free(vma: VmAreaPtr): void {
    vmaMarkDetached(this.m, vma);
    this.vmas.free(vma * 4);
  }

  private giveBack(vma: VmAreaPtr): undefined {
    this.vmas.free(vma * 4);
    return undefined;
  }

  private reserve(start: number, end: number, vma: VmAreaPtr): boolean {
    if (this.tree.preallocate(start, end - 1, vma * 4)) return true;
    this.missing = 'nodes';
    return false;
  }
}
