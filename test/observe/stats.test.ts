import { describe, expect, it } from 'vitest';
import { type LockPolicy, STAT_ITEMS } from '#src/index.js';
import { allocMany, boot, freeMany, secondCpu } from '../cache/support/arena.js';

/** Names under /sys/kernel/slab/<cache>, in the order of the kernel's enum. */
const NAMES = `alloc_fastpath alloc_slowpath free_rcu_sheaf free_rcu_sheaf_fail free_fastpath free_slowpath
  free_add_partial free_remove_partial alloc_slab alloc_node_mismatch free_slab order_fallback cmpxchg_double_fail
  sheaf_flush sheaf_refill sheaf_alloc sheaf_free barn_get barn_get_fail barn_put barn_put_fail sheaf_prefill_fast
  sheaf_prefill_slow sheaf_prefill_oversize sheaf_return_fast sheaf_return_slow`
  .split(/\s+/)
  .map((name) => name.toUpperCase());

describe('the counters', () => {
  it('are the 26 of the kernel', () => {
    expect(STAT_ITEMS).toEqual(NAMES);
  });

  it.each(['turn', 'op'] as LockPolicy[])('add up over CPUs, policy %s', (lockPolicy) => {
    const arena = boot({ lockPolicy });
    const cache = arena.createCache('c', { size: 64 });
    const other = secondCpu(arena);
    const theirs = other.openCache('c');
    freeMany(cache, allocMany(cache, 10));
    freeMany(theirs, allocMany(theirs, 7));
    other.endTurn();
    expect(cache.stats()).toMatchObject({ ALLOC_FASTPATH: 17, FREE_FASTPATH: 17 });
    expect(cache.stat('ALLOC_FASTPATH')).toBe(17);
    expect(theirs.stats()).toEqual(cache.stats());
  });

  it('stay with a CPU when its thread goes, and belong to the cache', () => {
    const arena = boot();
    const [a, b] = ['a', 'b'].map((name) => arena.createCache(name, { size: 64 }));
    const other = secondCpu(arena);
    freeMany(other.openCache('a'), allocMany(other.openCache('a'), 5));
    other.offline();
    expect(a!.stat('ALLOC_FASTPATH')).toBe(5);
    expect(b!.stat('ALLOC_FASTPATH')).toBe(0);
  });

  it('every free adds exactly one of FREE_FASTPATH and FREE_SLOWPATH', () => {
    const arena = boot({ cpus: 2, nodes: 2, bytes: 16 << 20 });
    const cache = arena.createCache('c', { size: 500 });
    const other = secondCpu(arena);
    const theirs = other.openCache('c');
    const held = [...allocMany(cache, 700), ...allocMany(theirs, 300)];
    const list = Int32Array.from(held.splice(0, 400));
    cache.freeBulk(list, list.length);
    freeMany(theirs, held);
    other.endTurn();
    const { FREE_FASTPATH, FREE_SLOWPATH, ALLOC_FASTPATH, ALLOC_SLOWPATH } = cache.stats();
    expect(FREE_FASTPATH + FREE_SLOWPATH).toBe(1000);
    expect(ALLOC_FASTPATH + ALLOC_SLOWPATH).toBe(1000);
  });
});
