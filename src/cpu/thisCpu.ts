/**
 * This CPU: the calling thread's view of the arena, its locks, and the turn it is in.
 *
 * A turn is one synchronous run of JavaScript on this thread, from the first allocator call until control goes
 * back to the event loop. What a thread holds per turn it gives up in the microtask that ends it.
 */
import { type Bytes, CpuError, type Doubles, type Geometry, type Words } from '../struct/index.js';
import {
  exchange,
  fetchOr,
  futexWake,
  LOCK_STAT_CPU_WORDS,
  LOCK_STAT_TIERS,
  LockRecord,
  type Locks,
  makeLocks,
  ownerWord,
} from '../sync/index.js';
import { CpuRecord, type CpuRecordPtr, claimCpu, cpuRecordOf, nodeOfCpu, releaseCpu } from './cpuSlot.js';
import { type PcsPtr, statsOf } from './percpu.js';

const INTENT = CpuRecord.locks;
const { intentDepth: INTENT_DEPTH, intentOp: INTENT_OP } = LockRecord;
const { intentSlot: INTENT_SLOT, intentSheaf: INTENT_SHEAF } = LockRecord;

/** Sign bit: the allocation fast path tests it together with the packed size word, in one branch. */
export const REQUESTED = 1 << 31;

/** Something this thread holds until its turn ends. */
export interface TurnHolder {
  /** Gives everything up that another CPU may be waiting for. */
  release(): void;
  /** Gives it up only if another CPU asked for it. */
  releaseIfRequested(): void;
}

/** Views of one buffer; made once per thread. */
export interface Views {
  readonly m: Words;
  readonly u8: Bytes;
  readonly f64: Doubles;
  /** Allocated-state: one byte per 8 bytes of arena, the cache's tag at the start of an allocated object. */
  readonly shadow: Bytes;
}

export class ThisCpu {
  readonly views: Views;
  readonly m: Words;
  readonly f64: Doubles;
  readonly geometry: Geometry;
  readonly id: number;
  readonly node: number;
  readonly record: CpuRecordPtr;
  readonly locks: Locks;
  online = true;
  /** Nesting of sheaf allocations on this thread; see allocEmptySheaf. */
  sheafAllocDepth = 0;
  private readonly holders: TurnHolder[] = [];
  private turnEndQueued = false;

  constructor(views: Views, geometry: Geometry, wanted: number | undefined, thread: number) {
    this.views = views;
    this.m = views.m;
    this.f64 = views.f64;
    this.geometry = geometry;
    this.id = claimCpu(views.m, geometry, wanted, thread);
    this.node = nodeOfCpu(geometry, this.id);
    this.record = cpuRecordOf(geometry, this.id);
    const generation = views.m[this.record + CpuRecord.generation]!;
    this.locks = makeLocks(
      LOCK_STAT_TIERS[geometry.lockStat]!,
      views.m,
      views.f64,
      ownerWord(this.id, generation),
      (this.record + CpuRecord.locks) as never,
      geometry.lockStats + this.id * LOCK_STAT_CPU_WORDS,
    );
  }

  /** Adds to one of this CPU's counters. */
  count(pcs: PcsPtr, item: number, n: number): void {
    const { f64 } = this;
    const at = statsOf(pcs) + item;
    f64[at] = f64[at]! + n;
  }

  /**
   * Says what this CPU is in the middle of, for whoever reaps it: between taking something from one place and putting
   * it into another, nothing else in the arena leads to it. The outermost of nested operations is what is said.
   */
  enter(op: number, slot: number): void {
    const { m } = this;
    const at = this.record + INTENT;
    const depth = m[at + INTENT_DEPTH]!;
    m[at + INTENT_DEPTH] = depth + 1;
    if (depth !== 0) return;
    m[at + INTENT_SLOT] = slot;
    m[at + INTENT_OP] = op;
  }

  /** Ends what the matching enter began. */
  leave(): void {
    const { m } = this;
    const at = this.record + INTENT;
    const depth = m[at + INTENT_DEPTH]! - 1;
    m[at + INTENT_DEPTH] = depth;
    if (depth !== 0) return;
    m[at + INTENT_OP] = 0;
    m[at + INTENT_SLOT] = 0;
  }

  /** Names the sheaf that is in this CPU's hands and in no list; 0 when it has a place again. */
  inHand(sheaf: number): void {
    this.m[this.record + INTENT + INTENT_SHEAF] = sheaf;
  }

  /** What inHand named last. */
  get sheafInHand(): number {
    return this.m[this.record + INTENT + INTENT_SHEAF]!;
  }

  /** Registers something to be given up when this turn ends. */
  holdForTurn(holder: TurnHolder): void {
    this.holders.push(holder);
    if (this.turnEndQueued) return;
    this.turnEndQueued = true;
    queueMicrotask(this.endTurn);
  }

  /** Ends the turn now: before this thread blocks, or to let others at its sheaves in a long loop. */
  readonly endTurn = (): void => {
    this.turnEndQueued = false;
    while (this.holders.length > 0) this.holders.pop()!.release();
  };

  /** Another CPU asked for something: give up what was asked for, keep the rest. */
  serveRequests(): void {
    // Pairs with the fetchOr in requestCpu: the requests that were made before it are visible.
    if (exchange(this.m, this.record, 0) === 0) return;
    for (const holder of this.holders) holder.releaseIfRequested();
  }

  /** Asks another CPU to look at what it holds. It polls; there is no answer if it is blocked. */
  requestCpu(cpu: number): void {
    fetchOr(this.m, cpuRecordOf(this.geometry, cpu), REQUESTED);
  }

  /** Gives the slot back. The caller has flushed its sheaves. */
  goOffline(): void {
    this.online = false;
    releaseCpu(this.m, this.geometry, this.id);
    futexWake(this.m, this.record + CpuRecord.state, 1);
  }

  assertOnline(): void {
    if (!this.online) throw new CpuError(`this thread has left CPU ${this.id}: call arena.online() again`);
  }
}
