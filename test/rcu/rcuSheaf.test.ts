/** The rcu_free sheaf of a CPU, when somebody else takes it: a barrier, shrink, or who reaps its thread. */
import { describe, expect, it } from 'vitest';
import { Pcs, pcsOf } from '#src/cpu/index.js';
import type { Arena, KmemCache, LockPolicy } from '#src/index.js';
import { virtToPage } from '#src/page/index.js';
import {
  allocMany,
  barnSizes,
  boot,
  expectSound,
  pagesOf,
  secondCpu,
  sheafAt,
  sheafSizes,
} from '../cache/support/arena.js';
import { dying } from './support.js';

/** What validate says, but for what a death has lost, with a word. */
const unsound = (arena: Arena) => arena.validate().filter(({ invariant }) => invariant !== 'I10');

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

interface RcuInside {
  installRcuSheaf(): boolean;
  rcuSheafWaits(): void;
  count(item: number, n?: number): void;
}

describe.each(['turn', 'op'] as LockPolicy[])('of a thread that died with it, policy %s', (lockPolicy) => {
  const setup = () => {
    const arena = boot({ bytes: 4 << 20, maxCaches: 30, lockPolicy });
    const cache = arena.createCache('c', { size: 64 });
    const other = secondCpu(arena);
    const theirs = other.openCache('c');
    const pcs = pcsOf(arena.geometry, 1, cache.desc.slot);
    return { arena, cache, other, theirs, pcs, internals: theirs as unknown as RcuInside };
  };

  it('is not a full one when it has no object yet', () => {
    const { arena, cache, theirs, pcs, internals } = setup();
    const [p] = allocMany(theirs, 1) as [number];
    const { installRcuSheaf } = internals;
    dying(arena, (die) => {
      internals.installRcuSheaf = () => {
        installRcuSheaf.call(theirs);
        expect(sheafAt(arena, arena.i32[pcs + Pcs.rcuFree]!).size).toBe(0);
        return die();
      };
      theirs.freeRcu(p);
    });
    expect(arena.cpuDead(1).notes.join()).toContain('died while freeing');
    cache.rcuBarrier();
    expect(barnSizes(arena, cache).full).not.toContain(0);
    const got = allocMany(cache, 200);
    expect(new Set(got).size).toBe(200);
    expect(sheafSizes(arena, cache).main).toBeLessThanOrEqual(cache.sheafCapacity);
    for (const q of got) cache.free(q);
    arena.endTurn();
    expect(unsound(arena)).toEqual([]);
  });

  it('does not run over when it was full', () => {
    const { arena, cache, other, theirs, pcs, internals } = setup();
    const capacity = cache.sheafCapacity;
    const objects = allocMany(theirs, capacity);
    const [last] = objects.splice(-1) as [number];
    for (const p of objects) theirs.freeRcu(p);
    other.endTurn();
    const { count } = internals;
    dying(arena, (die) => {
      internals.count = (item, n) => {
        count.call(theirs, item, n);
        if (sheafAt(arena, arena.i32[pcs + Pcs.rcuFree]!).size === capacity) die();
      };
      theirs.freeRcu(last);
    });
    expect(arena.cpuDead(1).notes.join()).toContain('died while freeing');
    const heir = secondCpu(arena);
    const heirs = heir.openCache('c');
    for (const p of allocMany(heirs, 3)) heirs.freeRcu(p);
    heir.endTurn();
    expect(sheafAt(arena, arena.i32[pcs + Pcs.rcuFree]!).size).toBe(3);
    cache.rcuBarrier();
    expect(new Set(allocMany(cache, 200)).size).toBe(200);
    arena.endTurn();
    expect(unsound(arena)).toEqual([]);
  });
});
