/** Operations nest on other caches. Whoever dies in one of those was moving that cache's sheaves. */
import { describe, expect, it } from 'vitest';
import { Pcs, pcsOf } from '#src/cpu/index.js';
import { type Arena, defineCache, type KmemCache } from '#src/index.js';
import { Barn, barnOf } from '#src/sheaf/index.js';
import { LockClass } from '#src/sync/index.js';
import { allocMany, boot, freeMany, secondCpu, sheafSizes } from '../cache/support/arena.js';
import { cutIn } from '../slab/support.js';
import { dying } from './support/dying.js';

let construct: (() => void) | undefined;
const outer = defineCache('outer', {
  size: 512,
  ctor: () => {
    construct?.();
    return 0;
  },
});

/** Main and spare of CPU 1 full, and an empty sheaf in the barn: its next free exchanges the two. */
function fillUp(arena: Arena, cache: KmemCache, theirs: KmemCache, objects: number[]): void {
  const mine = allocMany(cache, 3 * cache.sheafCapacity);
  freeMany(cache, mine);
  const barn = barnOf(arena.cpu, cache.desc, 0);
  while (arena.i32[barn + Barn.nrEmpty] === 0) cache.alloc();
  arena.endTurn();
  const isFull = ({ main, spare }: { main: number; spare: number | null }) =>
    main === cache.sheafCapacity && spare === cache.sheafCapacity;
  while (!isFull(sheafSizes(arena, cache, 1))) theirs.free(objects.pop()!);
}

describe('a thread that dies in an operation on one cache within an operation on another', () => {
  it('leaves a sheaf that the barn has already: the reaper does not touch it', () => {
    const arena = boot({ bytes: 4 << 20, maxCaches: 30, lockdep: false });
    arena.createCache(outer);
    const cache = arena.createCache('inner', { size: 1024 });
    const other = secondCpu(arena);
    const [theirOuter, theirs] = [other.openCache(outer), other.openCache('inner')];
    const objects = allocMany(theirs, 6 * cache.sheafCapacity);
    fillUp(arena, cache, theirs, objects);
    other.endTurn();
    dying(arena, (die) => {
      construct = () => {
        // The full main is in the barn, and the empty one not yet in its place.
        cutIn(other, LockClass.Barn, 'after unlock', 1, die);
        theirs.free(objects.pop()!);
      };
      theirOuter.alloc();
    });
    construct = undefined;
    const pcs = (cpu: number) => pcsOf(arena.geometry, cpu, cache.desc.slot);
    const sheaf = arena.i32[pcs(1) + Pcs.main]!;
    while (arena.i32[pcs(0) + Pcs.main] !== sheaf) cache.alloc();
    const p = cache.alloc();
    arena.endTurn();
    const left = sheafSizes(arena, cache).main;
    expect(arena.cpuDead(1).notes.join()).toMatch(/inner: the sheaves of CPU 1 were given up/);
    expect(sheafSizes(arena, cache).main).toBe(left);
    const heir = secondCpu(arena);
    heir.openCache('inner').free(p);
    expect(cache.alloc()).not.toBe(p);
    expect(arena.i32[pcs(1) + Pcs.main]).not.toBe(arena.i32[pcs(0) + Pcs.main]);
  });
});
