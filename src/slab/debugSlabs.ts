/**
 * Slabs of debug caches: one object at a time, all of it under list_lock, with checks before and patterns after. A cache
 * without debug flags is passed on to what it would have got without this file.
 *
 * | slab                     | list                                                                    |
 * |--------------------------|-------------------------------------------------------------------------|
 * | has free objects         | partial                                                                 |
 * | full, SLAB_STORE_USER    | full: its objects' tracks are found there                               |
 * | full                     | none                                                                    |
 * | failed a check           | none: frozen, all objects count as used, nothing is allocated or freed  |
 */
import { Stat, type ThisCpu } from '../cpu/index.js';
import { isHeapAddress, Page, type PageAllocator, type PagePtr, PG_PARTIAL, PG_SLAB } from '../page/index.js';
import { SlabBugError, type SlabBugKind } from '../struct/index.js';
import { LockClass, loadAcquire, storeRelease } from '../sync/index.js';
import { SLAB_CONSISTENCY_CHECKS, SLAB_DEBUG_FLAGS, SLAB_STORE_USER, SLAB_TRACE } from './flags.js';
import type { FreelistLoops } from './freelist.js';
import { readFreePointer, writeFreePointer } from './freePointer.js';
import {
  type CacheDesc,
  hasMinPartial,
  KmemCacheNode,
  type KmemCacheNodePtr,
  KmemCacheStruct,
  listLock,
  nodeOf,
} from './kmemCache.js';
import { NolockSlabs } from './nolock.js';
import { SLUB_RED_ACTIVE, SLUB_RED_INACTIVE, TRACK_ALLOC, TRACK_FREE } from './objectDebug.js';
import { addPartialHead, addPartialTail, removePartial } from './partialList.js';
import { SlabChecks } from './slabChecks.js';
import { FROZEN, inuseOf, packSlabWord } from './slabWord.js';

const { slabWord: SLAB_WORD, objects: OBJECTS, next: NEXT, prev: PREV } = Page;
const { nrPartial: NR_PARTIAL, head: HEAD, full: FULL } = KmemCacheNode;
const { nrSlabs: NR_SLABS, totalObjects: TOTAL_OBJECTS, disabled: DISABLED } = KmemCacheNode;
const LIST_LOCK_CLASS = LockClass.ListLock;

/** Whether a cache is worked on here. Kernel: `kmem_cache_debug`. */
export const isDebug = (s: CacheDesc): boolean => (s.flags & SLAB_DEBUG_FLAGS) !== 0;
const isChecked = (s: CacheDesc): boolean => (s.flags & SLAB_CONSISTENCY_CHECKS) !== 0;

/** Why an object was not freed: misuse of the call, or damage that the call found. */
type Refusal = SlabBugKind | 'damaged';

export class DebugSlabs extends NolockSlabs {
  readonly checks: SlabChecks;

  constructor(cpu: ThisCpu, pages: PageAllocator, loops: FreelistLoops) {
    super(cpu, pages, loops);
    this.checks = new SlabChecks(cpu);
  }

  override allocSlow(s: CacheDesc, gfp: number, node: number): number {
    const p = super.allocSlow(s, gfp, node);
    if (p !== 0 && isDebug(s)) this.trackAlloc(s, p, true);
    return p;
  }

  override allocNolock(s: CacheDesc): number {
    const p = super.allocNolock(s);
    if (p !== 0 && isDebug(s)) this.trackAlloc(s, p, false);
    return p;
  }

  override refillObjects(
    s: CacheDesc,
    out: Int32Array,
    at: number,
    min: number,
    max: number,
    gfp: number,
  ): number {
    if (!isDebug(s)) return super.refillObjects(s, out, at, min, max, gfp);
    for (let got = 0; got < max; got++) {
      const p = this.getFromPartial(s, this.cpu.node, gfp) || this.allocFromFreshSlab(s, gfp, this.cpu.node);
      if (p === 0) return got;
      this.trackAlloc(s, p, true);
      out[at + got] = p;
    }
    return max;
  }

  override refillFromPartial(
    s: CacheDesc,
    out: Int32Array,
    at: number,
    min: number,
    max: number,
    gfp: number,
  ): number {
    return isDebug(s) ? 0 : super.refillFromPartial(s, out, at, min, max, gfp);
  }

  /** T alone can be switched while the cache is in use: the arena has the flags that hold, `s` those that it was opened with. */
  private isTraced(s: CacheDesc): boolean {
    return (this.m[s.ptr + KmemCacheStruct.flags]! & SLAB_TRACE) !== 0;
  }

  /** The object is ours: nobody else knows its address yet. */
  private trackAlloc(s: CacheDesc, p: number, mayWait: boolean): void {
    const { checks } = this;
    if ((s.flags & SLAB_STORE_USER) !== 0) checks.setTrack(s, p, TRACK_ALLOC, checks.sink.stack(mayWait));
    if (mayWait) checks.sink.flush();
  }

  protected override prepareBytes(s: CacheDesc, page: PagePtr): void {
    if (isDebug(s)) this.checks.initSlabBytes(s, this.slabAddress(page), this.checks.slabBytes(page));
  }

  override newSlab(s: CacheDesc, gfp: number, node: number): PagePtr {
    const page = super.newSlab(s, gfp, node);
    if (page !== 0 && isDebug(s)) this.setUp(s, page);
    return page;
  }

  /** Nobody knows the slab yet. Kernel: `setup_slab_debug`, `setup_object_debug`. */
  private setUp(s: CacheDesc, page: PagePtr): void {
    const { m, checks } = this;
    const objects = m[page + OBJECTS]!;
    for (let i = 0; i < objects; i++) {
      const p = checks.objectAt(s, page, i);
      checks.initObject(s, p, SLUB_RED_INACTIVE);
      checks.initTracking(s, p);
    }
    const head = this.dealObjects(s, checks.objectAt(s, page, 0), objects, this.scratch, 0, 0);
    m[page + SLAB_WORD] = packSlabWord(head, 0);
  }

  override allocFromNewSlab(s: CacheDesc, page: PagePtr, count: number, out: Int32Array, at: number): number {
    if (!isDebug(s)) return super.allocFromNewSlab(s, page, count, out, at);
    const n = nodeOf(this.m, s, this.pages.nodeOf(page));
    this.cpu.locks.lock(listLock(n), LIST_LOCK_CLASS);
    try {
      out[at] = this.allocFresh(s, n, page);
      return out[at] !== 0 ? 1 : 0;
    } finally {
      this.cpu.locks.unlock(listLock(n), LIST_LOCK_CLASS);
    }
  }

  protected override allocFirstNolock(s: CacheDesc, page: PagePtr): number {
    if (!isDebug(s)) return super.allocFirstNolock(s, page);
    return this.allocFresh(s, nodeOf(this.m, s, this.pages.nodeOf(page)), page);
  }

  /** list_lock held. The first object of a slab that has just been made. Kernel: `alloc_single_from_new_slab`. */
  private allocFresh(s: CacheDesc, n: KmemCacheNodePtr, page: PagePtr): number {
    const { m } = this;
    const p = this.popChecked(s, n, page);
    m[n + NR_SLABS] = m[n + NR_SLABS]! + 1;
    m[n + TOTAL_OBJECTS] = m[n + TOTAL_OBJECTS]! + m[page + OBJECTS]!;
    if (p === 0) return 0; // it failed its checks: counted, and on no list
    if (inuseOf(m[page + SLAB_WORD]!) === m[page + OBJECTS]) this.addFull(s, n, page);
    else addPartialHead(m, n, page);
    return p;
  }

  /** Kernel: `get_from_partial_node` with `alloc_single_from_partial`. */
  protected override getPartialNode(s: CacheDesc, node: number, tryOnly = false): number {
    if (!isDebug(s)) return super.getPartialNode(s, node, tryOnly);
    const { m, cpu } = this;
    const n = nodeOf(m, s, node);
    // data race, intended: a slab that arrives now is found next time.
    if (m[n + NR_PARTIAL] === 0) return 0;
    if (!tryOnly) cpu.locks.lock(listLock(n), LIST_LOCK_CLASS);
    else if (!cpu.locks.tryLock(listLock(n), LIST_LOCK_CLASS)) return 0;
    try {
      return this.allocFromList(s, n);
    } finally {
      cpu.locks.unlock(listLock(n), LIST_LOCK_CLASS);
    }
  }

  /** list_lock held. A slab that fails its checks leaves the list, and the next one is tried. */
  private allocFromList(s: CacheDesc, n: KmemCacheNodePtr): number {
    const { m } = this;
    const first = (): PagePtr => this.firstAllowed(m[n + HEAD] as PagePtr);
    for (let page = first(); page !== 0; page = first()) {
      const p = this.popChecked(s, n, page);
      if (p !== 0 && inuseOf(m[page + SLAB_WORD]!) < m[page + OBJECTS]!) return p;
      removePartial(m, n, page);
      if (p === 0) continue;
      this.addFull(s, n, page);
      return p;
    }
    return 0;
  }

  /** list_lock held. The slab's first free object, made one in use; 0 when a check failed. Kernel: `alloc_debug_processing`. */
  private popChecked(s: CacheDesc, n: KmemCacheNodePtr, page: PagePtr): number {
    const { m, checks } = this;
    const p = checks.firstObject(s, page);
    if (isChecked(s) && !this.mayAlloc(s, page, p)) {
      checks.sink.fix(s, 'Marking all objects used');
      // Pairs with loadAcquire of whoever looks at the slab without the lock.
      storeRelease(m, page + SLAB_WORD, packSlabWord(0, m[page + OBJECTS]!) | FROZEN);
      m[n + DISABLED] = m[n + DISABLED]! + 1;
      return 0;
    }
    if (p === 0) return 0;
    const link = readFreePointer(m, s, p);
    const next = checks.isLink(s, page, link) ? link : 0;
    checks.setSlabWord(s, page, next, next === 0 ? m[page + OBJECTS]! : inuseOf(m[page + SLAB_WORD]!) + 1);
    if (this.isTraced(s)) checks.sink.trace(s, page, p, true);
    checks.setOrigSize(s, p, s.objectSize);
    checks.initObject(s, p, SLUB_RED_ACTIVE);
    return p;
  }

  /** Kernel: `alloc_consistency_checks`. */
  private mayAlloc(s: CacheDesc, page: PagePtr, p: number): boolean {
    const { checks } = this;
    if (!checks.checkSlab(s, page)) return false;
    if (p === 0 || !checks.isLink(s, page, p)) {
      checks.sink.bug(s, { what: 'Freelist Pointer check fails', page, object: p });
      return false;
    }
    return checks.checkObject(s, page, p, SLUB_RED_INACTIVE);
  }

  override freeChain(s: CacheDesc, page: PagePtr, head: number, tail: number, cnt: number): void {
    if (!isDebug(s)) super.freeChain(s, page, head, tail, cnt);
    else
      for (let p = head, next = 0; ; p = next) {
        next = readFreePointer(this.m, s, p);
        this.freeChecked(s, p);
        if (p === tail) return;
      }
  }

  override freeOne(s: CacheDesc, p: number): void {
    if (isDebug(s)) this.freeChecked(s, p);
    else super.freeOne(s, p);
  }

  override freeObjects(s: CacheDesc, list: Int32Array, at: number, n: number): void {
    if (!isDebug(s)) super.freeObjects(s, list, at, n);
    else for (let i = 0; i < n; i++) this.freeChecked(s, list[at + i]!);
  }

  override freeNolock(s: CacheDesc, p: number): void {
    if (isDebug(s)) this.cpu.defer(p, (p + s.offset) >> 2);
    else super.freeNolock(s, p);
  }

  /**
   * Frees one object of a debug cache. When damage is found, it is reported and restored, and the object stays allocated.
   * Throws SlabBugError, with nothing freed, when `p` is no allocated object. Kernel: `free_to_partial_list`.
   */
  private freeChecked(s: CacheDesc, p: number): void {
    const { m, cpu, checks } = this;
    const stack = (s.flags & SLAB_STORE_USER) !== 0 ? checks.sink.stack(true) : 0;
    const page = isChecked(s) && !isHeapAddress(cpu.geometry, p) ? 0 : this.slabOf(p);
    let refusal: Refusal | undefined = 'invalid-pointer';
    let discard = false;
    // The page of an address that is nobody's may be any: its node's lock does no harm.
    const n = nodeOf(m, s, page === 0 ? 0 : this.pages.nodeOf(page as PagePtr));
    cpu.locks.lock(listLock(n), LIST_LOCK_CLASS);
    try {
      refusal = isChecked(s) ? this.refusesFree(s, n, page as PagePtr, p) : undefined;
      if (refusal === undefined) discard = this.pushChecked(s, n, page as PagePtr, p, stack);
      else checks.sink.fix(s, `Object at 0x${p.toString(16)} not freed`);
    } finally {
      cpu.locks.unlock(listLock(n), LIST_LOCK_CLASS);
    }
    if (discard) {
      this.count(s, Stat.FREE_SLAB);
      this.discardSlab(s, page as PagePtr);
    }
    checks.sink.flush();
    if (refusal === undefined) return;
    if (refusal === 'damaged') return checks.sink.kept(s, p);
    throw new SlabBugError(refusal, s.name, p, `Object at 0x${p.toString(16)} not freed`);
  }

  /** list_lock held. Kernel: `free_consistency_checks`, after `check_slab`. */
  private refusesFree(s: CacheDesc, n: KmemCacheNodePtr, page: PagePtr, p: number): Refusal | undefined {
    const { m, checks } = this;
    const { sink } = checks;
    if (page === 0 || (m[page + Page.flags]! & PG_SLAB) === 0) {
      sink.bug(s, {
        what: `Attempt to free object(0x${p.toString(16)}) outside of slab`,
        page: 0 as PagePtr,
        object: 0,
      });
      return 'not-a-slab';
    }
    if (m[page + Page.cache] !== s.ptr) {
      sink.bug(s, { what: 'page slab pointer corrupt', page, object: 0 });
      return 'wrong-cache';
    }
    if (!checks.checkSlab(s, page)) return 'damaged';
    if (!checks.isLink(s, page, p)) {
      sink.bug(s, { what: `Invalid object pointer 0x${p.toString(16)}`, page, object: 0 });
      return 'invalid-pointer';
    }
    const isFree = checks.onFreelist(s, page, p);
    this.placeRepaired(s, n, page);
    if (isFree) {
      sink.bug(s, { what: 'Object already free', page, object: p });
      return 'double-free';
    }
    return checks.checkObject(s, page, p, SLUB_RED_ACTIVE) ? undefined : 'damaged';
  }

  /** list_lock held. Gives the object back to its slab; true when the slab is empty and off every list. */
  private pushChecked(s: CacheDesc, n: KmemCacheNodePtr, page: PagePtr, p: number, stack: number): boolean {
    const { m, checks } = this;
    checks.setTrack(s, p, TRACK_FREE, stack);
    if (this.isTraced(s)) checks.sink.trace(s, page, p, false);
    checks.initObject(s, p, SLUB_RED_INACTIVE);
    const first = checks.firstObject(s, page);
    const inuse = inuseOf(loadAcquire(m, page + SLAB_WORD)) - 1;
    writeFreePointer(m, s, p, first);
    checks.setSlabWord(s, page, p, inuse);
    const surplus = inuse === 0 && hasMinPartial(m, s, n);
    if (first === 0) {
      this.removeFull(s, n, page);
      if (!surplus) {
        addPartialTail(m, n, page);
        this.count(s, Stat.FREE_ADD_PARTIAL);
      }
    } else if (surplus) {
      removePartial(m, n, page);
      this.count(s, Stat.FREE_REMOVE_PARTIAL);
    }
    if (surplus) this.forgetSlab(n, page);
    return surplus;
  }

  /** list_lock held. A freelist that was cleared leaves a full slab, which has no place on the partial list. */
  placeRepaired(s: CacheDesc, n: KmemCacheNodePtr, page: PagePtr): void {
    const { m, checks } = this;
    if ((m[page + Page.flags]! & PG_PARTIAL) === 0 || checks.firstObject(s, page) !== 0) return;
    removePartial(m, n, page);
    this.addFull(s, n, page);
  }

  /** list_lock held. Full slabs are kept on a list where tracks are looked for. */
  private addFull(s: CacheDesc, n: KmemCacheNodePtr, page: PagePtr): void {
    if ((s.flags & SLAB_STORE_USER) === 0) return;
    const { m } = this;
    const first = m[n + FULL]!;
    m[page + NEXT] = first;
    m[page + PREV] = 0;
    if (first !== 0) m[first + PREV] = page;
    m[n + FULL] = page;
  }

  private removeFull(s: CacheDesc, n: KmemCacheNodePtr, page: PagePtr): void {
    if ((s.flags & SLAB_STORE_USER) === 0) return;
    const { m } = this;
    const [next, prev] = [m[page + NEXT]!, m[page + PREV]!];
    if (next !== 0) m[next + PREV] = prev;
    if (prev !== 0) m[prev + NEXT] = next;
    else m[n + FULL] = next;
    m[page + NEXT] = 0;
    m[page + PREV] = 0;
  }

  /** Before its pages go, a slab is looked over once more: who wrote to a freed object wrote into it. Kernel: `free_slab`. */
  protected override discardSlab(s: CacheDesc, page: PagePtr): void {
    const { m, checks } = this;
    if (isChecked(s)) {
      if (checks.checkSlab(s, page)) {
        for (let i = 0; i < m[page + OBJECTS]!; i++) {
          checks.checkObject(s, page, checks.objectAt(s, page, i), SLUB_RED_INACTIVE);
        }
      }
      checks.sink.flush();
    }
    super.discardSlab(s, page);
  }
}
