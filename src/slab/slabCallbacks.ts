/**
 * Constructors and destructors: when they run, and what is left when they fail or their thread dies. Seed 001.
 *
 * Both run with no lock held: this thread's sheaves are given up before, and afterwards what the functions took of them.
 * A constructor runs before anybody knows the slab, object by object in the order of addresses, whatever the order of the
 * freelist will be; no object is handed out before the last is constructed. So a failure can take back what was done by
 * destructing the first k objects.
 *
 * Slabs go in places where locks are held, and on threads that have not imported the functions. There the slab goes on
 * the cache's list in the arena and its destructors run later: at the start of the thread's next slow operation, at the
 * end of its turn, after slab_mutex, at the end of a reclaim. Then the pages go back.
 *
 * | a slab is       | named by                                    | who may take it on                       |
 * |-----------------|---------------------------------------------|------------------------------------------|
 * | constructed     | `constructing` of the thread's record       | the thread; its reaper                   |
 * | to be destructed | `dtorSlabs` of the cache                   | a thread that has the functions, all at once |
 * | destructed      | `destructing` of the thread's record        | the thread; its reaper                   |
 *
 * `destructingOf` names the cache from before a thread takes its list until it is done: destroy waits for that.
 */
import { type ThisCpu, ThreadRecord, threadRecordOf } from '../cpu/index.js';
import {
  __GFP_NOFAIL,
  __GFP_ZERO,
  orderOf,
  Page,
  type PageAllocator,
  type PagePtr,
  PG_CALLBACK,
  PG_SLAB,
  pageAddress,
} from '../page/index.js';
import { ConstructorError, describe, type Words } from '../struct/index.js';
import { cmpxchg, exchange, loadAcquire, storeRelease } from '../sync/index.js';
import { busyThread, setConstructing } from './busyThread.js';
import { SLAB_DTOR } from './flags.js';
import { type CacheDesc, type KmemCachePtr, KmemCacheStruct, readCacheDesc } from './kmemCache.js';
import { type ObjectCallbacks, packProgress, SlabObjects } from './slabObjects.js';
import { freelistOf, inuseOf, isFrozen } from './slabWord.js';

const {
  flags: FLAGS,
  cache: CACHE,
  slabWord: PROGRESS,
  objects: OBJECTS,
  next: NEXT,
  SIZEOF: PAGE_WORDS,
} = Page;
const { constructing: CONSTRUCTING, destructing: DESTRUCTING, destructingOf: DESTRUCTING_OF } = ThreadRecord;
const ERRORS_MAX = 16;

/** Something a callback threw where nobody could be told. */
export interface CallbackError {
  readonly cache: string;
  /** The object, or 0 when it was none in particular. */
  readonly address: number;
  readonly what: string;
  readonly cause?: unknown;
}

/** A cache's functions on this thread; undefined when it has not imported them, or the cache is gone. */
type FindCallbacks = (s: CacheDesc) => ObjectCallbacks | undefined;

export class SlabCallbacks {
  private readonly cpu: ThisCpu;
  private readonly m: Words;
  private readonly pages: PageAllocator;
  private find: FindCallbacks = () => undefined;
  /** What callbacks are called with. */
  private arena: unknown;
  /** Why the latest new slab could not be made, if that was its constructor. */
  failure: ConstructorError | undefined;
  /** What went wrong where nobody could be told, the latest last. */
  readonly errors: CallbackError[] = [];
  /** Caches of which this thread has put slabs off. */
  private readonly due = new Set<CacheDesc>();
  private destructs = false;
  /** Caches whose constructors this thread is in. */
  private readonly within: number[] = [];
  /** From now on slabs are put on their lists and nothing runs: the thread is about to leave its CPU. */
  closed = false;

  constructor(cpu: ThisCpu, pages: PageAllocator) {
    this.cpu = cpu;
    this.m = cpu.m;
    this.pages = pages;
    cpu.runCallbacks = () => this.run();
  }

  /** Who knows the functions, and what they are called with. */
  bind(find: FindCallbacks, arena: unknown): void {
    this.find = find;
    this.arena = arena;
  }

  /**
   * Constructs the objects of a block of pages that is to be a slab. On failure those that were constructed are
   * destructed, the pages go back, and `failure` says why; then false. Kernel: `setup_object`, with a result.
   */
  construct(s: CacheDesc, page: PagePtr, objects: number, gfp: number): boolean {
    const { cpu } = this;
    const code = this.find(s);
    const refusal = this.refusal(s, code);
    if (refusal !== undefined) return this.refuse(s, page, refusal);
    const sheaf = cpu.sheafInHand;
    cpu.giveUpSheaves();
    this.beginSlab(s, page, objects);
    this.within.push(s.ptr);
    try {
      if (this.constructAll(s, code!, page, objects, gfp & ~(__GFP_ZERO | __GFP_NOFAIL))) {
        this.endSlab(page);
        this.failure = undefined;
        return true;
      }
      this.undo(s, code!, page);
      return false;
    } finally {
      this.within.pop();
      cpu.giveUpSheaves(); // what the constructors took of this CPU
      cpu.inHand(sheaf);
    }
  }

  /** Why no constructor may run here, or undefined. */
  private refusal(s: CacheDesc, code: ObjectCallbacks | undefined): string | undefined {
    if (code?.ctor === undefined && code?.ctorSlab === undefined) return 'this thread has not imported it';
    if (this.within.includes(s.ptr))
      return 'it allocated from its own cache, which had to make a slab for that';
    if (this.cpu.locks.held !== 0) return 'this thread holds a lock of the allocator';
    return undefined;
  }

  private refuse(s: CacheDesc, page: PagePtr, why: string): false {
    this.pages.free(page, orderOf(this.m[page + FLAGS]!));
    this.failure = new ConstructorError(s.name, 0, 0, why);
    return false;
  }

  private beginSlab(s: CacheDesc, page: PagePtr, objects: number): void {
    const { m } = this;
    const { record } = this.cpu;
    m[page + CACHE] = s.ptr;
    m[page + OBJECTS] = objects;
    m[page + PROGRESS] = packProgress(0, objects, false);
    m[page + NEXT] = m[record + CONSTRUCTING]!;
    m[page + FLAGS] = m[page + FLAGS]! | PG_CALLBACK;
    setConstructing(m, record, page);
  }

  private endSlab(page: PagePtr): void {
    const { m } = this;
    m[page + FLAGS] = m[page + FLAGS]! & ~PG_CALLBACK;
    setConstructing(m, this.cpu.record, m[page + NEXT]!);
    m[page + NEXT] = 0;
  }

  private constructAll(
    s: CacheDesc,
    code: ObjectCallbacks,
    page: PagePtr,
    end: number,
    gfp: number,
  ): boolean {
    const objects = this.objectsOf(s, page, 0, end, false);
    try {
      const result = this.bracket('ctor', s, () => this.callCtor(code, objects, gfp));
      if (isSuccess(result) && objects.count === 0) return true;
      this.failure = failureOf(s, objects, result);
    } catch (cause) {
      this.failure = new ConstructorError(s.name, objects.current, 0, `it threw ${nameOf(cause)}`, { cause });
    }
    return false;
  }

  private callCtor(code: ObjectCallbacks, objects: SlabObjects, gfp: number): unknown {
    if (code.ctorSlab !== undefined) return code.ctorSlab(objects, this.arena, gfp);
    let result: unknown = 0;
    while (isSuccess(result) && objects.count > 0) result = code.ctor!(objects.next(), this.arena, gfp);
    return result;
  }

  private callDtor(code: ObjectCallbacks, objects: SlabObjects): void {
    if (code.dtorSlab !== undefined) return code.dtorSlab(objects, this.arena);
    while (objects.count > 0) code.dtor!(objects.next(), this.arena);
  }

  /** Lockdep knows what a constructor and a destructor may do. */
  private bracket<T>(kind: 'ctor' | 'dtor', s: CacheDesc, body: () => T): T {
    const { lockdep } = this.cpu;
    lockdep.enterCallback(kind, s);
    try {
      return body();
    } finally {
      lockdep.leaveCallback();
    }
  }

  /** Destructs the objects before the one that failed, and gives the pages back. */
  private undo(s: CacheDesc, code: ObjectCallbacks, page: PagePtr): void {
    const { m } = this;
    const constructed = freelistOf(m[page + PROGRESS]!);
    m[page + PROGRESS] = packProgress(0, constructed, true);
    this.destructSlab(s, code, page);
    setConstructing(m, this.cpu.record, m[page + NEXT]!);
    this.pages.free(page, orderOf(m[page + FLAGS]!));
  }

  /** Takes on a slab that nobody uses any more; any lock may be held. Its destructors run when none is. */
  putOff(s: CacheDesc, page: PagePtr): void {
    const { m } = this;
    const order = orderOf(m[page + FLAGS]!);
    for (let i = 0; i < 1 << order; i++) {
      const each = page + i * PAGE_WORDS;
      m[each + FLAGS] = m[each + FLAGS]! & ~PG_SLAB;
    }
    m[page + FLAGS] = m[page + FLAGS]! | PG_CALLBACK;
    m[page + PROGRESS] = packProgress(0, m[page + OBJECTS]!, true);
    this.push(s, page);
  }

  private push(s: CacheDesc, page: PagePtr): void {
    const { m, cpu } = this;
    const list = s.ptr + KmemCacheStruct.dtorSlabs;
    for (let head = loadAcquire(m, list); ; ) {
      m[page + NEXT] = head;
      // Pairs with the exchange in runCache. A head that came back is still the one that NEXT names.
      const seen = cmpxchg(m, list, head, page);
      if (seen === head) break;
      head = seen;
    }
    if (this.closed) return;
    this.due.add(s);
    // What destructors themselves put off waits for the next operation: it could go on for ever.
    if (!this.destructs) cpu.callbacksAreDue();
  }

  /** Runs the destructors of what this thread has put off, unless it may not now. */
  run(): void {
    if (this.destructs || this.closed || this.cpu.locks.held !== 0) return;
    this.cpu.callbacksDue = false;
    const due = [...this.due];
    this.due.clear();
    for (const s of due) this.runCache(s);
    if (this.due.size > 0) this.cpu.callbacksDue = true;
  }

  /** Runs the destructors of all slabs of a cache that wait for them. False when this thread does not know them. */
  runCache(s: CacheDesc): boolean {
    const { m, cpu } = this;
    const { record } = cpu;
    if (this.destructs) return true;
    const sheaf = cpu.sheafInHand;
    this.destructs = true;
    try {
      cpu.giveUpSheaves();
      // Pairs with waitForOthers: whoever ends the cache sees this, or we see that it has ended.
      exchange(m, record + DESTRUCTING_OF, s.ptr);
      const code = this.find(s);
      if (code === undefined) return false;
      m[record + DESTRUCTING] = exchange(m, s.ptr + KmemCacheStruct.dtorSlabs, 0);
      this.destructTaken(s, code);
      return true;
    } finally {
      storeRelease(m, record + DESTRUCTING_OF, 0);
      this.destructs = false;
      cpu.giveUpSheaves();
      cpu.inHand(sheaf);
    }
  }

  private destructTaken(s: CacheDesc, code: ObjectCallbacks): void {
    const { m } = this;
    const at = this.cpu.record + DESTRUCTING;
    for (let page = m[at] as PagePtr; page !== 0; page = m[at] as PagePtr) {
      this.destructSlab(s, code, page);
      m[at] = m[page + NEXT]!;
      this.pages.free(page, orderOf(m[page + FLAGS]!));
    }
  }

  /** Runs the destructors of the objects that the slab's progress names. */
  private destructSlab(s: CacheDesc, code: ObjectCallbacks, page: PagePtr): void {
    if (code.dtor === undefined && code.dtorSlab === undefined) return;
    const word = this.m[page + PROGRESS]!;
    for (let from = freelistOf(word), end = inuseOf(word); from < end; ) {
      const objects = this.objectsOf(s, page, from, end, true);
      try {
        this.bracket('dtor', s, () => this.callDtor(code, objects));
        if (objects.count === 0) return;
        this.report(s, objects.current, `its destructor left ${objects.count} objects of a slab`);
        return;
      } catch (cause) {
        this.report(s, objects.current, `its destructor threw ${nameOf(cause)}`, cause);
        if (objects.taken === from) return; // it took none: it would throw for ever
        from = objects.taken;
      }
    }
  }

  private objectsOf(
    s: CacheDesc,
    page: PagePtr,
    from: number,
    end: number,
    destructing: boolean,
  ): SlabObjects {
    const base = pageAddress(this.cpu.geometry, page) + s.redLeftPad;
    return new SlabObjects(this.m, page, base, s.size, from, end, destructing);
  }

  private report(s: CacheDesc, address: number, what: string, cause?: unknown): void {
    this.note(s.name, what, cause, address);
  }

  /** What happened where nobody can be told. */
  note(cache: string, what: string, cause?: unknown, address = 0): void {
    this.errors.push({ cache, address, what: `${cache}: ${what}`, cause });
    if (this.errors.length > ERRORS_MAX) this.errors.shift();
  }

  /** Whether slabs of a cache wait for destructors; a hint while others may put some off. */
  hasWaiting(s: CacheDesc): boolean {
    return loadAcquire(this.m, s.ptr + KmemCacheStruct.dtorSlabs) !== 0;
  }

  /** The thread slot that runs callbacks of a cache now, or -1; this thread does not count. */
  busyThread(s: CacheDesc): number {
    return busyThread(this.cpu, s.ptr);
  }

  /** Takes over what a dead thread's callbacks were at; returns what cannot be told, in words. */
  inherit(dead: number): string[] {
    const { m } = this;
    const { geometry } = this.cpu;
    const record = threadRecordOf(geometry, dead);
    const notes: string[] = [];
    for (const list of [CONSTRUCTING, DESTRUCTING]) {
      for (let page = m[record + list] as PagePtr; page !== 0; page = m[record + list] as PagePtr) {
        if (list === CONSTRUCTING) setConstructing(m, record, m[page + NEXT]!);
        else m[record + list] = m[page + NEXT]!;
        const s = readCacheDesc(m, m[page + CACHE] as KmemCachePtr, geometry.nodes);
        notes.push(this.inheritSlab(s, page));
      }
    }
    storeRelease(m, record + DESTRUCTING_OF, 0);
    return notes.filter((note) => note !== '');
  }

  private inheritSlab(s: CacheDesc, page: PagePtr): string {
    const { m } = this;
    const word = m[page + PROGRESS]!;
    const next = freelistOf(word);
    const whole = m[page + OBJECTS]!;
    const address = (index: number): string =>
      `0x${(pageAddress(this.cpu.geometry, page) + s.redLeftPad + index * s.size).toString(16)}`;
    const left = isFrozen(word) ? inuseOf(word) - next : next;
    if (!isFrozen(word)) m[page + PROGRESS] = packProgress(0, next, true);
    if (left > 0 && (s.flags & SLAB_DTOR) !== 0) this.push(s, page);
    else this.pages.free(page, orderOf(m[page + FLAGS]!));
    if (isFrozen(word)) {
      return next === 0
        ? ''
        : `${s.name}: its destructor may not have come to an end for ${address(next - 1)}`;
    }
    return next === whole
      ? ''
      : `${s.name}: its constructor was at ${address(next)}, of which it is not known what it got`;
  }
}

const nameOf = (cause: unknown): string => (cause instanceof Error ? String(cause) : describe(cause));

const isSuccess = (result: unknown): boolean => result === undefined || result === 0;

function failureOf(s: CacheDesc, objects: SlabObjects, result: unknown): ConstructorError {
  if (isSuccess(result)) {
    return new ConstructorError(s.name, objects.current, 0, `it left ${objects.count} objects of a slab`);
  }
  if (typeof result === 'number') {
    return new ConstructorError(s.name, objects.current, result, `it returned ${result}`);
  }
  const cause = new TypeError(
    `the constructor of ${s.name} returned ${describe(result)}; it must return 0 or nothing`,
  );
  return new ConstructorError(s.name, objects.current, 0, `it returned ${describe(result)}`, { cause });
}
