/** kfree_rcu past the sheaves: what gathers, when it begins to wait, who frees it, and what it needs for that. */

import { afterEach, describe, expect, it, vi } from 'vitest';
import { ADDRESSES_PER_PAGE, CACHED_PAGES_MAX } from '#src/cache/rcu/kfreeRcuLists.js';
import { type Arena, type KmemCache, RcuStallError, SlabBugError } from '#src/index.js';
import { KfreeRcuCpu, krcpOf } from '#src/rcu/index.js';
import { interrupt } from '#workers/litmus/nolock.js';
import {
  allocMany,
  boot,
  expectRefused,
  expectSound,
  footprint,
  freeMany,
  inside,
  secondCpu,
} from '../cache/support/arena.js';

function setup(): { arena: Arena; other: Arena; cache: KmemCache } {
  const arena = boot({ cpus: 4 });
  const cache = arena.createCache('c', { size: 96, layer: 'none' });
  return { arena, other: secondCpu(arena), cache };
}

const pending = (arena: Arena): number => inside(arena).kfreeRcu.pending().addresses;
const cachedPages = (arena: Arena): number => inside(arena).kfreeRcu.pending().cachedPages;
const word = (arena: Arena, field: number, cpu = 0): number =>
  arena.i32[krcpOf(arena.geometry, cpu) + field]!;

afterEach(() => {
  vi.useRealTimers();
  vi.restoreAllMocks();
});

describe('addresses', () => {
  it('gather for five seconds, and are then freed by a timer that keeps no process alive', () => {
    vi.useFakeTimers({ toFake: ['setTimeout', 'clearTimeout', 'performance'] });
    const { arena, cache } = setup();
    const held = allocMany(cache, 10);
    for (const p of held) cache.freeRcu(p);
    arena.rcu.barrier();
    vi.advanceTimersByTime(4_900);
    expect(pending(arena), 'nobody is in a hurry').toBe(10);
    vi.advanceTimersByTime(200);
    expect(pending(arena)).toBe(0);
    expectSound(arena);
    expect(cache.destroy().leaked).toBe(0);
  });

  it('are freed without an event loop too, by a later call', () => {
    const { arena, cache } = setup();
    for (const p of allocMany(cache, 10)) cache.freeRcu(p);
    const now = performance.now();
    vi.spyOn(performance, 'now').mockImplementation(() => now + 6_000);
    for (const p of allocMany(cache, 64)) cache.freeRcu(p);
    arena.rcu.quiescent();
    expect(pending(arena)).toBeLessThan(64);
    vi.restoreAllMocks();
    cache.rcuBarrier();
    expect(pending(arena)).toBe(0);
    expectSound(arena);
  });

  it('begin to wait at once when their page is full', () => {
    const { arena, cache } = setup();
    const held = allocMany(cache, ADDRESSES_PER_PAGE + 1);
    for (const p of held) cache.freeRcu(p);
    expect(word(arena, KfreeRcuCpu.waiting)).not.toBe(0);
    arena.rcu.quiescent();
    expect(pending(arena)).toBe(1);
    expectSound(arena);
    cache.rcuBarrier();
    expect(pending(arena)).toBe(0);
  });

  it('need no new grace period when one has passed since the last of them', () => {
    const { arena, cache } = setup();
    for (const p of allocMany(cache, 10)) cache.freeRcu(p);
    arena.rcu.synchronize();
    const { lists } = inside(arena).kfreeRcu;
    const before = arena.rcu.gracePeriods.current;
    lists.startWaiting(lists.of(0));
    expect(arena.rcu.gracePeriods.current).toBe(before);
    expect(lists.take(lists.of(0), lists.of(0))).toBe(true);
    expect(word(arena, KfreeRcuCpu.end)).toBe(10);
  });

  it('of slabs and of large blocks are in pages of their own', () => {
    const { arena, cache } = setup();
    cache.freeRcu(cache.alloc());
    arena.kfreeRcu(arena.kmalloc(100_000));
    const [slab, large] = [word(arena, KfreeRcuCpu.slab), word(arena, KfreeRcuCpu.large)];
    expect(slab).not.toBe(0);
    expect(large).not.toBe(0);
    expect(slab).not.toBe(large);
    arena.kfreeRcuBarrier();
    expect(pending(arena)).toBe(0);
    expectSound(arena);
  });

  it('of several caches in turn are freed each to its own', () => {
    const { arena, cache } = setup();
    const before = footprint(arena);
    const second = arena.createCache('d', { size: 40, layer: 'none' });
    for (let i = 0; i < 500; i++)
      (i % 3 === 0 ? cache : second).freeRcu((i % 3 === 0 ? cache : second).alloc());
    arena.kfreeRcuBarrier();
    expectSound(arena);
    expect(second.destroy().leaked).toBe(0);
    expect(footprint(arena)).toEqual(before);
  });

  it('go with the thread that leaves: it frees them first', () => {
    const { arena, other } = setup();
    const theirs = other.openCache('c');
    for (const p of allocMany(theirs, 50)) theirs.freeRcu(p);
    other.offline();
    expect(pending(arena)).toBe(0);
    expectSound(arena);
  });

  it('of a thread that died are freed by whoever reaps it, after a grace period', () => {
    const { arena, other } = setup();
    const theirs = other.openCache('c');
    const reader = secondCpu(arena, 2);
    reader.rcu.readLock();
    for (const p of allocMany(theirs, 50)) theirs.freeRcu(p);
    other.endTurn();
    arena.cpuDead(1);
    expect(pending(arena)).toBe(50);
    expectSound(arena);
    reader.rcu.readUnlock();
    reader.endTurn();
    arena.rcu.quiescent();
    expect(pending(arena)).toBe(0);
    expectSound(arena);
  });
});

describe('short memory', () => {
  it('frees what any CPU has gathered, and the pages that were kept', () => {
    const arena = boot({ cpus: 4, bytes: 2 << 20, maxCaches: 24 });
    const other = secondCpu(arena);
    const cache = arena.createCache('c', { size: 2048, layer: 'none' });
    const theirs = other.openCache('c');
    const gathered = allocMany(theirs, 40);
    for (const p of gathered) theirs.freeRcu(p);
    other.endTurn();
    const held: number[] = [];
    for (let p = cache.alloc(); p !== 0; p = cache.alloc()) held.push(p);
    expect(gathered.filter((p) => !held.includes(p))).toEqual([]);
    expect(inside(arena).kfreeRcu.pending()).toEqual({ addresses: 0, cachedPages: 0 });
    freeMany(cache, held);
    expectSound(arena);
  });

  it('frees what lies in the rcu sheaves of any CPU, full or not', () => {
    const arena = boot({ cpus: 4, bytes: 2 << 20, maxCaches: 24 });
    const other = secondCpu(arena);
    const cache = arena.createCache('c', { size: 2048 });
    const theirs = other.openCache('c');
    const gathered = allocMany(theirs, 4 * theirs.sheafCapacity + 3);
    for (const p of gathered) theirs.freeRcu(p);
    other.endTurn();
    const held: number[] = [];
    for (let p = cache.alloc(); p !== 0; p = cache.alloc()) held.push(p);
    expect(gathered.filter((p) => !held.includes(p))).toEqual([]);
    freeMany(cache, held);
    expectSound(arena);
  });

  it('is met with pages kept from before, of which there are five at most', () => {
    const { arena, cache } = setup();
    const held = allocMany(cache, (CACHED_PAGES_MAX + 3) * ADDRESSES_PER_PAGE);
    for (const p of held) cache.freeRcu(p);
    cache.rcuBarrier();
    expect(cachedPages(arena)).toBe(CACHED_PAGES_MAX);
    const [p] = allocMany(cache, 1);
    arena.failPageAlloc(1);
    arena.rcu.readLock(); // where nobody may wait
    cache.freeRcu(p!);
    arena.rcu.readUnlock();
    expect(arena.failPageAlloc(0).refused).toBe(0);
    expect(pending(arena)).toBe(1);
    expect(cachedPages(arena)).toBe(CACHED_PAGES_MAX - 1);
    cache.rcuBarrier();
    expectSound(arena);
  });

  it('leaves no page kept, for some seconds', () => {
    const { arena, cache } = setup();
    const one = (): void => {
      cache.freeRcu(cache.alloc());
      cache.rcuBarrier();
    };
    one();
    expect(cachedPages(arena)).toBe(1);
    inside(arena).kfreeRcu.shrink(0);
    expect(cachedPages(arena)).toBe(0);
    one();
    expect(cachedPages(arena)).toBe(0);
    const now = Date.now();
    vi.spyOn(Date, 'now').mockImplementation(() => now + 7_000);
    one();
    expect(cachedPages(arena)).toBe(1);
  });

  it('links objects through a word of theirs, where the caller gave one, and nobody waits', () => {
    const { arena, other, cache } = setup();
    const held = allocMany(cache, 100);
    const large = Array.from({ length: 3 }, () => arena.kmalloc(50_000));
    for (const p of held) arena.i32.fill(p, p >> 2, (p + 96) >> 2);
    other.rcu.readLock();
    arena.failPageAlloc(1);
    held.forEach((p, i) => {
      cache.freeRcu(p, (i % 24) * 4);
    });
    for (const p of large) arena.kfreeRcu(p, 49_996);
    expect(arena.failPageAlloc(0).refused).toBeGreaterThan(0);
    expect(pending(arena)).toBe(103);
    // Readers find all of the object but that word.
    const changed = held.map((p) => arena.i32.subarray(p >> 2, (p + 96) >> 2).filter((w) => w !== p).length);
    expect(Math.max(...changed)).toBe(1);
    expect(() => cache.free(held[0]!)).toThrow(SlabBugError);
    expectSound(arena);
    other.rcu.readUnlock();
    other.endTurn();
    arena.kfreeRcuBarrier();
    expect(pending(arena)).toBe(0);
    expectSound(arena);
    expect(cache.destroy().leaked).toBe(0);
  });

  it('makes those that are linked later wait for a grace period of their own', () => {
    const { arena, other, cache } = setup();
    const [p, q] = allocMany(cache, 2) as [number, number];
    arena.failPageAlloc(1);
    cache.freeRcu(p, 0);
    inside(arena).kfreeRcu.submitOwn();
    other.rcu.readLock();
    cache.freeRcu(q, 0);
    inside(arena).kfreeRcu.submitOwn();
    arena.failPageAlloc(0);
    arena.rcu.quiescent();
    expect(allocMany(cache, 200)).not.toContain(q);
    other.rcu.readUnlock();
    other.endTurn();
    arena.rcu.quiescent();
    arena.rcu.quiescent();
    expect(pending(arena)).toBe(0);
  });

  it('refuses a word that does not lie in the object', () => {
    const { arena, cache } = setup();
    const p = cache.alloc();
    arena.endTurn();
    for (const head of [-4, 96, 93, 2, 1.5, Number.NaN]) {
      expectRefused(arena, () => cache.freeRcu(p, head), RangeError, /head is/);
      expectRefused(arena, () => cache.freeRcuNolock(p, head), RangeError, /head is/);
    }
    cache.free(p);
  });
});

describe('a barrier', () => {
  it('waits for a batch that another thread has in its hands', () => {
    const { arena, other, cache } = setup();
    const theirs = other.openCache('c');
    for (const p of allocMany(theirs, 5)) theirs.freeRcu(p);
    Object.assign(arena.rcu, { limitMs: 20, onStall: vi.fn() });
    const { kfreeRcu } = inside(other);
    const freeBulk = theirs.freeBulkAfterGracePeriod.bind(theirs);
    let refused: unknown;
    theirs.freeBulkAfterGracePeriod = (list, n) => {
      expect(pending(arena), 'they are in no list').toBe(0);
      try {
        cache.rcuBarrier();
      } catch (error) {
        refused = error;
      }
      freeBulk(list, n);
    };
    kfreeRcu.submitOwn();
    other.rcu.quiescent();
    expect(refused).toBeInstanceOf(RcuStallError);
    expect((refused as RcuStallError).cpus).toEqual([1]);
    cache.rcuBarrier();
    expectSound(arena);
  });
});

describe('kfreeRcuNolock', () => {
  it('puts an object into the sheaf of this CPU, or links it', () => {
    const arena = boot({ cpus: 4 });
    const other = secondCpu(arena);
    other.rcu.readLock();
    const held = Array.from({ length: 200 }, () => arena.kmalloc(64));
    const cache = arena.openCache('kmalloc-64');
    const first = cache.alloc();
    cache.freeRcu(first); // there is a sheaf now
    const before = cache.stats();
    for (const p of held) arena.kfreeRcuNolock(p, 8);
    const after = cache.stats();
    expect(after.FREE_RCU_SHEAF - before.FREE_RCU_SHEAF).toBe(58);
    expect(after.FREE_RCU_SHEAF_FAIL - before.FREE_RCU_SHEAF_FAIL).toBe(142);
    arena.kfreeRcuNolock(0, 0);
    expect(() => arena.kfreeRcuNolock(held[0]!, 8)).toThrow(SlabBugError);
    expectSound(arena);
    const more = Array.from({ length: 300 }, () => arena.kmalloc(64));
    expect(more.filter((p) => held.includes(p))).toEqual([]);
    for (const p of more) arena.kfree(p);
    other.rcu.readUnlock();
    other.endTurn();
    arena.kfreeRcuBarrier();
    expectSound(arena);
  });

  it('interrupts whatever this thread is doing, at each lock, and nothing is lost', () => {
    const arena = boot({ cpus: 4 });
    const other = secondCpu(arena);
    const before = footprint(arena);
    let calls = 0;
    let depth = 0;
    const places = new Set<number>();
    const callOff = interrupt(arena.cpu.locks, (cls) => {
      if (depth > 0) return;
      depth++;
      const p = arena.kmallocNolock(calls % 2 === 0 ? 64 : 300);
      if (p !== 0) {
        arena.kfreeRcuNolock(p, 4);
        places.add(cls);
        calls++;
      }
      depth--;
    });
    const cache = arena.createCache('c', { size: 96, layer: 'none' });
    const held = allocMany(cache, 600);
    const kmallocs = Array.from({ length: 400 }, () => arena.kmalloc(64));
    for (const p of held.splice(0, 300)) cache.freeRcu(p);
    for (const p of kmallocs) arena.kfreeRcu(p);
    other.rcu.synchronize();
    arena.openCache('kmalloc-64').shrink();
    arena.kfreeRcuBarrier();
    freeMany(cache, held);
    cache.destroy();
    callOff();
    expect(calls).toBeGreaterThan(100);
    expect(places.size).toBeGreaterThan(4);
    arena.kfreeRcuBarrier();
    expectSound(arena);
    expect(footprint(arena)).toEqual(before);
  });
});
