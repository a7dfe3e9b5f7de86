/** One arena under attack, and a model of what its caller has: which addresses are whose. */
import type {
  CacheHandles,
  KmallocSite,
  KmemBuckets,
  KmemCache,
  MemoryGroup,
  PrefilledSheaf,
} from '../../cache/index.js';
import {
  __GFP_NOWARN,
  Arena,
  type ArenaOptions,
  GFP_KERNEL,
  SLAB_ACCOUNT,
  SLAB_NO_MERGE,
  SLAB_TYPESAFE_BY_RCU,
  structOf,
} from '../../index.js';
import type { MapleTree } from '../../maple/index.js';
import type { Mm } from '../../mm/index.js';
import { ArenaImage } from './image.js';
import type { Rng } from './rng.js';

/** Who has an address: a cache, kmalloc, allocPages with an order, or a structure that no rule frees by address. */
interface Holding {
  readonly by: KmemCache | 'kmalloc' | 'pages' | 'structure';
  readonly bytes: number;
  readonly order: number;
}

interface Loan {
  readonly sheaf: PrefilledSheaf;
  readonly cache: KmemCache;
}

export const QUIET = GFP_KERNEL | __GFP_NOWARN;
/** Addresses that are kept; beyond it what was handed out first goes back. */
const LIVE_MAX = 150;
const BYTES = 1 << 20;
const CURSOR = structOf('fuzzed', { a: 'u32', b: 'f64', c: 'i64', next: 'addr' });

export class World {
  readonly rng: Rng;
  readonly arena: Arena;
  readonly image: ArenaImage;
  readonly faults: string[] = [];
  readonly live = new Map<number, Holding>();
  /** The latest that were freed. */
  readonly freed: number[] = [];
  readonly percpu = new Set<number>();
  readonly counters: number[] = [];
  caches: KmemCache[] = [];
  loans: Loan[] = [];
  groups: MemoryGroup[] = [];
  trees: MapleTree[] = [];
  mms: Mm[] = [];
  /** Handles of another arena, of caches that are gone, of loans that are over; and things that look like handles. */
  readonly forgeries: unknown[] = [];
  /** Whether a hostile value did something of its own in the arena during this call. */
  disturbed = false;
  names = 0;
  /** What the call that is being drawn is made on. */
  target: object = {};
  /** What this world looks at objects with. */
  readonly cursor: object;
  /** 64 bytes to write to. */
  readonly scratch: number;
  readonly buckets: KmemBuckets;
  readonly site: KmallocSite;
  readonly handles: CacheHandles;
  /** Handles that are good. */
  readonly handled = new Set<number>();

  constructor(rng: Rng, options: Partial<ArenaOptions>) {
    this.rng = rng;
    this.arena = Arena.create({ bytes: BYTES, cpus: 2, maxCaches: 60, ...options });
    this.arena.online({ cpu: 0 });
    this.arena.onSlabReport(() => {});
    this.makeCaches();
    this.makeForgeries();
    this.scratch = this.have('structure', 64);
    this.cursor = CURSOR.cursor(this.arena).at(this.have('structure', 64));
    this.buckets = this.arena.createBuckets('fuzz-set');
    this.site = this.arena.kmallocSite({ site: 7 });
    this.handles = this.arena.createCache('handled', { size: 48 }).handles();
    this.groups.push(this.arena.groups.create('first', { limit: 1 << 19 }));
    this.trees.push(this.arena.maple.create()!);
    this.mms.push(this.arena.mms.create()!);
    this.counters.push(this.have('structure', 64));
    this.arena.percpu.counters.init(this.counters[0]!);
    this.image = new ArenaImage(this.arena);
  }

  private makeCaches(): void {
    const { arena } = this;
    const make = (name: string, options: Parameters<Arena['createCache']>[1]): void => {
      this.caches.push(arena.createCache(name, options));
    };
    make('fuzz-64', { size: 64 });
    make('fuzz-200', { size: 200, layer: 'none' });
    make('fuzz-slab', { size: 96, layer: 'cpu-slab' });
    make('fuzz-array', { size: 48, layer: 'percpu-array', arraySize: 16 });
    make('fuzz-rcu', { size: 80, flags: SLAB_TYPESAFE_BY_RCU });
    make('fuzz-account', { size: 32, flags: SLAB_ACCOUNT });
    make('fuzz-own', { size: 120, flags: SLAB_NO_MERGE, sheafCapacity: 8 });
  }

  private makeForgeries(): void {
    const other = Arena.create({ bytes: BYTES, cpus: 2, maxCaches: 60 });
    other.online({ cpu: 1 });
    const cache = other.createCache('fuzz-64', { size: 64 });
    const gone = this.arena.createCache('gone', { size: 64 });
    const over = gone.prefill(2)!;
    gone.return(over);
    gone.destroy();
    const group = other.groups.create('first');
    this.forgeries.push(cache, cache.prefill(2), cache.alloc(), gone, over, group);
    this.forgeries.push(other.maple.create(), other.mms.create(), other, other.handle, other.percpu);
    const [mine] = this.caches;
    this.forgeries.push(Object.create(mine!));
    this.forgeries.push(Object.create(group));
  }

  /** Whether nothing of this thread waits for a grace period. */
  get isQuiet(): boolean {
    return this.arena.rcu.pending === 0;
  }

  /** A fault is what the fuzzer is after. */
  fault(what: string): void {
    this.faults.push(what);
  }

  expect(holds: boolean, what: string): void {
    if (!holds) this.fault(what);
  }

  sideEffect(body: () => unknown): void {
    this.disturbed = true;
    const p = body();
    if (typeof p === 'number' && p > 16) this.handedOut(p, 'kmalloc', 64);
  }

  /** An allocation said that it gave `p`. */
  handedOut(p: unknown, by: Holding['by'], bytes: number, order = 0): void {
    if (p === 0) return this.freeSome(40);
    const { geometry } = this.arena;
    const sane = typeof p === 'number' && Number.isInteger(p) && p % 8 === 0;
    if (!sane || p < geometry.firstPfn * 4096 || p + bytes > geometry.bytes) {
      return this.fault(`handed out ${String(p)}, which is no address`);
    }
    if (this.live.has(p)) this.fault(`handed out ${p}, which somebody has`);
    this.live.set(p, { by, bytes, order });
    this.arena.u8.fill(0xa5, p, p + bytes);
  }

  /** A free of `p` was accepted. */
  takenBack(p: unknown, by: Holding['by'] | 'any object'): void {
    const held = typeof p === 'number' ? this.live.get(p) : undefined;
    if (held === undefined) return this.fault(`the free of ${String(p)} was accepted; nobody has it`);
    const objects = by === 'any object' && (held.by === 'kmalloc' || typeof held.by === 'object');
    if (!objects && held.by !== by)
      this.fault(`the free of ${String(p)} was accepted by who has not given it`);
    this.live.delete(p as number);
    this.freed.push(p as number);
    if (this.freed.length > 32) this.freed.shift();
  }

  anyAddress(): number {
    const { live, rng } = this;
    let skip = rng.below(16);
    let found = 8;
    for (const [p, { by }] of live) {
      if (by === 'structure') continue;
      found = p;
      if (skip-- === 0) break;
    }
    return found;
  }

  /** An address that `by` has given, made now if there is none. */
  have(by: Holding['by'], bytes = 64): number {
    let skip = this.rng.below(4);
    for (const [p, held] of this.live) if (by !== 'structure' && held.by === by && skip-- === 0) return p;
    const p = typeof by === 'object' ? by.alloc(QUIET) : this.arena.kmalloc(bytes, QUIET);
    if (p === 0) {
      this.freeSome(60);
      return this.anyAddress();
    }
    const kind = by === 'pages' ? 'kmalloc' : by;
    this.handedOut(p, kind, typeof by === 'object' ? by.objectSize : bytes);
    return p;
  }

  /** Gives the oldest back, so that there is memory for the next calls. */
  freeSome(n: number): void {
    for (const [p, { by, order }] of this.live) {
      if (n-- === 0) return;
      if (by === 'structure') continue;
      this.live.delete(p);
      if (by === 'pages') this.arena.freePages(p, order);
      else if (by === 'kmalloc') this.arena.kfree(p);
      else by.free(p);
    }
  }

  trim(): void {
    if (this.live.size > LIVE_MAX) this.freeSome(40);
    while (this.loans.length > 6) {
      const { sheaf, cache } = this.loans.shift()!;
      cache.return(sheaf);
    }
    while (this.trees.length > 4) this.arena.maple.destroy(this.trees.pop()!);
    while (this.mms.length > 4) this.arena.mms.destroy(this.mms.pop()!);
    while (this.groups.length > 4) this.groups.pop();
    if (this.percpu.size > 20) {
      for (const p of this.percpu) this.arena.percpu.free(p);
      this.percpu.clear();
    }
  }

  /** Everything goes back, and nothing may be wrong. */
  end(): void {
    this.arena.groups.workFor(null);
    for (const { sheaf, cache } of this.loans) cache.return(sheaf);
    this.loans = [];
    this.freeSome(1e9);
    this.audit();
  }

  audit(): void {
    for (const { invariant, where, what } of this.arena.validate().slice(0, 4)) {
      this.fault(`validate: ${invariant} ${where}: ${what}`);
    }
  }
}
