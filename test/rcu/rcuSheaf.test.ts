/** The rcu_free sheaf of a CPU, when somebody else takes it: a barrier, shrink, or who reaps its thread. */
import { describe, expect, it } from 'vitest';
import type { Arena, KmemCache } from '#src/index.js';
import { virtToPage } from '#src/page/index.js';
import { allocMany, boot, expectSound, pagesOf, secondCpu } from '../cache/support/arena.js';

const TAKERS: Record<string, (arena: Arena, cache: KmemCache, other: Arena) => void> = {
  'a barrier': (_, cache) => cache.rcuBarrier(),
  shrink: (_, cache, other) => {
    other.rcu.readLock(); // otherwise it is over at once, and the sheaf flushed
    cache.shrink();
    other.rcu.readUnlock();
    other.endTurn();
  },
  'its reaper': (arena) => arena.cpuDead(1),
};

describe.each(Object.keys(TAKERS))('taken by %s', (who) => {
  it('goes to the barn of the node whose objects it has', () => {
    const arena = boot({ bytes: 16 << 20, nodes: 2, maxCaches: 30 });
    const cache = arena.createCache('c', { size: 64 });
    const other = secondCpu(arena);
    const theirs = other.openCache('c');
    const nodeOf = (p: number): number => pagesOf(arena).nodeOf(virtToPage(arena.geometry, p));
    const objects = allocMany(theirs, 30);
    expect(new Set(objects.map(nodeOf))).toEqual(new Set([1]));
    for (const p of objects) theirs.freeRcu(p);
    other.endTurn();
    TAKERS[who]!(arena, cache, other);
    arena.rcu.barrier();
    cache.rcuBarrier();
    expect(new Set(allocMany(cache, 30).map(nodeOf))).toEqual(new Set([0]));
    arena.endTurn();
    expectSound(arena);
  });
});
