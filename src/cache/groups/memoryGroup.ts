/**
 * Memory groups: limits and usage, in bytes of objects, per worker or per task. Kernel: memory cgroups, as far as slab
 * objects go (`obj_cgroup_charge`, `page_counter`).
 *
 * Groups form a tree; a charge counts in its group and in all above it, and is refused if one of them would exceed its
 * limit. A thread charges ahead: its *stock* is up to STOCK_BYTES (twice that after frees) charged to the group that it
 * works for and not yet, or no longer, in objects. Stock is part of what is charged, so a limit is exceeded by forced
 * charges alone; but what others have in stock is not to be had. It goes back at the end of the turn, when somebody
 * asks for sheaves, and when the thread leaves its CPU or dies: with all turns ended, usage is the bytes of the objects.
 *
 * | word of a group        | who writes it                                  |
 * |------------------------|------------------------------------------------|
 * | parent, next, name     | whoever makes it, under slab_mutex             |
 * | usage                  | everybody, by fetchAdd                          |
 * | limit                  | everybody; who lowers it throws nobody out      |
 * | peak, failures, forced | everybody, by plain adds: statistics            |
 */
import { type ThisCpu, ThreadRecord, type TurnHolder, threadRecordOf } from '../../cpu/index.js';
import { type Geometry, LINE_WORDS, type Ptr, struct, type Words } from '../../struct/index.js';
import { fetchAdd, loadAcquire, storeRelease } from '../../sync/index.js';

export const GROUP_NAME_BYTES = 64;
export const MemoryGroupStruct = struct(
  'memory_group',
  {
    parent: 1,
    next: 1,
    limit: 1,
    usage: 1,
    peak: 1,
    failures: 1,
    forced: 1,
    nameBytes: 1,
    name: GROUP_NAME_BYTES / 4,
  },
  { alignWords: LINE_WORDS },
);
export type GroupPtr = Ptr<'memory_group'>;

const {
  parent: PARENT,
  limit: LIMIT,
  usage: USAGE,
  peak: PEAK,
  failures: FAILURES,
  forced: FORCED,
} = MemoryGroupStruct;
const { stockOf: STOCK_OF, stockBytes: STOCK, charging: CHARGING } = ThreadRecord;
const NONE = 0 as GroupPtr;

/** Bytes that a thread charges at once. */
export const STOCK_BYTES = 16 << 10;
export const NO_LIMIT = 0x7fffffff;

/** Counts `bytes` in a group and all above; undoes it and returns false where a limit would be exceeded. */
function tryCharge(m: Words, group: GroupPtr, bytes: number): boolean {
  for (let g = group as number; g !== 0; g = m[g + PARENT]!) {
    const usage = fetchAdd(m, g + USAGE, bytes) + bytes;
    if (usage > m[g + LIMIT]!) {
      m[g + FAILURES] = m[g + FAILURES]! + 1;
      fetchAdd(m, g + USAGE, -bytes);
      for (let below = group as number; below !== g; below = m[below + PARENT]!)
        fetchAdd(m, below + USAGE, -bytes);
      return false;
    }
    if (usage > m[g + PEAK]!) m[g + PEAK] = usage;
  }
  return true;
}

/** Counts them whatever the limits are. */
function forceCharge(m: Words, group: GroupPtr, bytes: number): void {
  for (let g = group as number; g !== 0; g = m[g + PARENT]!) {
    const usage = fetchAdd(m, g + USAGE, bytes) + bytes;
    if (usage > m[g + PEAK]!) m[g + PEAK] = usage;
    if (usage > m[g + LIMIT]!) m[g + FORCED] = m[g + FORCED]! + 1;
  }
}

function uncharge(m: Words, group: GroupPtr, bytes: number): void {
  for (let g = group as number; g !== 0; ) {
    // Read first: with nothing charged to it the group may be ended. Its parent has these bytes until we get there.
    const parent = m[g + PARENT]!;
    fetchAdd(m, g + USAGE, -bytes);
    g = parent;
  }
}

/**
 * Threads that work for a group, dead ones until they are reaped. slab_mutex held: no thread begins to. Nobody keeps a
 * count of them, which could be left too high by one that dies.
 */
export function workersOf(m: Words, geometry: Geometry, group: GroupPtr): number {
  let workers = 0;
  for (let id = 0; id < geometry.threads; id++) {
    if (loadAcquire(m, threadRecordOf(geometry, id) + STOCK_OF) === group) workers++;
  }
  return workers;
}

/** The group that this thread works for, and its stock, which lies in the thread's record. */
export class Accounting implements TurnHolder {
  private readonly cpu: ThisCpu;
  private readonly m: Words;
  private readonly stock: number;
  private readonly stockOf: number;
  /** Not 0 while usage and stock, or the usage of several groups, may not agree: for whoever reaps this thread. */
  private readonly charging: number;
  private queued = false;

  constructor(cpu: ThisCpu) {
    this.cpu = cpu;
    this.m = cpu.m;
    this.stock = cpu.record + STOCK;
    this.stockOf = cpu.record + STOCK_OF;
    this.charging = cpu.record + CHARGING;
  }

  get current(): GroupPtr {
    return this.m[this.stockOf] as GroupPtr;
  }

  /** From now on this thread's allocations count for `group`; 0 is for nobody. */
  workFor(group: GroupPtr): void {
    this.returnStock();
    // Pairs with workersOf: who ends the group that we leave finds our stock given back.
    storeRelease(this.m, this.stockOf, group);
  }

  /**
   * The stock does not suffice for `bytes`: fills it, or charges just these near a limit. False when they exceed it,
   * true with the charge taken out of the stock.
   */
  refill(bytes: number): boolean {
    const { m, current } = this;
    if (current === 0) return true;
    const have = m[this.stock]!;
    m[this.charging] = bytes + STOCK_BYTES;
    const ahead = tryCharge(m, current, bytes + STOCK_BYTES);
    if (ahead) m[this.stock] = have + STOCK_BYTES;
    const charged = ahead || this.chargeExactly(bytes, have);
    m[this.charging] = 0;
    if (charged) this.hold();
    return charged;
  }

  private chargeExactly(bytes: number, have: number): boolean {
    const { m, current } = this;
    if (!tryCharge(m, current, bytes - have)) {
      this.askForStocks();
      return false;
    }
    m[this.stock] = 0;
    return true;
  }

  /** Counts `bytes` for the group that this thread works for. False when they would exceed a limit. */
  charge(bytes: number): boolean {
    const { m } = this;
    if (this.current === 0) return true;
    const left = m[this.stock]! - bytes;
    if (left >= 0) m[this.stock] = left;
    return left >= 0 || this.refill(bytes);
  }

  /** Gives `bytes` back to the group that they were charged to; 0 is nobody. */
  uncharge(owner: GroupPtr, bytes: number): void {
    const { m } = this;
    if (owner === 0) return;
    if (owner !== this.current) return this.giveBack(owner, bytes);
    m[this.stock] = m[this.stock]! + bytes;
    this.trim();
  }

  /** Charges `bytes` for an allocation that must not fail. */
  force(bytes: number): void {
    const { m, current } = this;
    if (current === 0) return;
    const left = m[this.stock]! - bytes;
    if (left >= 0) m[this.stock] = left;
    else {
      m[this.charging] = bytes;
      forceCharge(m, current, bytes);
      m[this.charging] = 0;
    }
  }

  /** The stock grew: past its limit, or by the first bytes that have to go back at the end of this turn. */
  trim(): void {
    const { m } = this;
    const surplus = m[this.stock]! - STOCK_BYTES;
    this.hold();
    if (surplus <= STOCK_BYTES) return;
    m[this.charging] = surplus;
    m[this.stock] = STOCK_BYTES;
    this.giveBack(this.current, surplus);
  }

  private giveBack(group: GroupPtr, bytes: number): void {
    const { m } = this;
    m[this.charging] = bytes;
    uncharge(m, group, bytes);
    m[this.charging] = 0;
  }

  /** Other threads' stocks may be what is missing: they give them back when they look next. */
  private askForStocks(): void {
    const { geometry, thread } = this.cpu;
    for (let id = 0; id < geometry.threads; id++) {
      // data race, intended: a hint.
      if (id !== thread && this.m[threadRecordOf(geometry, id) + STOCK]! > 0) this.cpu.requestThread(id);
    }
  }

  private hold(): void {
    if (this.queued) return;
    this.queued = true;
    this.cpu.holdForTurn(this);
  }

  private returnStock(): void {
    const { m } = this;
    const bytes = m[this.stock]!;
    if (bytes === 0) return;
    m[this.charging] = bytes;
    m[this.stock] = 0;
    this.giveBack(this.current, bytes);
  }

  release(): void {
    this.queued = false;
    this.returnStock();
  }

  releaseIfRequested(): void {
    this.returnStock();
  }

  /** What a dead thread had charged ahead goes back. Returns what may stay charged for good, in words. */
  inherit(dead: number): string[] {
    const { m } = this;
    const record = threadRecordOf(this.cpu.geometry, dead);
    const group = loadAcquire(m, record + STOCK_OF) as GroupPtr;
    const bytes = m[record + STOCK]!;
    m[record + STOCK] = 0;
    m[record + STOCK_OF] = 0;
    if (group !== NONE && bytes !== 0) this.giveBack(group, bytes);
    const lost = m[record + CHARGING]!;
    m[record + CHARGING] = 0;
    return lost === 0
      ? []
      : [`up to ${lost} bytes that it was charging, or giving back, stay charged to their memory group`];
  }
}
