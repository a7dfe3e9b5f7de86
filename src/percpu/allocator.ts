/**
 * The percpu allocator, for the calling thread: from the chunks (areaSource.ts, A1 to A5) or, in an arena that was made
 * so, from a cache of areas in front of them. Kernel: `pcpu_alloc`, `free_percpu`.
 */
import type { Caches } from '../cache/index.js';
import { hasOtherThread, type ThisCpu } from '../cpu/index.js';
import {
  __GFP_ACCOUNT,
  __GFP_DIRECT_RECLAIM,
  __GFP_NOFAIL,
  __GFP_NOWARN,
  checkGfp,
  Effort,
  GFP_KERNEL,
} from '../page/index.js';
import { INSPECT, PAGE_SHIFT, PAGE_SIZE, requireInteger } from '../struct/index.js';
import { Intent, NO_CACHE } from '../sync/index.js';
import { areaEnd } from './area.js';
import { AREA_CLASSES, AreaCache, areaClass } from './areaCache.js';
import { AreaSource } from './areaSource.js';
import { badAddress } from './badAddress.js';
import type { BalanceReport } from './balance.js';
import { PercpuCharges } from './charges.js';
import { PercpuCounters } from './counter.js';
import { type PercpuInfo, percpuInfo } from './info.js';
import {
  CHUNKS_MAX,
  IN_HAND_MAX,
  PCPU_MIN_UNIT_SIZE,
  PcpuThread,
  type PcpuView,
  PERCPU_BASE,
  WORD_SHIFT,
} from './layout.js';
import { repairPercpu } from './repair.js';

const { nrInHand: NR_IN_HAND, inHand: IN_HAND } = PcpuThread;

/** For objects that say nothing of it: doubles are aligned. */
const ALIGN_DEFAULT = 8;

/** Memory of which every CPU slot has a copy: `arena.percpu`, for one thread. Kernel: mm/percpu.c. */
export class PercpuAllocator {
  /** @internal */
  readonly v: PcpuView;
  /** @internal */
  readonly cpu: ThisCpu;
  /** Counters with a part per CPU. Kernel: `percpu_counter`. */
  readonly counters: PercpuCounters;
  private readonly source: AreaSource;
  private readonly areas: AreaCache | undefined;
  private readonly charges: PercpuCharges;

  constructor(caches: Caches) {
    this.source = new AreaSource(caches);
    this.v = this.source.v;
    this.cpu = caches.cpu;
    this.areas = caches.geometry.pcpuAreaCache > 0 ? new AreaCache(this.source) : undefined;
    this.source.holdOnly(0);
    this.charges = new PercpuCharges(this.source, caches);
    this.counters = new PercpuCounters(this);
    caches.background = () => this.source.background();
  }

  /** One line for console.log. */
  [INSPECT](): string {
    return `PercpuAllocator { CPU ${this.cpu.id} }`;
  }

  /**
   * Where the copy of CPU slot `cpu` is: an address of the arena, constant while the area is allocated. Throws
   * SlabBugError when no chunk has that percpu address, RangeError when there is no such CPU. Kernel: `per_cpu_ptr`.
   */
  ptr(p: number, cpu: number): number {
    const { v } = this;
    const { m, geometry } = v;
    const index = p >= PERCPU_BASE && p === p >>> 0 ? (p - PERCPU_BASE) >>> v.unitShift : CHUNKS_MAX;
    const chunk = index < CHUNKS_MAX ? m[v.table + index]! : 0;
    if (chunk === 0 || cpu >>> 0 !== cpu || cpu >= geometry.cpus) this.refusePtr(p, cpu);
    const page = (p & (v.unitBytes - 1)) >>> PAGE_SHIFT;
    return m[chunk + v.pages + page * geometry.cpus + cpu]! + (p & (PAGE_SIZE - 1));
  }

  /** The copy of the CPU that this thread runs on. Kernel: `this_cpu_ptr`. */
  thisCpuPtr(p: number): number {
    return this.ptr(p, this.cpu.id);
  }

  private refusePtr(p: number, cpu: number): never {
    this.source.checkedChunk(p);
    requireInteger('cpu', cpu, 0, this.v.geometry.cpus - 1);
    throw badAddress('invalid-pointer', p, 'has no copy');
  }

  /**
   * Takes `size` bytes, 1 to 32 KiB, for every CPU slot, all zero; aligned to `align`, a power of 2 up to a page. Returns
   * a percpu address, or 0 when out of memory; without __GFP_DIRECT_RECLAIM it takes no mutex and finds what is populated
   * already. With __GFP_ACCOUNT it is charged from the beginning, see {@link charge}, and 0 when that is refused.
   * Throws RangeError or TypeError on other sizes, alignments and flags. Kernel: `__alloc_percpu_gfp`.
   * @example
   * const hits = arena.percpu.alloc(4, 4);
   * arena.i32[arena.percpu.thisCpuPtr(hits) >> 2] += 1;
   */
  alloc(size: number, align: number = ALIGN_DEFAULT, gfp: number = GFP_KERNEL): number {
    requireInteger('size', size, 1, PCPU_MIN_UNIT_SIZE);
    requireInteger('align', align, 1, PAGE_SIZE);
    if ((align & (align - 1)) !== 0) throw new RangeError(`align is ${align}; it must be a power of 2`);
    checkGfp(gfp);
    this.cpu.assertOnline();
    const p = this.allocUncharged(size, align, gfp & ~__GFP_ACCOUNT);
    if (p === 0 || (gfp & __GFP_ACCOUNT) === 0 || this.charges.charge(p, gfp)) return p;
    this.free(p);
    return 0;
  }

  private allocUncharged(size: number, align: number, gfp: number): number {
    let p = this.tryAlloc(size, align, gfp);
    if (p === 0 && (gfp & __GFP_DIRECT_RECLAIM) !== 0) p = this.allocReclaiming(size, align, gfp);
    if (p === 0 && (gfp & __GFP_NOWARN) === 0) this.reportFailure(size, align, gfp);
    return p;
  }

  /**
   * Charges an area that is there already, every copy of it, to the group that this thread works for: for an object that
   * keeps its areas while it is free, when it is allocated. False, with nothing changed, when a limit would be exceeded, or
   * without memory for the first charge in a chunk: then the object has to go back. True, too, for a thread without a
   * group, and for an area that is charged, which stays as it is. The allocator itself is not touched: no lock, no map.
   * Throws SlabBugError when `p` is not the start of an allocated area. Kernel: seed 001's `pcpu_charge`.
   * @example
   * const mm = cache.alloc(); // its constructor took the area
   * if (mm !== 0 && !arena.percpu.charge(arena.i32[(mm + PCPU_CID) >> 2])) cache.free(mm);
   */
  charge(p: number, gfp: number = GFP_KERNEL): boolean {
    checkGfp(gfp);
    this.cpu.assertOnline();
    return this.charges.charge(p, gfp);
  }

  /**
   * Gives the charge for an area back to the group that has it, on whatever thread; the area stays allocated. One that is
   * not charged is left alone. {@link free} does it, too. Throws as {@link charge}. Kernel: seed 001's `pcpu_uncharge`.
   */
  uncharge(p: number): void {
    this.cpu.assertOnline();
    this.charges.uncharge(p);
  }

  private reportFailure(size: number, align: number, gfp: number): void {
    const { v, cpu, source } = this;
    const atomic = (gfp & __GFP_DIRECT_RECLAIM) === 0 ? ', of populated pages only' : '';
    const what = `${size} bytes aligned to ${align} on ${v.geometry.cpus} CPUs${atomic}`;
    source.pages.oom.report(() =>
      [`out of percpu memory: CPU ${cpu.id} wanted ${what}`, ...source.pages.describeZones()].join('\n'),
    );
  }

  /** The mutex is not held (A4). */
  private allocReclaiming(size: number, align: number, gfp: number): number {
    const { pages } = this.source;
    for (const effort of [Effort.BARNS, Effort.ALL]) {
      pages.reclaim(effort);
      const p = this.tryAlloc(size, align, gfp);
      if (p !== 0) return p;
    }
    if ((gfp & __GFP_NOFAIL) === 0) return 0;
    return pages.insist(() => {
      pages.reclaim(Effort.ALL);
      return this.tryAlloc(size, align, gfp);
    }, `${size} bytes of percpu memory`);
  }

  private tryAlloc(size: number, align: number, gfp: number): number {
    const { cpu, source } = this;
    const cls = this.areas === undefined ? -1 : areaClass(size, align);
    cpu.enter(Intent.ALLOC_PERCPU, NO_CACHE);
    try {
      const p = cls < 0 ? this.fromChunks(size, align, gfp) : this.fromAreas(this.areas!, cls, gfp);
      if (p !== 0) this.zero(p, size);
      source.holdOnly(0);
      return p;
    } finally {
      // Whatever was thrown: what is in hand here has no other place.
      while (source.held > 0) this.dropHeld();
      cpu.leave();
    }
  }

  private fromChunks(size: number, align: number, gfp: number): number {
    const { source } = this;
    if ((gfp & __GFP_DIRECT_RECLAIM) === 0) return source.takeAtomic(size, align);
    const p = source.withMutex(() => source.takeSleeping(size, align, gfp));
    source.balanceIfNobodyElse();
    return p;
  }

  /** A kept area; or the first of a batch that is taken at once, whose others are kept. */
  private fromAreas(areas: AreaCache, cls: number, gfp: number): number {
    const { source } = this;
    const kept = areas.take(cls, source.hold);
    if (kept !== 0) return kept;
    const bytes = AREA_CLASSES[cls]!;
    if ((gfp & __GFP_DIRECT_RECLAIM) === 0) return source.takeAtomic(bytes, bytes);
    const batch = Math.min(this.v.geometry.pcpuAreaBatch, IN_HAND_MAX);
    source.withMutex(() => {
      for (let n = 0; n < batch && source.takeSleeping(bytes, bytes, gfp) !== 0; n++);
    });
    source.balanceIfNobodyElse();
    while (source.held > 1) {
      if (areas.keep(source.heldAt(source.held - 1), cls)) source.holdOnly(source.held - 1);
      else this.dropHeld();
    }
    return source.held === 0 ? 0 : source.heldAt(0);
  }

  /** Gives back the last area in hand. */
  private dropHeld(): void {
    const p = this.source.heldAt(this.source.held - 1);
    this.source.holdOnly(this.source.held - 1);
    this.source.giveBack(p);
  }

  private zero(p: number, size: number): void {
    const { v } = this;
    const words = (size + (1 << WORD_SHIFT) - 1) >> WORD_SHIFT;
    for (let cpu = 0; cpu < v.geometry.cpus; cpu++) {
      const at = this.ptr(p, cpu) >>> WORD_SHIFT;
      // A loop for the common small area: the builtin costs more than a few stores.
      if (words > 16) v.m.fill(0, at, at + words);
      else for (let i = 0; i < words; i++) v.m[at + i] = 0;
    }
  }

  /**
   * Gives an area back, on any CPU, in any context but within this allocator. 0 is nothing to free. Throws SlabBugError,
   * and changes nothing, when `p` is not the start of an allocated area. Kernel: `free_percpu`.
   */
  free(p: number): void {
    if (p === 0) return;
    this.cpu.assertOnline();
    this.charges.uncharge(p);
    this.cpu.enter(Intent.FREE_PERCPU, NO_CACHE);
    try {
      if (this.areas === undefined) this.source.giveBack(p);
      else if (!this.keepArea(this.areas, p)) this.source.giveBack(p, (area) => this.areas!.isMarked(area));
    } finally {
      this.cpu.leave();
    }
  }

  /** Whether an area cache takes it. Throws when it is none, or is kept already. */
  private keepArea(areas: AreaCache, p: number): boolean {
    const { chunk, start } = this.source.checkedArea(p);
    // Bounds of an area that is allocated do not change: no lock is needed to read them.
    const bytes = (areaEnd(this.v, chunk, start) - start) << WORD_SHIFT;
    const cls = AREA_CLASSES.indexOf(bytes as (typeof AREA_CLASSES)[number]);
    return cls >= 0 && (p & (bytes - 1)) === 0 && areas.keep(p, cls);
  }

  /** Does what was put off, waiting for pcpu_alloc_mutex. A reclaim worker does it by itself. Kernel: `pcpu_balance_workfn`. */
  balance(): BalanceReport {
    return this.source.balance();
  }

  /** What there is and how it is divided. Kernel: `percpu_stats`. */
  info(): PercpuInfo {
    return this.source.withLock(() => percpuInfo(this.v));
  }

  /** Gives back what the area cache of a CPU keeps. @internal */
  drainAreas(cpu: number = this.cpu.id): void {
    this.areas?.drain(cpu, (p) => this.source.giveBack(p));
  }

  /**
   * Clears up after a dead thread, whose locks are marked: completes or undoes what it was at, rebuilds what follows from
   * the maps, and gives back what it had in hand. `cpu` is -1 when it died before it had one. Returns what it found, in
   * words.
   * @internal
   */
  reap(thread: number, owner: number, cpu: number): string[] {
    const notes = repairPercpu(this.source, owner);
    if (cpu < 0) return notes;
    if (this.areas?.repair(cpu, owner)) notes.push('died in an area cache, which is in use again');
    const freed = this.takeFromHand(thread, cpu);
    if (freed > 0) notes.push(`${freed} percpu areas that it had in hand were given back`);
    this.drainAreas(cpu);
    return notes;
  }

  /** This thread has left its CPU: what the CPU keeps is given back, unless other threads run there. @internal */
  leaveCpu(): void {
    const { cpu, v, counters } = this;
    if (hasOtherThread(v.m, v.geometry, cpu.id, cpu.thread)) return;
    this.drainAreas();
    counters.cpuDead(cpu.id);
    counters.updateBatch();
  }

  private takeFromHand(thread: number, cpu: number): number {
    const { m } = this.v;
    const record = this.source.recordOf(thread);
    let freed = 0;
    for (let n = m[record + NR_IN_HAND]!; n > 0; n--) {
      const p = m[record + IN_HAND + n - 1]!;
      m[record + NR_IN_HAND] = n - 1;
      if (this.areas?.isKept(cpu, p) || !this.source.isArea(p)) continue;
      this.areas?.unmark(p);
      this.source.giveBack(p);
      freed++;
    }
    return freed;
  }
}
