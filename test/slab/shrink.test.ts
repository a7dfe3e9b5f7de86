import { describe, expect, it } from 'vitest';
import { boot, expectSound, inside, nodeCounts, partialList } from '../cache/support/arena.js';
import { fullSlabs, slabFree } from './support.js';

describe('shrinking a node', () => {
  it('gives empty slabs back and puts the fullest slabs first', () => {
    const arena = boot();
    const cache = arena.createCache('c', { size: 192 });
    cache.minPartial = 100;
    const slabs = fullSlabs(arena, cache, 6);
    const free = [21, 5, 20, 1, 21, 5];
    for (const [i, slab] of slabs.entries()) slabFree(arena, cache, slab.slice(0, free[i]));
    const used = arena.meminfo().usedPages;
    expect(inside(arena).slabs.shrinkNode(cache.desc, 0)).toBe(4);
    expect(arena.meminfo().usedPages).toBe(used - 2);
    expect(partialList(arena, cache).map(({ objects, inuse }) => objects - inuse)).toEqual([1, 5, 5, 20]);
    expect(nodeCounts(arena, cache)).toEqual({ partial: 4, slabs: 4, objects: 84 });
    expectSound(arena);
  });

  it('leaves slabs with more than 32 free objects behind the others, in their order', () => {
    const arena = boot();
    const cache = arena.createCache('c', { size: 64 });
    const slabs = fullSlabs(arena, cache, 5);
    const free = [40, 32, 60, 33, 2];
    for (const [i, slab] of slabs.entries()) slabFree(arena, cache, slab.slice(0, free[i]));
    inside(arena).slabs.shrinkNode(cache.desc, 0);
    expect(partialList(arena, cache).map(({ objects, inuse }) => objects - inuse)).toEqual([
      2, 32, 40, 60, 33,
    ]);
    expectSound(arena);
  });

  it('says 0 when no slab is left', () => {
    const arena = boot();
    const cache = arena.createCache('c', { size: 192 });
    const used = arena.meminfo().usedPages;
    for (const slab of fullSlabs(arena, cache, 3)) slabFree(arena, cache, slab);
    expect(inside(arena).slabs.shrinkNode(cache.desc, 0)).toBe(0);
    expect(nodeCounts(arena, cache)).toEqual({ partial: 0, slabs: 0, objects: 0 });
    expect(arena.meminfo().usedPages).toBe(used);
    expect(partialList(arena, cache)).toEqual([]);
    expectSound(arena);
  });
});
