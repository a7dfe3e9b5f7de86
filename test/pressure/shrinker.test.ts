/** Shrinkers, and the report of an allocation that failed all the same. */

import { describe, expect, it } from 'vitest';
import { __GFP_NOWARN, type Arena, CpuError, GFP_NOWAIT, OutOfMemoryError } from '#src/index.js';
import { boot, expectSound, MiB, pagesOf } from '../cache/support/arena.js';
import { takeObjects, takePages } from './support.js';

/** An arena whose pages are all in a cache of the program's own, which a shrinker can empty. */
function full(): { arena: Arena; lru: number[]; scans: number[] } {
  const arena = boot({ bytes: 4 * MiB });
  const lru = takePages(arena);
  return { arena, lru, scans: [] };
}

describe('a shrinker', () => {
  it('is asked before an allocation fails, for a half first', () => {
    const { arena, lru, scans } = full();
    arena.registerShrinker({
      name: 'lru',
      count: () => lru.length,
      scan: (n) => {
        scans.push(n);
        for (const p of lru.splice(0, n)) arena.freePages(p, 0);
        return n;
      },
    });
    const had = lru.length;
    expect(arena.allocPages(0, GFP_NOWAIT), 'not for one that may not wait').toBe(0);
    expect(scans).toEqual([]);
    expect(arena.allocPages(3)).not.toBe(0);
    expect(scans).toEqual([Math.ceil(had / 2)]);
    expectSound(arena);
  });

  it('may allocate, from the reserve, and does not reclaim again', () => {
    const { arena, lru } = full();
    let depth = 0;
    let deepest = 0;
    const got: number[] = [];
    arena.registerShrinker({
      name: 'greedy',
      count: () => 1,
      scan: () => {
        deepest = Math.max(deepest, ++depth);
        got.push(arena.allocPages(0), arena.kmalloc(64));
        arena.freePages(lru.pop()!, 0);
        expect(pagesOf(arena).memalloc).toBe(true);
        depth--;
        return 1;
      },
    });
    expect(arena.allocPages(0)).not.toBe(0);
    expect(deepest).toBe(1);
    expect(got[0], 'there was no page at all').toBe(0);
    expect(pagesOf(arena).memalloc).toBe(false);
    arena.endTurn();
    expectSound(arena);
  });

  it('that throws or lies is reported, and the others still run', () => {
    const { arena, lru } = full();
    const fail = () => {
      throw new Error('on purpose');
    };
    arena.registerShrinker({ name: 'thrower', count: () => 1, scan: fail });
    arena.registerShrinker({ name: 'liar', count: () => -1, scan: () => 0 });
    arena.registerShrinker({
      name: 'leaver',
      count: () => 1,
      scan: () => {
        arena.offline();
        return 0;
      },
    });
    const end = arena.registerShrinker({
      name: 'good',
      count: () => lru.length,
      scan: () => {
        arena.freePages(lru.pop()!, 0);
        return 1;
      },
    });
    expect(arena.allocPages(0)).not.toBe(0);
    expect(arena.reclaimInfo().obstacles).toEqual([
      'shrinker thrower: on purpose',
      'shrinker liar: count() returned -1',
      'shrinker leaver: a shrinker may not take its thread offline',
    ]);
    end();
    end();
    const left = lru.length;
    takePages(arena);
    expect(lru.length).toBe(left);
    expectSound(arena);
  });

  it('survives that its thread goes offline and comes back, and must be one', () => {
    const arena = boot({ bytes: 4 * MiB });
    let asked = 0;
    arena.registerShrinker({ name: 'n', count: () => ++asked * 0, scan: () => 0 });
    arena.offline();
    expect(() => arena.registerShrinker({ name: 'x', count: () => 0 } as never)).toThrow(TypeError);
    expect(() => arena.registerShrinker(null as never)).toThrow(/shrinker is null; it must be an object/);
    expect(() => arena.reclaimWorker()).toThrow(CpuError);
    arena.online();
    takePages(arena);
    expect(asked).toBeGreaterThan(0);
  });
});

describe('the report of a failed allocation', () => {
  it('names cache, sizes, orders, and what each node has', () => {
    const arena = boot({ bytes: 4 * MiB });
    const cache = arena.createCache('victim', { size: 1000 });
    expect(arena.lastOom).toBeUndefined();
    const held = takeObjects(cache);
    const [head, sizes, node, zone] = arena.lastOom!.split('\n');
    expect(head).toBe(
      'out of memory: CPU 0 of node 0 wanted an object of victim on any node, gfp 0x2 (GFP_KERNEL)',
    );
    expect(sizes).toBe(
      `  cache victim: object size 1000, stride ${cache.size}, order ${cache.order}, least order 0`,
    );
    expect(node).toMatch(new RegExp(`^ {2}node 0: \\d+ slabs, ${held.length} objects, 0 free$`));
    expect(zone).toMatch(
      /^ {2}zone 0: \d+ of \d+ pages free, min \d+, low \d+, high \d+; blocks by order: [\d ]+$/,
    );
    expectSound(arena);
  });

  it('is thrown by the orThrow form', () => {
    const arena = boot({ bytes: 4 * MiB });
    const cache = arena.createCache('victim', { size: 1000 });
    takeObjects(cache);
    expect(() => cache.allocOrThrow()).toThrow(OutOfMemoryError);
    expect(() => cache.allocOrThrow(GFP_NOWAIT)).toThrow(
      /wanted an object of victim .*gfp 0x0 \(GFP_NOWAIT\)/,
    );
    cache.shrink();
    expect(boot().createCache('c', { size: 8 }).allocOrThrow()).not.toBe(0);
  });

  it('is not made with __GFP_NOWARN, nor more than ten times in five seconds', () => {
    const arena = boot({ bytes: 4 * MiB });
    takePages(arena, __GFP_NOWARN);
    expect(arena.lastOom).toBeUndefined();
    takePages(arena);
    expect(arena.lastOom).toMatch(/^out of memory: CPU 0 of node 0 wanted 2\^0 pages of any node/);
    for (let order = 0; order < 10; order++) arena.allocPages(order);
    expect(arena.lastOom).toMatch(/wanted 2\^8 pages/);
    expect(arena.reclaimInfo().failures).toBe(11);
    expect(pagesOf(arena).oom.suppressed).toBe(1);
  });
});
