/** Groups that are ended by another thread at the worst moment: nobody reads or writes their memory afterwards. */
import { expect, it } from 'vitest';
import { MemoryGroupStruct } from '#src/cache/groups/memoryGroup.js';
import { SLAB_ACCOUNT } from '#src/index.js';
import { boot, expectSound, inside, MiB, secondCpu } from '../cache/support/arena.js';

const GROUP_BYTES = MemoryGroupStruct.SIZEOF * 4;

it('a thread that begins to work for a group is counted before it can be ended', () => {
  const arena = boot({ bytes: 4 * MiB, maxCaches: 30 });
  const other = secondCpu(arena);
  const group = arena.groups.create('g');
  const theirs = other.groups.open('g');
  const caches = inside(other);
  const { withSlabMutex } = caches;
  let refused: unknown;
  // As soon as the other thread gives slab_mutex up.
  caches.withSlabMutex = (body) => {
    const result = withSlabMutex.call(caches, body);
    caches.withSlabMutex = withSlabMutex;
    try {
      arena.groups.destroy(group);
    } catch (error) {
      refused = error;
    }
    return result as never;
  };
  other.groups.workFor(theirs);
  expect(String(refused)).toMatch(/group g has 1 threads and groups/);
  other.groups.workFor(null);
  arena.groups.destroy(group);
  expectSound(arena);
});

it('an uncharge that was the last looks at nothing of the group any more', () => {
  const arena = boot({ bytes: 4 * MiB, maxCaches: 30 });
  const other = secondCpu(arena);
  const group = arena.groups.create('g');
  const cache = arena.createCache('charged', { size: 64, flags: SLAB_ACCOUNT });
  arena.groups.workFor(group);
  const p = cache.alloc();
  arena.groups.workFor(null);
  arena.endTurn();
  const theirs = other.openCache('charged');
  theirs.free(theirs.alloc());
  const stranger = arena.kzalloc(4096);
  const { add } = Atomics;
  let reused = 0;
  Object.assign(Atomics, {
    add(m: Int32Array, i: number, value: number): number {
      const before = add(m, i, value);
      if (i !== group.ptr + MemoryGroupStruct.usage || reused !== 0) return before;
      // Ended between two steps of the other thread; its memory has a new owner, with a number where `parent` was.
      arena.groups.destroy(group);
      reused = arena.kzalloc(GROUP_BYTES);
      arena.i32[(reused >> 2) + MemoryGroupStruct.parent] = stranger >> 2;
      return before;
    },
  });
  try {
    theirs.free(p);
  } finally {
    Object.assign(Atomics, { add });
  }
  expect(reused).toBe(group.ptr * 4);
  expect([...arena.i32.subarray(stranger >> 2, (stranger + 4096) >> 2)].every((word) => word === 0)).toBe(
    true,
  );
});
