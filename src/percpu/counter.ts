/**
 * Counters that each CPU adds to for itself, and that are folded into one number in batches. Kernel: lib/percpu_counter.c.
 *
 * A CPU's part is a word that its thread alone writes, with plain loads and stores; where threads share CPUs, by
 * compare-exchange. Parts move into the count under fbc->lock only, so that a sum under it is exact but for what the
 * CPUs add meanwhile.
 */
import { onlineCpus, sharesCpus } from '../cpu/index.js';
import { GFP_KERNEL } from '../page/index.js';
import {
  type Doubles,
  describe,
  requireInteger,
  SlabBugError,
  WORD_BYTES,
  type Words,
} from '../struct/index.js';
import { cmpxchg, exchange, LockClass, type LockPtr, loadAcquire } from '../sync/index.js';
import type { PercpuAllocator } from './allocator.js';
import {
  countersInOrder,
  linkCounter,
  PERCPU_COUNTER_BYTES,
  PercpuCounter,
  type PercpuCounterPtr,
  unlinkCounter,
} from './counterList.js';
import { PCPU_MIN_UNIT_SIZE, PcpuRoot, type PcpuView } from './layout.js';

const { count: COUNT, counters: COUNTERS } = PercpuCounter;
const { counterBatch: BATCH, onlineCpus: ONLINE } = PcpuRoot;
const BATCH_MIN = 32;
/** How long a CPU that goes waits for one counter. */
const FOLD_LIMIT_MS = 100;
const NR_MAX = PCPU_MIN_UNIT_SIZE / WORD_BYTES;

/** Exact in a double, as counts are kept. */
function checkAmount(name: string, amount: unknown): void {
  requireInteger(name, amount, -Number.MAX_SAFE_INTEGER, Number.MAX_SAFE_INTEGER);
}

/** Percpu counters, for the calling thread. A counter is named by its address: PERCPU_COUNTER_BYTES in an object of yours. */
export class PercpuCounters {
  private readonly percpu: PercpuAllocator;
  private readonly v: PcpuView;
  private readonly m: Words;
  private readonly f64: Doubles;
  private readonly shared: boolean;

  constructor(percpu: PercpuAllocator) {
    this.percpu = percpu;
    this.v = percpu.v;
    this.m = percpu.v.m;
    this.f64 = percpu.cpu.f64;
    this.shared = sharesCpus(percpu.v.geometry);
    this.updateBatch();
  }

  /**
   * Adds, into this CPU's part as long as that stays below `batch` in size. Kernel: `percpu_counter_add_batch`.
   * @example
   * arena.percpu.counters.add(mm + RSS_STAT, pages);
   */
  add(fbc: number, amount: number, batch: number = this.m[this.v.root + BATCH]!): void {
    const { m } = this;
    const at = this.partOf(fbc, this.percpu.cpu.id);
    if (this.shared) return this.addShared(fbc, at, amount, batch);
    const part = m[at]! + amount;
    // What is no integer is no part, and is refused below.
    if (part < batch && part > -batch && part === (part | 0)) m[at] = part;
    else this.fold(fbc, at, amount);
  }

  private addShared(fbc: number, at: number, amount: number, batch: number): void {
    checkAmount('amount', amount);
    for (let part = loadAcquire(this.m, at); Math.abs(part + amount) < batch; ) {
      // Pairs with the exchange in fold, and with the same of a thread of this CPU.
      const seen = cmpxchg(this.m, at, part, part + amount);
      if (seen === part) return;
      part = seen;
    }
    this.fold(fbc, at, amount);
  }

  /** Moves a CPU's part and an amount into the count. */
  private fold(fbc: number, at: number, amount: number): void {
    checkAmount('amount', amount);
    this.locked(fbc, () => {
      this.f64[this.countAt(fbc)] = this.read(fbc) + amount + this.takePart(at);
    });
  }

  private takePart(at: number): number {
    if (this.shared) return exchange(this.m, at, 0);
    const part = this.m[at]!;
    this.m[at] = 0;
    return part;
  }

  /** Makes a counter with a value. False without memory for its parts. Kernel: `percpu_counter_init`. */
  init(fbc: number, amount = 0, gfp: number = GFP_KERNEL): boolean {
    return this.initMany(fbc, amount, 1, gfp);
  }

  /** Makes `n` counters, one behind the other, with one percpu area. Kernel: `percpu_counter_init_many`. */
  initMany(fbc: number, amount: number, n: number, gfp: number = GFP_KERNEL): boolean {
    this.checkAddress(fbc);
    checkAmount('amount', amount);
    requireInteger('n', n, 1, NR_MAX);
    const counters = this.percpu.alloc(n * WORD_BYTES, WORD_BYTES, gfp);
    if (counters === 0) return false;
    const { m } = this;
    for (let i = 0; i < n; i++) {
      const at = (fbc >> 2) + i * PercpuCounter.SIZEOF;
      m.fill(0, at, at + PercpuCounter.SIZEOF);
      this.f64[(at + COUNT) >> 1] = amount;
      m[at + COUNTERS] = counters + i * WORD_BYTES;
    }
    this.listed(() => {
      for (let i = 0; i < n; i++) linkCounter(this.v, this.nth(fbc, i));
    });
    return true;
  }

  /** Ends a counter. One that is not initialised, or was ended, is left alone. Kernel: `percpu_counter_destroy`. */
  destroy(fbc: number): void {
    this.destroyMany(fbc, 1);
  }

  /** Ends what initMany made. Kernel: `percpu_counter_destroy_many`. */
  destroyMany(fbc: number, n: number): void {
    this.checkAddress(fbc);
    requireInteger('n', n, 1, NR_MAX);
    const { m } = this;
    const counters = m[(fbc >> 2) + COUNTERS]!;
    if (counters === 0) return;
    this.listed(() => {
      for (let i = 0; i < n; i++) unlinkCounter(this.v, this.nth(fbc, i));
    });
    this.percpu.free(counters);
    for (let i = 0; i < n; i++) m[this.nth(fbc, i) + COUNTERS] = 0;
  }

  /**
   * Charges the percpu memory of what initMany made of `n` counters, which stays allocated, to the group that this thread
   * works for; false, with nothing changed, where a limit would be exceeded. Throws SlabBugError when they are not initialised,
   * RangeError when there are fewer. Kernel: seed 001's `percpu_counter_charge_many`.
   * @example
   * if (!arena.percpu.counters.chargeMany(mm + RSS_STAT, 4)) cache.free(mm); // as if there had been no memory
   */
  chargeMany(fbc: number, n: number, gfp: number = GFP_KERNEL): boolean {
    return this.percpu.charge(this.areaOf(fbc, n), gfp);
  }

  /** Gives that charge back to the group that has it, on whatever thread. Kernel: seed 001's `percpu_counter_uncharge_many`. */
  unchargeMany(fbc: number, n: number): void {
    this.percpu.uncharge(this.areaOf(fbc, n));
  }

  /** The percpu area of `n` counters; checked by who gets it. */
  private areaOf(fbc: number, n: number): number {
    this.checkAddress(fbc);
    requireInteger('n', n, 1, NR_MAX);
    const { m } = this;
    const area = m[(fbc >> 2) + COUNTERS]!;
    const last = m[this.nth(fbc, n - 1) + COUNTERS]!;
    if (area !== 0 && last !== area + (n - 1) * WORD_BYTES)
      throw new RangeError(`n is ${n}; fewer counters were made at 0x${fbc.toString(16)} at once`);
    return area;
  }

  /** The count without what the CPUs have not folded yet: off by less than batch * CPUs. Kernel: `percpu_counter_read`. */
  read(fbc: number): number {
    return this.f64[this.countAt(fbc)]!;
  }

  /** The same, and 0 when it is negative for want of a fold. Kernel: `percpu_counter_read_positive`. */
  readPositive(fbc: number): number {
    return Math.max(0, this.read(fbc));
  }

  /** The count with all parts. A CPU that has left was folded, so its part is 0. Kernel: `percpu_counter_sum`. */
  sum(fbc: number): number {
    return this.locked(fbc, () => this.read(fbc) + this.sumOfParts(fbc));
  }

  private sumOfParts(fbc: number): number {
    let sum = 0;
    // data race, intended: a CPU may add to its part at this moment.
    for (let cpu = 0; cpu < this.v.geometry.cpus; cpu++) sum += this.m[this.partOf(fbc, cpu)]!;
    return sum;
  }

  /** Sets the value. CPUs that add at the same moment may be lost. Kernel: `percpu_counter_set`. */
  set(fbc: number, amount: number): void {
    checkAmount('amount', amount);
    this.locked(fbc, () => {
      for (let cpu = 0; cpu < this.v.geometry.cpus; cpu++) this.m[this.partOf(fbc, cpu)] = 0;
      this.f64[this.countAt(fbc)] = amount;
    });
  }

  /** Folds this CPU's part. Kernel: `percpu_counter_sync`. */
  sync(fbc: number): void {
    this.fold(fbc, this.partOf(fbc, this.percpu.cpu.id), 0);
  }

  /** -1, 0 or 1: less than `rhs`, equal, more; by the count alone where it is far enough off. Kernel: `__percpu_counter_compare`. */
  compare(fbc: number, rhs: number, batch: number = this.m[this.v.root + BATCH]!): number {
    const count = this.read(fbc);
    if (Math.abs(count - rhs) > batch * this.m[this.v.root + ONLINE]!) return Math.sign(count - rhs);
    return Math.sign(this.sum(fbc) - rhs);
  }

  /**
   * Adds unless the total would go beyond `limit`: above it for a positive amount, below it for a negative one. Says
   * whether it did. Far from the limit it takes no lock, so that CPUs which do so at the moment at which another comes
   * near may go beyond by one amount each. Kernel: `percpu_counter_limited_add`.
   */
  limitedAdd(
    fbc: number,
    limit: number,
    amount: number,
    batch: number = this.m[this.v.root + BATCH]!,
  ): boolean {
    checkAmount('amount', amount);
    checkAmount('limit', limit);
    if (amount === 0) return true;
    const sign = Math.sign(amount);
    const unknown = batch * this.m[this.v.root + ONLINE]!;
    const at = this.partOf(fbc, this.percpu.cpu.id);
    // Positive: how far the limit is from the count, in the direction of the amount.
    const room = (limit - this.read(fbc)) * sign;
    if (Math.abs(this.m[at]! + amount) < batch && room >= unknown) {
      this.add(fbc, amount, batch);
      return true;
    }
    return this.locked(fbc, () => {
      const left = (limit - this.read(fbc) - amount) * sign;
      if (left + unknown < 0) return false;
      if (left < unknown && left - this.sumOfParts(fbc) * sign < 0) return false;
      this.f64[this.countAt(fbc)] = this.read(fbc) + amount + this.takePart(at);
      return true;
    });
  }

  /**
   * A CPU has no thread any more: what it has in its parts is folded into the counts. Returns what could not be, in words.
   * Kernel: `percpu_counter_cpu_dead`.
   * @internal
   */
  cpuDead(cpu: number): string[] {
    const notes: string[] = [];
    this.listed(() => {
      for (const at of countersInOrder(this.v)) {
        if (!this.foldDead(at, cpu))
          notes.push(`the percpu counter at word ${at} was not folded: it stays locked`);
      }
    });
    return notes;
  }

  /** Under percpu_counters_lock, and so by trylock: both are leaves. Who has fbc->lock waits for nothing. */
  private foldDead(fbc: PercpuCounterPtr, cpu: number): boolean {
    const { locks } = this.percpu.cpu;
    const lock = fbc as unknown as LockPtr;
    const deadline = performance.now() + FOLD_LIMIT_MS;
    while (!locks.tryLock(lock, LockClass.PercpuCounter)) if (performance.now() > deadline) return false;
    try {
      const at = this.partOf(fbc << 2, cpu);
      this.f64[(fbc + COUNT) >> 1] = this.read(fbc << 2) + this.takePart(at);
    } finally {
      locks.unlock(lock, LockClass.PercpuCounter);
    }
    return true;
  }

  /** CPUs have come or gone. Kernel: `compute_batch_value`. */
  updateBatch(): void {
    const { m, v } = this;
    this.listed(() => {
      const online = onlineCpus(m, v.geometry).length;
      m[v.root + ONLINE] = online;
      m[v.root + BATCH] = Math.max(BATCH_MIN, online * 2);
    });
  }

  /** How many of it a CPU adds before it folds, unless it is told otherwise. Kernel: `percpu_counter_batch`. */
  get batch(): number {
    return this.m[this.v.root + BATCH]!;
  }

  private nth(fbc: number, i: number): PercpuCounterPtr {
    return ((fbc >> 2) + i * PercpuCounter.SIZEOF) as PercpuCounterPtr;
  }

  /** In doubles. */
  private countAt(fbc: number): number {
    return ((fbc >> 2) + COUNT) >> 1;
  }

  /** Word of a CPU's part. Throws when the counter is not initialised. */
  private partOf(fbc: number, cpu: number): number {
    return this.percpu.ptr(this.m[(fbc >> 2) + COUNTERS]!, cpu) >>> 2;
  }

  private checkAddress(fbc: number): void {
    if (Number.isInteger(fbc) && fbc > 0 && fbc + PERCPU_COUNTER_BYTES <= this.v.geometry.bytes) {
      if (fbc % 8 === 0) return;
      throw new SlabBugError('misaligned', 'percpu_counter', fbc, `${fbc} is not a multiple of 8`);
    }
    const address = typeof fbc === 'number' ? fbc : 0;
    throw new SlabBugError(
      'invalid-pointer',
      'percpu_counter',
      address,
      `${describe(fbc)} is not in the arena`,
    );
  }

  /** Throws unless a counter that is initialised lies there: nothing is written before. */
  private checkCounter(fbc: number): void {
    this.checkAddress(fbc);
    this.partOf(fbc, this.percpu.cpu.id);
  }

  private locked<T>(fbc: number, body: () => T): T {
    this.checkCounter(fbc);
    const { locks } = this.percpu.cpu;
    const lock = (fbc >> 2) as unknown as LockPtr;
    locks.lock(lock, LockClass.PercpuCounter);
    try {
      return body();
    } finally {
      locks.unlock(lock, LockClass.PercpuCounter);
    }
  }

  private listed(body: () => void): void {
    const { locks } = this.percpu.cpu;
    locks.lock(this.v.countersLock, LockClass.PercpuCounters);
    try {
      body();
    } finally {
      locks.unlock(this.v.countersLock, LockClass.PercpuCounters);
    }
  }
}
