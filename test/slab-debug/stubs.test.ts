/**
 * What the kernel's user-space tests of data structures do with stubs of the allocator: let so many allocations succeed
 * and then none, do something between a failure and the next attempt, and count what is out. Here the allocator itself
 * runs, and is made to fail.
 */
import { describe, expect, it } from 'vitest';
import { __GFP_NOFAIL, __GFP_NOWARN, GFP_KERNEL, GFP_NOWAIT } from '#src/index.js';
import { boot, expectSound, freeMany, inside, MiB } from '../cache/support/arena.js';

const ATOMIC = GFP_NOWAIT | __GFP_NOWARN;

function setup() {
  const arena = boot({ slabDebug: 'A,marked' });
  const cache = arena.createCache('marked', { size: 64 });
  return { arena, cache, take: (gfp = ATOMIC) => cache.alloc(gfp) };
}

describe('kmem_cache_set_non_kernel', () => {
  it.each([0, 1, 5])('lets %i allocations that may not wait succeed, then none', (n) => {
    const { arena, cache, take } = setup();
    const fault = arena.failslab({ interval: 1, space: n, ignoreGfpWait: true });
    const objects = Array.from({ length: n }, () => take());
    expect(objects).not.toContain(0);
    expect([take(), take()]).toEqual([0, 0]);
    objects.push(take(GFP_KERNEL), take(GFP_KERNEL | __GFP_NOFAIL));
    expect(objects).not.toContain(0);
    expect([take(), fault.injected, fault.seen]).toEqual([0, 3, n + 3]);
    const list = new Int32Array(4);
    expect(cache.allocBulk(list, 4, ATOMIC)).toBe(false);
    arena.failslab({ interval: 1, space: 1, ignoreGfpWait: true });
    expect(cache.allocBulk(list, 4, ATOMIC), 'set anew').toBe(true);
    arena.failslab({});
    freeMany(cache, [...objects, ...list]);
    expect(cache.destroy().leaked).toBe(0);
    expectSound(arena);
  });

  it('fails a prefill and a refill, which leaves the sheaf as it is', () => {
    const { arena, cache } = setup();
    const fault = arena.failslab({ interval: 1 });
    expect(cache.prefill(4)).toBeNull();
    arena.failslab({});
    const sheaf = cache.prefill(4)!;
    const had = sheaf.size;
    arena.failslab({ interval: 1 });
    expect(cache.refill(sheaf, had + 1)).toBeNull();
    expect([sheaf.size, fault.injected]).toEqual([had, 1]);
    const p = sheaf.alloc();
    expect(p, 'what is set aside cannot fail').not.toBe(0);
    cache.return(sheaf);
    cache.free(p);
    expect(cache.destroy().leaked).toBe(0);
  });
});

describe('kmem_cache_set_callback', () => {
  it('calls once after failures, before the next allocation that may wait', () => {
    const { arena, cache, take } = setup();
    const said: string[] = [];
    arena.failslab({ interval: 1, space: 1, ignoreGfpWait: true, callback: () => said.push('called') });
    const objects = [take(GFP_KERNEL), take()];
    expect(said, 'nothing has failed').toEqual([]);
    expect([take(), take(), said]).toEqual([0, 0, []]);
    objects.push(take(GFP_KERNEL));
    expect(said).toEqual(['called']);
    objects.push(take(GFP_KERNEL));
    expect(said).toEqual(['called']);
    take();
    objects.push(take(GFP_KERNEL));
    expect(said).toEqual(['called', 'called']);
    arena.failslab({});
    freeMany(cache, objects);
    expectSound(arena);
  });

  it('may allocate, free and set what fails next', () => {
    const { arena, cache, take } = setup();
    let inner = 0;
    const callback = () => {
      arena.failslab({});
      inner = take();
    };
    arena.failslab({ interval: 1, ignoreGfpWait: true, callback });
    expect(take()).toBe(0);
    const outer = take(GFP_KERNEL);
    expect(inner).not.toBe(0);
    expect(outer).not.toBe(inner);
    freeMany(cache, [inner, outer]);
    expect(cache.destroy().leaked).toBe(0);
  });

  it('refuses what is no function and no boolean', () => {
    const { arena } = setup();
    expect(() => arena.failslab({ callback: 1 as never })).toThrow(/callback is 1; it must be a function/);
    expect(() => arena.failslab({ ignoreGfpWait: 1 as never })).toThrow(
      /ignoreGfpWait is 1; it must be a boolean/,
    );
  });
});

describe('nr_allocated and nr_tallocated', () => {
  it('are the objects after a shrink, and the calls', () => {
    const { arena, cache, take } = setup();
    const fault = arena.failslab({});
    const objects = Array.from({ length: 150 }, () => take());
    freeMany(cache, objects.splice(0, 70));
    const sheaf = cache.prefill(10)!;
    objects.push(sheaf.alloc());
    cache.return(sheaf);
    cache.shrink();
    const { objects: live, stats } = arena.cacheInfo().find(({ name }) => name === 'marked')!;
    expect(live).toBe(81);
    expect(fault.seen).toBe(151);
    expect(stats.ALLOC_FASTPATH + stats.ALLOC_SLOWPATH).toBe(150);
    freeMany(cache, objects);
  });
});

describe('a maple tree whose nodes fail', () => {
  /** A store of many ranges under each limit; a failed one changes nothing and is done again when memory is there. */
  it('is as it was after each failure, and holds all that was stored', () => {
    const arena = boot({ bytes: 16 * MiB, slabDebug: 'A,maple_node' });
    const { nodes } = arena.maple;
    const tree = arena.maple.create()!;
    let failed = 0;
    for (let i = 0; i < 300; i++) {
      arena.failslab({ interval: 1, space: i % 3, ignoreGfpWait: true });
      const before = tree.ranges();
      if (!tree.store(i * 10, i * 10 + 5, i + 1, ATOMIC)) {
        failed++;
        expect(tree.ranges()).toEqual(before);
        expect(tree.store(i * 10, i * 10 + 5, i + 1, GFP_KERNEL)).toBe(true);
      }
    }
    expect(failed).toBeGreaterThan(10);
    expect(tree.ranges().filter(({ entry }) => entry !== 0)).toHaveLength(300);
    expect(tree.validate()).toEqual([]);
    arena.failslab({});
    arena.maple.destroy(tree);
    arena.kfreeRcuBarrier();
    expectSound(arena);
    nodes.shrink();
    expect(arena.cacheInfo().find(({ name }) => name === nodes.name)!.objects).toBe(0);
    expect(inside(arena).failslab.injected).toBe(0);
  });
});
