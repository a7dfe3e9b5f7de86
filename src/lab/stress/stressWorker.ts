/**
 * One thread of the stress: bursts of everything the allocator offers, from a seed. Objects carry a cookie in every
 * word, checked when they are freed, by whichever thread that is. Not a benchmark.
 */
import type { Arena, KmemCache } from '../../index.js';
import { exchange } from '../../sync/index.js';
import { rng } from '../stats.js';
import {
  KMALLOC,
  LiveMap,
  noCounts,
  STRESS_CACHES,
  type StressCounts,
  type StressShared,
  stopped,
  TRANSFER_SLOTS,
} from './shared.js';

/** Objects that one thread holds at most. */
const HELD_MAX = 1500;
const BULK_MAX = 150;

export class StressThread {
  readonly counts: StressCounts;
  private readonly arena: Arena;
  private readonly shared: StressShared;
  private readonly caches: KmemCache[];
  private readonly random: () => number;
  private readonly me: number;
  private readonly live: LiveMap;
  private readonly held = new Int32Array(HELD_MAX);
  private nrHeld = 0;
  private readonly bulk = new Int32Array(BULK_MAX);

  constructor(shared: StressShared, arena: Arena, seed: number) {
    this.shared = shared;
    this.arena = arena;
    this.caches = STRESS_CACHES.map(({ name }) => arena.openCache(name));
    this.random = rng(seed);
    this.me = arena.cpu.thread + 1;
    this.live = new LiveMap(shared.live);
    this.counts = { ...noCounts(), problems: this.live.problems };
  }

  /** Runs until `until` (ms, performance.now) or the round stops. Lets the event loop turn now and then. */
  async run(until: number): Promise<void> {
    while (performance.now() < until && !stopped(this.shared) && this.live.problems.length === 0) {
      for (let i = 0; i < 200; i++) this.step();
      const pause = this.random();
      if (pause < 0.2) await new Promise((resolve) => setImmediate(resolve));
      else if (pause < 0.5) await null;
      else if (pause < 0.6) this.arena.endTurn();
    }
  }

  /** Frees everything this thread holds. */
  freeAll(): void {
    while (this.nrHeld > 0) this.freeAt(this.nrHeld - 1);
  }

  private below(n: number): number {
    return Math.floor(this.random() * n);
  }

  private step(): void {
    this.counts.ops++;
    const choice = this.random();
    if (choice < 0.3) this.burstAlloc();
    else if (choice < 0.6) this.burstFree();
    else if (choice < 0.7) this.bulkRound();
    else if (choice < 0.9) this.transferSome();
    else if (choice < 0.92) this.reallocOne();
    else if (choice < 0.94) this.prefillRound();
    else if (choice < 0.96) this.nolockRound();
    else if (choice < 0.98) this.rcuRound();
    else this.pingPong();
  }

  private burstAlloc(): void {
    const kind = this.below(KMALLOC + 1);
    const n = Math.min(this.below(this.below(200) + 1), HELD_MAX - this.nrHeld);
    for (let i = 0; i < n; i++) {
      const p = this.allocOne(kind);
      if (p === 0) return;
      this.held[this.nrHeld++] = p;
    }
  }

  private burstFree(): void {
    const n = Math.min(this.below(this.below(200) + 1), this.nrHeld);
    for (let i = 0; i < n; i++) this.freeAt(this.below(this.nrHeld));
  }

  private pingPong(): void {
    const kind = this.below(KMALLOC + 1);
    for (let i = 0; i < 50; i++) {
      const p = this.allocOne(kind);
      if (p !== 0) this.freeOne(p);
    }
  }

  private allocOne(kind: number): number {
    const size = kind === KMALLOC ? 8 + this.below(this.below(10_000) + 1) : 0;
    let p: number;
    if (kind === KMALLOC) p = this.arena.kmalloc(size);
    else if (this.random() < 0.02) p = this.caches[kind]!.allocNode(this.below(this.arena.geometry.nodes));
    else p = this.caches[kind]!.alloc();
    if (p === 0) {
      this.counts.outOfMemory++;
      return 0;
    }
    this.counts.allocs++;
    this.stamp(p, kind, kind === KMALLOC ? size : this.caches[kind]!.objectSize);
    return p;
  }

  /** Word 0: size and kind; the others: a mix of address and position. */
  private stamp(p: number, kind: number, size: number): void {
    this.live.take(p, this.me);
    const m = this.arena.i32;
    const words = Math.min(size >> 2, 64);
    m[p >> 2] = (words << 8) | kind;
    for (let i = 1; i < words; i++) m[(p >> 2) + i] = Math.imul(p + i, 0x9e3779b1);
  }

  private kindOf(p: number): number {
    return this.arena.i32[p >> 2]! & 0xff;
  }

  private verify(p: number): void {
    this.live.drop(p);
    const m = this.arena.i32;
    const words = m[p >> 2]! >> 8;
    for (let i = 1; i < words; i++) {
      if (m[(p >> 2) + i] === Math.imul(p + i, 0x9e3779b1)) continue;
      this.live.problem(`0x${p.toString(16)} word ${i} was overwritten`);
      return;
    }
  }

  private freeAt(index: number): void {
    const p = this.held[index]!;
    this.held[index] = this.held[--this.nrHeld]!;
    this.freeOne(p);
  }

  /** Checks and frees an object, whichever thread made it. */
  freeOne(p: number): void {
    const kind = this.kindOf(p);
    this.verify(p);
    this.counts.frees++;
    if (kind === KMALLOC) this.arena.kfree(p);
    else this.caches[kind]!.free(p);
  }

  private bulkRound(): void {
    const kind = this.below(KMALLOC);
    const cache = this.caches[kind]!;
    const n = 1 + this.below(BULK_MAX);
    if (!cache.allocBulk(this.bulk, n)) {
      this.counts.outOfMemory++;
      return;
    }
    this.counts.bulks++;
    for (let i = 0; i < n; i++) this.stamp(this.bulk[i]!, kind, cache.objectSize);
    // Keep some for others to free one by one; give the rest back at once.
    const keep = Math.min(this.below(n), HELD_MAX - this.nrHeld);
    for (let i = 0; i < keep; i++) this.held[this.nrHeld++] = this.bulk[n - 1 - i]!;
    for (let i = 0; i < n - keep; i++) this.verify(this.bulk[i]!);
    cache.freeBulk(this.bulk, n - keep);
  }

  /** Swaps objects with other threads: what we get, some other CPU allocated. */
  private transferSome(): void {
    const n = this.below(40);
    for (let i = 0; i < n; i++) {
      const give = this.nrHeld > 0 ? this.held[--this.nrHeld]! : 0;
      // An exchange orders: the object's words are visible to whoever takes it.
      const got = exchange(this.shared.transfer, this.below(TRANSFER_SLOTS), give);
      if (got !== 0) this.held[this.nrHeld++] = got;
      this.counts.transfers++;
    }
  }

  /** Borrows a sheaf, uses it up to what it guarantees, and gives it back. */
  private prefillRound(): void {
    const kind = this.below(KMALLOC);
    const cache = this.caches[kind]!;
    const n = 1 + this.below(80);
    let sheaf = cache.prefill(n);
    if (sheaf === null) {
      this.counts.outOfMemory++;
      return;
    }
    this.counts.prefills++;
    for (let left = this.below(n + 1); left > 0; left--) {
      const p = sheaf.alloc();
      if (p === 0) {
        this.live.problem(`a sheaf of ${cache.name} that was filled for ${n} ran out before`);
        break;
      }
      this.counts.allocs++;
      this.stamp(p, kind, cache.objectSize);
      this.keepOrFree(p);
    }
    if (this.random() < 0.3) sheaf = cache.refill(sheaf, 1 + this.below(120)) ?? sheaf;
    cache.return(sheaf);
  }

  /** What a callback in the middle of something else may do. */
  private nolockRound(): void {
    for (let i = this.below(30); i > 0; i--) {
      const size = 8 + this.below(600);
      const p = this.arena.kmallocNolock(size);
      if (p === 0) continue; // contended or out of memory
      this.counts.nolocks++;
      this.counts.allocs++;
      this.stamp(p, KMALLOC, size);
      if (this.random() < 0.5) this.keepOrFree(p);
      else {
        this.verify(p);
        this.counts.frees++;
        this.arena.kfreeNolock(p);
      }
    }
  }

  /** Frees a few after a grace period; most threads never read, so it comes soon. */
  private rcuRound(): void {
    const n = Math.min(this.below(40), this.nrHeld);
    for (let i = 0; i < n; i++) {
      const p = this.held[--this.nrHeld]!;
      const kind = this.kindOf(p);
      this.verify(p);
      this.counts.frees++;
      this.counts.rcuFrees++;
      if (kind === KMALLOC) this.arena.kfreeRcu(p);
      else this.caches[kind]!.freeRcu(p);
    }
    if (this.random() < 0.5) {
      this.arena.rcu.readLock();
      this.pingPong();
      this.arena.rcu.readUnlock();
    }
  }

  private keepOrFree(p: number): void {
    if (this.nrHeld < HELD_MAX) this.held[this.nrHeld++] = p;
    else this.freeOne(p);
  }

  private reallocOne(): void {
    const p = this.arena.kmalloc(8 + this.below(600));
    if (p === 0) return;
    this.arena.i32[p >> 2] = 0x1234;
    const q = this.arena.krealloc(p, 8 + this.below(9000));
    if (q === 0) return this.arena.kfree(p);
    if (this.arena.i32[q >> 2] !== 0x1234)
      this.live.problem(`krealloc lost the contents of 0x${q.toString(16)}`);
    this.arena.kfree(q);
  }
}

/** Takes everything out of the transfer slots and frees it; the round is over. */
export function drainTransfer(thread: StressThread, shared: StressShared): void {
  for (let i = 0; i < TRANSFER_SLOTS; i++) {
    const p = exchange(shared.transfer, i, 0);
    if (p !== 0) thread.freeOne(p);
  }
}
