/** Each of the 26 counters counts: the least that moves it. What they are worth in longer stories is in test/oracle. */
import { describe, expect, it } from 'vitest';
import type { KmemCache } from '#src/cache/index.js';
import { type Arena, STAT_ITEMS, type StatItem } from '#src/index.js';
import { allocMany, boot, expectSound, freeMany, inside, moved, secondCpu } from '../cache/support/arena.js';
import { fullSlabs, slabAlloc, slabFree } from '../slab/support.js';

interface Scene {
  arena: Arena;
  other: Arena;
  cache: KmemCache;
}

/** Objects in a sheaf. */
const C = 60;

/** What moves a counter, after what must come before, and by how much. */
const MOVES: Record<StatItem, { before?: (scene: Scene) => void; by: number; move: (scene: Scene) => void }> =
  {
    ALLOC_FASTPATH: { by: 1, move: ({ cache }) => void cache.alloc() },
    ALLOC_SLOWPATH: { by: 1, move: ({ arena, cache }) => void slabAlloc(arena, cache) },
    FREE_RCU_SHEAF: { by: 1, move: ({ cache }) => cache.freeRcu(cache.alloc()) },
    FREE_RCU_SHEAF_FAIL: { by: 1, move: ({ cache }) => cache.freeRcu(cache.allocNode(1)) },
    FREE_FASTPATH: { by: 1, move: ({ cache }) => cache.free(cache.alloc()) },
    FREE_SLOWPATH: { by: 1, move: ({ cache }) => cache.free(cache.allocNode(1)) },
    FREE_ADD_PARTIAL: {
      by: 1,
      move: ({ arena, cache }) => slabFree(arena, cache, [fullSlabs(arena, cache, 1)[0]![0]!]),
    },
    FREE_REMOVE_PARTIAL: {
      by: 1,
      before: keepNoEmptySlab,
      move: ({ arena, cache }) => slabFree(arena, cache, slabAlloc(arena, cache, 2)),
    },
    ALLOC_SLAB: { by: 1, move: ({ arena, cache }) => void slabAlloc(arena, cache) },
    ALLOC_NODE_MISMATCH: { by: 1, move: ({ cache }) => void cache.allocNode(1) },
    FREE_SLAB: {
      by: 1,
      before: keepNoEmptySlab,
      move: ({ arena, cache }) => slabFree(arena, cache, slabAlloc(arena, cache)),
    },
    ORDER_FALLBACK: {
      by: 1,
      move: ({ arena }) => {
        const large = arena.openCache('order');
        arena.failPageAlloc(2);
        arena.allocPages(0);
        slabAlloc(arena, large);
        arena.failPageAlloc(0);
      },
    },
    CMPXCHG_DOUBLE_FAIL: {
      by: 1,
      move: ({ arena, other, cache }) => {
        const [slab] = fullSlabs(arena, cache, 1);
        slabFree(arena, cache, [slab![0]!]);
        const slabs = inside(arena).slabs as unknown as { firstFree(...args: unknown[]): number };
        const original = slabs.firstFree;
        slabs.firstFree = (...args) => {
          slabs.firstFree = original;
          slabFree(other, other.openCache('c'), [slab![2]!]);
          return original.apply(slabs, args);
        };
        slabFree(arena, cache, [slab![1]!]);
      },
    },
    SHEAF_FLUSH: {
      by: C - 1,
      before: ({ cache }) => void cache.alloc(),
      move: ({ cache }) => cache.flushThisCpu(),
    },
    SHEAF_REFILL: { by: C, move: ({ cache }) => void cache.alloc() },
    SHEAF_ALLOC: { by: 1, move: ({ cache }) => void cache.alloc() },
    SHEAF_FREE: {
      by: 1,
      move: ({ cache }) => cache.return(cache.prefill(C + 1)!),
    },
    BARN_GET: { by: 1, before: fillBarn, move: ({ cache }) => void allocMany(cache, 2 * C + 1) },
    BARN_GET_FAIL: { by: 1, move: ({ cache }) => void cache.alloc() },
    BARN_PUT: { by: 1, move: fillBarn },
    BARN_PUT_FAIL: { by: 1, move: ({ cache }) => freeMany(cache, allocMany(cache, 13 * C)) },
    SHEAF_PREFILL_FAST: { by: 1, before: ({ cache }) => void cache.alloc(), move: borrow(1) },
    SHEAF_PREFILL_SLOW: { by: 1, move: borrow(1) },
    SHEAF_PREFILL_OVERSIZE: { by: 1, move: borrow(C + 1) },
    SHEAF_RETURN_FAST: { by: 1, move: borrow(1) },
    SHEAF_RETURN_SLOW: {
      by: 1,
      move: ({ cache }) => {
        const [one, two] = [cache.prefill(1)!, cache.prefill(1)!];
        cache.return(one); // becomes the spare
        cache.return(two);
      },
    },
  };

function borrow(n: number) {
  return ({ cache }: Scene): void => cache.return(cache.prefill(n)!);
}

function keepNoEmptySlab({ cache }: Scene): void {
  cache.minPartial = 0;
}

/** Main, spare and one sheaf of the barn are full. */
function fillBarn({ cache }: Scene): void {
  freeMany(cache, allocMany(cache, 3 * C));
}

describe('a counter of the 26', () => {
  it.each(STAT_ITEMS)('%s counts', (item) => {
    const arena = boot({ cpus: 2, nodes: 2, barnFullMax: 10 });
    const other = secondCpu(arena);
    const cache = arena.createCache('c', { size: 64 });
    arena.createCache('order', { size: 1024 });
    const scene = { arena, other, cache };
    MOVES[item].before?.(scene);
    const watched = item === 'ORDER_FALLBACK' ? arena.openCache('order') : cache;
    expect(moved(watched, () => MOVES[item].move(scene))[item]).toBe(MOVES[item].by);
    other.offline();
    expectSound(arena);
  });
});
