/**
 * Debugging of a thread's caches: makes reports of what the slab layer finds, and answers what a cache is asked. It is
 * handed to the layers below when the thread goes online.
 */
import {
  type CacheDebug,
  type Caches,
  type DebugServices,
  type GuardBug,
  type GuardTrack,
  type KmemCache,
  RESERVE_MARK,
  type TraceGroup,
  type TrackInfo,
} from '../cache/index.js';
import { Page, type PagePtr, PG_SLAB, pageAddress } from '../page/index.js';
import {
  type CacheDesc,
  type DebugSink,
  freelistOf,
  inuseOf,
  isDebug,
  KmemCacheStruct,
  now,
  padStart,
  readFreePointer,
  readTrack,
  SLAB_RED_ZONE,
  SLAB_STORE_USER,
  type SlabBug,
  TRACK_ALLOC,
  TRACK_FREE,
  type TrackId,
} from '../slab/index.js';
import { hexAddress, PAGE_SIZE, type SlabBugError } from '../struct/index.js';
import { fetchAdd } from '../sync/index.js';
import { callStack, symbolOf } from './callStack.js';
import { bugText, hexDump, type ReportedObject, type ReportedSlab, type SlabReport } from './slabReport.js';
import type { SlabReports } from './slabReports.js';
import { StackDepot } from './stackDepot.js';
import { groupTraces } from './traces.js';
import { validateSlabCache } from './validateSlabCache.js';

/** How much of an object a report shows. */
const DUMP_BYTES_MAX = PAGE_SIZE;

/** Connects a thread's caches with what is told of them. */
export function connectSlabDebug(caches: Caches, reports: SlabReports): void {
  const debug = new SlabDebugger(caches, reports);
  caches.slabs.checks.sink = debug;
  caches.debug = debug;
}

class SlabDebugger implements DebugSink, DebugServices {
  private readonly caches: Caches;
  private readonly reports: SlabReports;
  private readonly depot: StackDepot;
  private readonly flushLater = (): void => this.reports.flush();

  constructor(caches: Caches, reports: SlabReports) {
    this.caches = caches;
    this.reports = reports;
    this.depot = new StackDepot(caches.cpu, caches.pages);
  }

  stack(mayWait: boolean): number {
    return this.depot.save(callStack(), mayWait);
  }

  /**
   * Handlers are user code: they run with no lock held and in no operation but the one that found something. Else it is
   * done when slab_mutex is given up, or at the end of this turn.
   */
  flush(): void {
    const { cpu } = this.caches;
    if (!this.reports.hasPending) return;
    if (cpu.locks.held === 0 && cpu.depth <= 1) this.reports.flush();
    else queueMicrotask(this.flushLater);
  }

  bug(s: CacheDesc, { what, page, object, damage }: SlabBug): void {
    this.countError(s);
    const report: Omit<SlabReport, 'text'> = {
      kind: 'bug',
      cache: s.name,
      what,
      ...this.finder(),
      ...(page !== 0 ? { slab: this.describeSlab(s, page) } : {}),
      ...(object !== 0 ? { object: this.describeObject(s, page, object) } : {}),
      ...(damage !== undefined ? { damage } : {}),
    };
    this.reports.note({ ...report, text: bugText(report, symbolOf) });
  }

  fix(s: CacheDesc, what: string): void {
    this.countError(s);
    this.reports.note({ kind: 'fix', cache: s.name, what, ...this.finder(), text: `FIX ${s.name}: ${what}` });
  }

  /** On its way to the slab it was marked as free. */
  kept(s: CacheDesc, p: number): void {
    const { check, slabs, views } = this.caches;
    if (check !== 'none') views.shadow[p >> 3] = slabs.isOfReserve(p) ? RESERVE_MARK : s.tag;
  }

  trace(s: CacheDesc, page: PagePtr, p: number, isAlloc: boolean): void {
    const what = isAlloc ? 'alloc' : 'free';
    const { used, fp } = this.describeSlab(s, page);
    const lines = [`TRACE ${s.name} ${what} ${hexAddress(p)} inuse=${used} fp=${hexAddress(fp)}`];
    if (!isAlloc) lines.push(...hexDump('Object', p, this.bytes(p, Math.min(s.objectSize, DUMP_BYTES_MAX))));
    const found = this.finder();
    lines.push(...found.stack.map((frame) => ` ${frame}`));
    this.reports.note({ kind: 'trace', cache: s.name, what, ...found, text: lines.join('\n') });
  }

  of(cache: KmemCache): CacheDebug {
    const { caches } = this;
    const { desc } = cache;
    const errors = (): number => caches.views.m[desc.ptr + KmemCacheStruct.errors]!;
    return {
      get errors() {
        return errors();
      },
      validate: () => {
        cache.assertAlive();
        this.requireFlag(desc, isDebug(desc), 'validate needs a cache with debug flags');
        const before = errors();
        const slabs = validateSlabCache(caches, desc);
        this.flush();
        return { slabs, errors: errors() - before };
      },
      allocTraces: () => this.traces(cache, TRACK_ALLOC),
      freeTraces: () => this.traces(cache, TRACK_FREE),
      tracks: (p) => {
        cache.assertAllocated(p);
        return this.tracksOf(desc, p);
      },
    };
  }

  refused(cache: KmemCache, p: number, error: SlabBugError): SlabBugError {
    const { desc } = cache;
    const { m } = this.caches.views;
    const address = Number.isInteger(p) && p > 0 && p < this.caches.geometry.bytes ? p : 0;
    const page = address === 0 ? (0 as PagePtr) : this.caches.slabs.slabOf(address);
    const isOurs = page !== 0 && (m[page + Page.flags]! & PG_SLAB) !== 0 && m[page + Page.cache] === desc.ptr;
    const isObject = isOurs && this.caches.slabs.checks.isLink(desc, page, address);
    const what = error.message.replace(`BUG ${desc.name}: `, '');
    this.bug(desc, { what, page: isOurs ? page : (0 as PagePtr), object: isObject ? address : 0 });
    this.fix(desc, `Object at ${hexAddress(address)} not freed`);
    this.flush();
    return error;
  }

  guarded(s: CacheDesc, { what, object, bytes, allocated, freed, damage }: GuardBug): void {
    this.countError(s);
    const whose = ({ stack, ...track }: GuardTrack): TrackInfo => ({
      ...track,
      stack: this.depot.read(stack),
    });
    const report: Omit<SlabReport, 'text'> = {
      kind: 'bug',
      cache: s.name,
      what,
      ...this.finder(),
      object: {
        address: object,
        offset: object % PAGE_SIZE,
        fp: 0,
        ...(allocated === undefined ? {} : { allocated: whose(allocated) }),
        ...(freed === undefined ? {} : { freed: whose(freed) }),
        dumps: bytes === 0 ? [] : [{ name: 'Object', address: object, bytes: this.bytes(object, bytes) }],
      },
      ...(damage === undefined ? {} : { damage }),
    };
    this.reports.note({ ...report, text: bugText(report, symbolOf) });
  }

  leaked(cache: KmemCache, objects: readonly number[]): void {
    const { desc } = cache;
    const what = 'Objects remaining on __kmem_cache_shutdown()';
    const quiet = !isDebug(desc);
    if (quiet && !this.reports.hasHandlers) return;
    const bySlab = new Map<PagePtr, number[]>();
    for (const p of objects) {
      const page = this.caches.slabs.slabOf(p);
      bySlab.set(page, [...(bySlab.get(page) ?? []), p]);
    }
    for (const [page, left] of bySlab) {
      this.countError(desc);
      const report = {
        kind: 'bug',
        cache: desc.name,
        what,
        ...this.finder(),
        slab: this.describeSlab(desc, page),
      };
      this.reports.note(
        { ...report, kind: 'bug', text: bugText({ ...report, kind: 'bug' }, symbolOf) },
        quiet,
      );
      for (const p of left) {
        this.countError(desc);
        const object = this.describeObject(desc, page, p);
        const remaining = { ...report, what: 'Object remaining', object, kind: 'bug' as const };
        this.reports.note({ ...remaining, text: bugText(remaining, symbolOf) }, quiet);
      }
    }
    this.flush();
  }

  private traces(cache: KmemCache, which: TrackId): TraceGroup[] {
    cache.assertAlive();
    const { desc } = cache;
    this.requireFlag(desc, (desc.flags & SLAB_STORE_USER) !== 0, 'traces need a cache with SLAB_STORE_USER');
    return groupTraces(this.caches, desc, which, (handle) => this.depot.read(handle));
  }

  private requireFlag(s: CacheDesc, has: boolean, why: string): void {
    if (!has) throw new RangeError(`cache ${s.name}: ${why}, see slabDebug`);
  }

  private countError(s: CacheDesc): void {
    // Threads count together; pairs with nothing, it is a sum.
    fetchAdd(this.caches.views.m, s.ptr + KmemCacheStruct.errors, 1);
  }

  private finder(): { cpu: number; thread: number; stack: string[] } {
    const { cpu } = this.caches;
    return { cpu: cpu.id, thread: cpu.thread, stack: callStack() };
  }

  private describeSlab(s: CacheDesc, page: PagePtr): ReportedSlab {
    const { m } = this.caches.views;
    const word = m[page + Page.slabWord]!;
    const address = pageAddress(this.caches.geometry, page);
    const head = freelistOf(word);
    return {
      address,
      objects: m[page + Page.objects]!,
      used: inuseOf(word),
      fp: head === 0 ? 0 : address + s.redLeftPad + (head - 1) * s.size,
      flags: m[page + Page.flags]!,
    };
  }

  private describeObject(s: CacheDesc, page: PagePtr, p: number): ReportedObject {
    const { m } = this.caches.views;
    const start = pageAddress(this.caches.geometry, page);
    return {
      address: p,
      offset: p - start,
      fp: readFreePointer(m, s, p),
      ...this.tracksOf(s, p),
      dumps: this.dumpsOf(s, start, p),
    };
  }

  private tracksOf(s: CacheDesc, p: number): { allocated?: TrackInfo; freed?: TrackInfo } {
    const allocated = this.trackOf(s, p, TRACK_ALLOC);
    const freed = this.trackOf(s, p, TRACK_FREE);
    return { ...(allocated ? { allocated } : {}), ...(freed ? { freed } : {}) };
  }

  private trackOf(s: CacheDesc, p: number, which: TrackId): TrackInfo | undefined {
    const { m, f64 } = this.caches.views;
    const track = readTrack(m, f64, s, p, which);
    if (track === undefined) return undefined;
    const { cpu, thread, tid, when } = track;
    return { stack: this.depot.read(track.stack), cpu, thread, tid, age: Math.max(0, now() - when) };
  }

  private dumpsOf(s: CacheDesc, start: number, p: number): ReportedObject['dumps'] {
    const dumps: ReportedObject['dumps'] = [];
    const add = (name: string, from: number, to: number): void => {
      if (to > from) dumps.push({ name, address: from, bytes: this.bytes(from, to - from) });
    };
    const redZoned = (s.flags & SLAB_RED_ZONE) !== 0;
    if (redZoned) add('Redzone', p - s.redLeftPad, p);
    else if (p > start + 16) add('Bytes b4', p - 16, p);
    add('Object', p, p + Math.min(s.objectSize, DUMP_BYTES_MAX));
    if (redZoned) add('Redzone', p + s.objectSize, p + s.inuse);
    add('Padding', p + padStart(s), p + s.size - s.redLeftPad);
    return dumps;
  }

  private bytes(from: number, n: number): Uint8Array {
    return new Uint8Array(this.caches.views.u8.slice(from, from + n));
  }
}
