/** A quarantine whose objects find a lock stuck when they leave: they are in one place afterwards, never in two. */
import { describe, expect, it } from 'vitest';
import { type Arena, type KmemCache, type Layer, LockError } from '#src/index.js';
import { zoneLock, zoneOf } from '#src/page/index.js';
import { listLock, nodeOf } from '#src/slab/index.js';
import { LockClass, type LockClassId, type LockPtr } from '#src/sync/index.js';
import { allocMany, boot, expectSound, freeMany, secondCpu } from '../cache/support/arena.js';

const LAYERS: Layer[] = ['sheaves', 'percpu-array', 'cpu-slab', 'none'];

/** Runs `action` while another CPU holds that lock, for longer than this one waits. */
function whileStuck(arena: Arena, other: Arena, lock: LockPtr, cls: LockClassId, action: () => void): void {
  const { limitMs } = arena.cpu.locks;
  other.cpu.locks.lock(lock, cls);
  arena.cpu.locks.limitMs = 10;
  try {
    action();
  } finally {
    arena.cpu.locks.limitMs = limitMs;
    other.cpu.locks.unlock(lock, cls);
  }
}

function waiting(cache: KmemCache): number {
  let n = 0;
  cache.forEachCached((_p, place) => {
    if (place.startsWith('the quarantine')) n++;
  });
  return n;
}

function setup(layer: Layer): { arena: Arena; other: Arena; cache: KmemCache } {
  const arena = boot();
  const cache = arena.createCache('c', { size: 1024, layer, quarantine: 1024 * 64 });
  cache.minPartial = 0;
  return { arena, other: secondCpu(arena), cache };
}

describe.each(LAYERS)('layer %s', (layer) => {
  it('list_lock: they wait on, and leave when it is free', () => {
    const { arena, other, cache } = setup(layer);
    freeMany(cache, allocMany(cache, 60));
    arena.endTurn();
    const lock = listLock(nodeOf(arena.i32, cache.desc, 0));
    whileStuck(arena, other, lock, LockClass.ListLock, () => {
      expect(() => cache.drainQuarantine()).toThrow(LockError);
      expect(() => cache.drainQuarantine()).toThrow(LockError);
    });
    expectSound(arena);
    expect(cache.destroy().leaked).toBe(0);
    expectSound(arena);
  });

  it('zone->lock: what ended its slab is gone with it, and is not freed once more', () => {
    const { arena, other, cache } = setup(layer);
    freeMany(cache, allocMany(cache, 64));
    cache.shrink(); // nothing but slabs that are in use from here on
    const objects = allocMany(cache, 64);
    arena.endTurn();
    freeMany(cache, objects);
    arena.endTurn();
    const before = waiting(cache);
    const lock = zoneLock(zoneOf(arena.geometry, 0));
    whileStuck(arena, other, lock, LockClass.Zone, () => {
      expect(() => cache.drainQuarantine()).toThrow(LockError);
    });
    const left = waiting(cache);
    expect(left).toBeLessThan(before);
    cache.drainQuarantine();
    // Of the slab that had to end nothing is left but its pages, in no list and in no count.
    const wrong = arena.validate().filter(({ invariant }) => invariant !== 'I11' && invariant !== 'I22');
    expect(wrong).toEqual([]);
    expect(cache.debug.errors).toBe(0);
    const again = allocMany(cache, 200);
    expect(new Set(again).size).toBe(200);
    freeMany(cache, again);
    arena.endTurn();
  });
});
