/**
 * This CPU: the calling thread's view of the arena, the CPU it runs on, its locks, and the turn it is in.
 *
 * A turn is one synchronous run of JavaScript on this thread, from the first allocator call until control goes
 * back to the event loop. What a thread holds per turn it gives up in the microtask that ends it.
 */
import { type Bytes, CpuError, type Doubles, type Geometry, INSPECT, type Words } from '../struct/index.js';
import {
  exchange,
  fetchOr,
  futexWake,
  LOCK_SITES_WORDS,
  LOCK_STAT_TIERS,
  LOCK_STAT_WORDS,
  Lockdep,
  LockdepGraph,
  LockdepOff,
  LockRecord,
  type Locks,
  makeLocks,
  ownerWord,
} from '../sync/index.js';
import { hasDeferred, pushDeferred } from './deferred.js';
import { countersOf, type PcsPtr, pcsOf, slotOfPcs, statsOf } from './percpu.js';
import {
  claimThread,
  nodeOfCpu,
  releaseThread,
  ThreadRecord,
  type ThreadRecordPtr,
  threadRecordOf,
  type WantedSlot,
} from './threadSlot.js';

const INTENT = ThreadRecord.locks;
const { intentDepth: INTENT_DEPTH, intentOp: INTENT_OP } = LockRecord;
const { intentSlot: INTENT_SLOT, intentSheaf: INTENT_SHEAF } = LockRecord;

/** Nested operations whose caches are remembered; deeper ones count as being on every cache. */
const ENTERED_MAX = 16;

/** Sign bit: the allocation fast path tests it together with the packed size word, in one branch. */
const REQUESTED = 1 << 31;

/** Something this thread holds until its turn ends. */
export interface TurnHolder {
  /** Gives everything up that another CPU may be waiting for. */
  release(): void;
  /** Gives it up only if another CPU asked for it. */
  releaseIfRequested(): void;
  /** Gives it up unless an operation of this thread is under way on it. */
  releaseIfIdle?(): void;
  /** Gives it up in the middle of a turn that goes on; what does not have it, a read section, stays as it is. */
  letGo?(): void;
}

/** Views of one buffer; made once per thread. */
export interface Views {
  readonly m: Words;
  readonly u8: Bytes;
  readonly f64: Doubles;
  /** Allocated-state: one byte per 8 bytes of arena, the cache's tag at the start of an allocated object. */
  readonly shadow: Bytes;
}

/** What this thread is in the arena: `arena.cpu`. Users may ask for `id`, `thread`, `node` and `depth`, and end the turn. */
export class ThisCpu {
  /** @internal */
  readonly views: Views;
  /** @internal */
  readonly m: Words;
  /** @internal */
  readonly f64: Doubles;
  /** @internal */
  readonly geometry: Geometry;
  /** The CPU slot: whose sheaves this thread uses. */
  readonly id: number;
  /** The thread slot. The same number as `id`, unless threads share CPUs. */
  readonly thread: number;
  /** The node that the CPU belongs to. */
  readonly node: number;
  /** @internal */
  readonly record: ThreadRecordPtr;
  /** @internal */
  readonly locks: Locks;
  /** Who hears what could go wrong with locks; nobody, unless the arena was made with lockdep. @internal */
  readonly lockdep: LockdepOff;
  /** Whether the thread is this CPU still. */
  online = true;
  /** Nesting of sheaf allocations on this thread; see allocEmptySheaf. @internal */
  sheafAllocDepth = 0;
  /** From the counters beside this CPU's sheaves to this thread's, in doubles; 0 unless threads share CPUs. */
  private readonly toCounters: number;
  /** Frees what this CPU deferred; the layer that knows slabs sets it. @internal */
  drainDeferred: () => void = () => {};
  /** Whether this thread is in drainDeferred. @internal */
  inDrain = false;
  /** Runs constructors and destructors that were put off; the layer that knows slabs sets it. @internal */
  runCallbacks: () => void = () => {};
  /** Whether any were put off. @internal */
  callbacksDue = false;
  /** The caches that operations of this thread are under way on, from the outermost. */
  private readonly entered = new Int32Array(ENTERED_MAX);
  protected readonly holders: TurnHolder[] = [];
  private turnEndQueued = false;

  constructor(views: Views, geometry: Geometry, wanted: WantedSlot, tid: number) {
    this.views = views;
    this.m = views.m;
    this.f64 = views.f64;
    this.geometry = geometry;
    this.thread = claimThread(views.m, geometry, wanted, tid);
    this.id = wanted.cpu ?? this.thread % geometry.cpus;
    this.node = nodeOfCpu(geometry, this.id);
    this.record = threadRecordOf(geometry, this.thread);
    this.toCounters = countersOf(geometry, this.thread, 0) - statsOf(pcsOf(geometry, this.id, 0));
    const generation = views.m[this.record + ThreadRecord.generation]!;
    const owner = ownerWord(this.thread, generation);
    const lockdep = makeLockdep(views.m, geometry, owner);
    this.lockdep = lockdep ?? new LockdepOff();
    this.locks = makeLocks(
      LOCK_STAT_TIERS[geometry.lockStat]!,
      views.m,
      views.f64,
      owner,
      (this.record + ThreadRecord.locks) as never,
      {
        stats: geometry.lockStats + this.thread * LOCK_STAT_WORDS,
        sites: geometry.lockSites === 0 ? 0 : geometry.lockSites + this.thread * LOCK_SITES_WORDS,
        lockdep,
      },
    );
  }

  /** One line for console.log. */
  [INSPECT](): string {
    const { id, thread, node, online } = this;
    return `ThisCpu { CPU ${id}, thread ${thread}, node ${node}, ${online ? 'online' : 'offline'} }`;
  }

  /** Adds to one of this thread's counters for the cache whose sheaves on this CPU are at `pcs`. @internal */
  count(pcs: PcsPtr, item: number, n: number): void {
    const { f64 } = this;
    const at = statsOf(pcs) + this.toCounters + item;
    f64[at] = f64[at]! + n;
  }

  /**
   * Says what this thread is in the middle of, for whoever reaps it: between taking something from one place and putting
   * it into another, nothing else in the arena leads to it. The outermost of nested operations is what is said.
   * @internal
   */
  enter(op: number, slot: number): void {
    const { m, record } = this;
    // The outermost operation begins with no lock held but sheaves of its turn: the place to make up for what a
    // restricted context put off.
    if (m[record + INTENT + INTENT_DEPTH] === 0) {
      if (hasDeferred(m, record)) this.drainDeferred();
      if (this.callbacksDue) this.runCallbacks();
    }
    this.enterNolock(op, slot);
  }

  /** The same for a restricted context, which may be anywhere and makes up for nothing. @internal */
  enterNolock(op: number, slot: number): void {
    const { m } = this;
    const at = this.record + INTENT;
    const depth = m[at + INTENT_DEPTH]!;
    if (depth < ENTERED_MAX) this.entered[depth] = slot;
    m[at + INTENT_DEPTH] = depth + 1;
    if (depth !== 0) return;
    m[at + INTENT_SLOT] = slot;
    m[at + INTENT_OP] = op;
  }

  /** Ends what the matching enter began. @internal */
  leave(): void {
    const { m } = this;
    const at = this.record + INTENT;
    const depth = m[at + INTENT_DEPTH]! - 1;
    m[at + INTENT_DEPTH] = depth;
    if (depth !== 0) return;
    m[at + INTENT_OP] = 0;
    m[at + INTENT_SLOT] = 0;
  }

  /** Runs `body` as an operation that ends the turn, whatever is thrown in it, or at its beginning or end. @internal */
  turnOf<T>(op: number, slot: number, body: () => T): T {
    this.enter(op, slot);
    try {
      return body();
    } finally {
      try {
        this.endTurn();
      } finally {
        this.leave();
      }
    }
  }

  /** How many operations of this thread are under way, one within the other. */
  get depth(): number {
    return this.m[this.record + INTENT + INTENT_DEPTH]!;
  }

  /** Whether an operation on that cache is under way on this thread, in which a restricted context interrupts it. @internal */
  isBusy(slot: number): boolean {
    const { depth, entered } = this;
    if (depth > ENTERED_MAX) return true;
    for (let i = 0; i < depth; i++) if (entered[i] === slot) return true;
    return false;
  }

  /** Names the sheaf that is in this thread's hands and in no list; 0 when it has a place again. @internal */
  inHand(sheaf: number): void {
    this.m[this.record + INTENT + INTENT_SHEAF] = sheaf;
  }

  /** What inHand named last. @internal */
  get sheafInHand(): number {
    return this.m[this.record + INTENT + INTENT_SHEAF]!;
  }

  /** Registers something to be given up when this turn ends. @internal */
  holdForTurn(holder: TurnHolder): void {
    this.holders.push(holder);
    this.queueTurnEnd();
  }

  /** Puts a free off to the end of this turn or the next operation; `link` is the word in it that names the next. @internal */
  defer(p: number, link: number): void {
    pushDeferred(this.m, this.record, p, link);
    // What is deferred while we drain would queue a turn's end without end.
    if (!this.inDrain) this.queueTurnEnd();
  }

  /** Gives up every CPU's sheaves that this turn holds, for code of the user that is to run within an operation. @internal */
  giveUpSheaves(): void {
    for (const holder of this.holders) holder.letGo?.();
  }

  /** Callbacks were put off: they run at the end of this turn, or at the start of the next operation. @internal */
  callbacksAreDue(): void {
    this.callbacksDue = true;
    this.queueTurnEnd();
  }

  private queueTurnEnd(): void {
    if (this.turnEndQueued) return;
    this.turnEndQueued = true;
    queueMicrotask(this.endTurn);
  }

  /** Ends the turn now: before this thread blocks, or to let others at its sheaves in a long loop. */
  readonly endTurn = (): void => {
    this.turnEndQueued = false;
    let failure: { error: unknown } | undefined;
    while (this.holders.length > 0) {
      try {
        this.holders.pop()!.release();
      } catch (error) {
        failure ??= { error }; // what the others hold must be given up all the same
      }
    }
    // The slot may have another thread by the time a late microtask comes.
    if (this.online && hasDeferred(this.m, this.record)) this.drainDeferred();
    if (this.online && this.callbacksDue) this.runCallbacks();
    if (failure !== undefined) throw failure.error;
  };

  /** Another CPU asked for something: give up what was asked for, keep the rest. @internal */
  serveRequests(): void {
    // Pairs with the fetchOr in requestThread: the requests that were made before it are visible.
    if (exchange(this.m, this.record, 0) === 0) return;
    for (const holder of this.holders) holder.releaseIfRequested();
  }

  /** Asks another thread to look at what it holds. It polls; there is no answer if it is blocked. @internal */
  requestThread(thread: number): void {
    fetchOr(this.m, threadRecordOf(this.geometry, thread), REQUESTED);
  }

  /** Gives the slot back. The thread has left its CPU. @internal */
  goOffline(): void {
    this.online = false;
    releaseThread(this.m, this.geometry, this.thread);
    futexWake(this.m, this.record + ThreadRecord.state, 1);
  }

  /** Throws CpuError when the thread has gone offline. */
  assertOnline(): void {
    if (!this.online) throw new CpuError(`this thread has left CPU ${this.id}: call arena.online() again`);
  }
}

/** The checker of an arena that was made with lockdep. */
function makeLockdep(m: Words, geometry: Geometry, owner: number): Lockdep | undefined {
  if (geometry.lockdep === 0) return undefined;
  const lockdep = new Lockdep(m, new LockdepGraph(m, geometry.lockdep), owner);
  lockdep.cacheOf = (lock) => slotOfPcs(geometry, lock as number as PcsPtr);
  return lockdep;
}
