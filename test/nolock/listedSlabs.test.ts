/** kmallocNolock in the layer cpu-slab: the slab whose last object it pops belongs to whoever frees into it next. */
import { expect, it } from 'vitest';
import type { Arena } from '#src/index.js';
import type { PagePtr } from '#src/page/index.js';
import { boot, expectSound, inside, MiB, secondCpu } from '../cache/support/arena.js';

/** Two full slabs of kmalloc-64, each with its objects. */
function fullSlabs(arena: Arena): Array<[PagePtr, number[]]> {
  const { slabs, kmallocs } = inside(arena);
  const cache = kmallocs.bucket(64);
  const all = Array.from({ length: 4 * cache.objsPerSlab }, () => arena.kmalloc(64));
  arena.endTurn();
  cache.shrink();
  const bySlab = new Map<PagePtr, number[]>();
  for (const p of all) {
    const page = slabs.slabOf(p);
    bySlab.set(page, [...(bySlab.get(page) ?? []), p]);
  }
  return [...bySlab].filter(([, objects]) => objects.length === cache.objsPerSlab);
}

it('a free between its pop and its look at the freelist leaves the slab to the CPU that freed', () => {
  const arena = boot({ bytes: 8 * MiB, cpus: 2, layer: 'cpu-slab', maxCaches: 40 });
  const other = secondCpu(arena);
  const [[first, a], [second, b]] = fullSlabs(arena) as [[PagePtr, number[]], [PagePtr, number[]]];
  const objects = new Map([
    [first, a],
    [second, b],
  ]);
  // One free object in each, and both on the node's list.
  for (const each of [a, b]) other.kfree(each.pop()!);
  other.endTurn();
  inside(arena).kmallocs.bucket(64).shrink();
  arena.endTurn();
  const { slabs } = inside(arena) as unknown as {
    slabs: { popObject(s: unknown, page: PagePtr): number };
  };
  const { popObject } = slabs;
  let freed = 0;
  slabs.popObject = (s, page) => {
    const p = popObject.call(slabs, s, page);
    const owned = freed++ === 0 ? objects.get(page)?.pop() : undefined;
    if (owned !== undefined) other.kfree(owned);
    return p;
  };
  const p = arena.kmallocNolock(64);
  slabs.popObject = popObject;
  expect(p).not.toBe(0);
  expect(freed).toBeGreaterThan(0);
  expect(a.length + b.length, 'the free in between').toBe(
    2 * inside(arena).kmallocs.bucket(64).objsPerSlab - 3,
  );
  for (const each of [arena, other]) each.endTurn();
  expectSound(arena);
  arena.kfree(p);
  arena.endTurn();
  expectSound(arena);
});
