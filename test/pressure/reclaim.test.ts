/** GFP_KERNEL fails only when nothing that fits is free anywhere: in no CPU, no barn and no partial list. */

import { describe, expect, it, vi } from 'vitest';
import {
  type Arena,
  GFP_ATOMIC,
  GFP_KERNEL,
  GFP_NOWAIT,
  type LockPolicy,
  OutOfMemoryError,
} from '#src/index.js';
import { allocMany, boot, expectSound, freeMany, inside, MiB, secondCpu } from '../cache/support/arena.js';
import { census, NOTHING_FREE, takeObjects, takePages } from './support.js';

const POLICIES: LockPolicy[] = ['turn', 'op'];

describe.each(POLICIES)('the last page is taken, policy %s', (lockPolicy) => {
  const setup = (options = {}) => {
    const arena = boot({ bytes: 4 * MiB, cpus: 3, lockPolicy, ...options });
    return { arena, other: secondCpu(arena, 1), cache: arena.createCache('c', { size: 256 }) };
  };

  it("an object in another CPU's sheaves is found", () => {
    const { arena, other, cache } = setup();
    const theirs = other.openCache('c');
    const [p, ...rest] = allocMany(theirs, 5);
    other.endTurn();
    takeObjects(cache);
    takePages(arena);
    expect(cache.alloc()).toBe(0);
    theirs.free(p!);
    other.endTurn();
    expect(cache.alloc(GFP_NOWAIT), 'who may not wait does not look there').toBe(0);
    expect(cache.alloc(GFP_ATOMIC)).toBe(0);
    expect(cache.alloc(GFP_KERNEL)).toBe(p);
    expect(cache.alloc(GFP_KERNEL)).toBe(0);
    freeMany(cache, [p!, ...rest]);
    arena.endTurn();
    expectSound(arena);
  });

  it('an object in a barn of this node or of another is found', () => {
    const { arena, other, cache } = setup({ bytes: 8 * MiB, nodes: 2, cpus: 4 });
    const there = secondCpu(arena, 3);
    const theirs = there.openCache('c');
    const held = allocMany(theirs, 4 * cache.sheafCapacity);
    takeObjects(cache);
    takePages(arena);
    freeMany(theirs, held);
    there.endTurn();
    arena.endTurn();
    expect(census(arena, cache).barns).toBeGreaterThan(0);
    const again = takeObjects(cache);
    arena.endTurn();
    expect(again.length).toBeGreaterThanOrEqual(held.length);
    expect(census(arena, cache)).toEqual(NOTHING_FREE);
    expect(other.isOnline).toBe(true);
    expectSound(arena);
  });

  it("pages of another cache's free objects are found, also those in sheaves of CPUs that are gone", () => {
    const { arena, other, cache } = setup();
    const rich = other.createCache('rich', { size: 1024 });
    const held = allocMany(rich, 200);
    takePages(arena);
    expect(arena.allocPages(0)).toBe(0);
    freeMany(rich, held.slice(100));
    other.offline();
    const got = allocMany(cache, 100);
    expect(arena.reclaimInfo().pages).toBeGreaterThan(0);
    const mine = arena.openCache('rich');
    freeMany(mine, held.slice(0, 100));
    arena.endTurn();
    expect(arena.kmalloc(5000)).not.toBe(0);
    freeMany(cache, got);
    expectSound(arena);
  });

  it('a bulk allocation finds them too, and takes all or nothing', () => {
    const { arena, other, cache } = setup();
    const theirs = other.openCache('c');
    const held = allocMany(theirs, 60);
    other.endTurn();
    takeObjects(cache);
    takePages(arena);
    for (const p of held) theirs.free(p);
    other.endTurn();
    const out = new Int32Array(200);
    expect(cache.allocBulk(out, 200)).toBe(false);
    arena.endTurn();
    const { slabs, barns, cpus } = census(arena, cache);
    expect(slabs + barns + cpus).toBeGreaterThanOrEqual(60);
    expect(cache.allocBulk(out, 60)).toBe(true);
    expect(new Set(out.subarray(0, 60)).size).toBe(60);
    arena.endTurn();
    expectSound(arena);
  });

  it('a cache is made of what others have in their sheaves, though its maker holds slab_mutex', () => {
    const { arena, other, cache } = setup();
    const rich = other.createCache('rich', { size: 1024 });
    const held = allocMany(rich, 100);
    takePages(arena);
    // Until what the first caches have left is used up.
    let made = 0;
    expect(() => {
      for (; made < 100; made++) arena.createCache(`c${made}`, { size: 64 });
    }).toThrow(OutOfMemoryError);
    freeMany(rich, held);
    other.endTurn();
    expect(arena.createCache('late', { size: 64 }).alloc()).not.toBe(0);
    expect(inside(arena).ownsSlabMutex).toBe(false);
    expect(cache.alloc()).not.toBe(0);
    arena.endTurn();
    expectSound(arena);
  });

  it('when it fails, nothing that fits is free anywhere', () => {
    const { arena, other, cache } = setup();
    const theirs = other.openCache('c');
    const caches = [cache, theirs];
    const held: number[] = [];
    for (let n = 1; ; n++) {
      const p = caches[n % 2]!.alloc();
      if (p === 0) break;
      held.push(p);
      if (n % 7 === 0) caches[(n + 1) % 2]!.free(held.pop()!);
      if (n % 50 === 0) for (const each of [arena, other]) each.endTurn();
    }
    for (const each of [arena, other]) each.endTurn();
    expect(census(arena, cache)).toEqual(NOTHING_FREE);
    expect(arena.meminfo().freePages).toBe(0);
    expectSound(arena);
    freeMany(cache, held);
    arena.endTurn();
    expectSound(arena);
  });
});

describe('a CPU that does not answer', () => {
  it('costs one wait and not one for each cache, and is named in the report', () => {
    const arena = boot({ bytes: 4 * MiB, cpus: 2 });
    const other = secondCpu(arena, 1);
    const names = Array.from({ length: 10 }, (_, i) => `c${i}`);
    const caches = names.map((name) => other.createCache(name, { size: 256 }));
    // In its turn: this thread is that CPU too, so it cannot answer.
    for (const cache of caches) cache.free(cache.alloc());
    takePages(arena, GFP_NOWAIT);
    const slept = vi.spyOn(inside(arena).cpu.lockdep, 'mightSleep');
    takePages(arena);
    const waits = slept.mock.calls.filter(([what]) => what.startsWith('a request for the sheaves'));
    expect(waits).toHaveLength(1);
    expect(arena.reclaimInfo().obstacles).toEqual([
      'CPU 1 did not give up its sheaves within 100 ms: it is blocked within a turn',
    ]);
    expect(arena.lastOom).toMatch(/reclaim: CPU 1 did not give up its sheaves/);
    other.endTurn();
    expectSound(arena);
  });
});

describe('reclaim by this CPU', () => {
  it('gives back sheaves of every cache, and leaves nothing in them', () => {
    const arena = boot({ bytes: 8 * MiB });
    const caches = [64, 192, 1024].map((size) => arena.createCache(`c${size}`, { size }));
    for (const cache of caches) freeMany(cache, allocMany(cache, 300));
    takePages(arena);
    arena.endTurn();
    for (const { name } of caches) {
      const cache = arena.openCache(name);
      expect(census(arena, cache), name).toEqual(NOTHING_FREE);
    }
    expectSound(arena);
  });

  it('names the sheaf that is being filled again when it is done', () => {
    const arena: Arena = boot({ bytes: 8 * MiB });
    const cache = arena.createCache('c', { size: 64 });
    freeMany(cache, allocMany(cache, 300));
    arena.cpu.inHand(4711);
    takePages(arena);
    expect(arena.cpu.sheafInHand).toBe(4711);
    arena.cpu.inHand(0);
    expectSound(arena);
  });
});
