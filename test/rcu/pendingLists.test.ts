/** What a write to an object that waits in a list of kfree_rcu does to whoever walks the list. */
import { expect, it } from 'vitest';
import type { Layer } from '#src/struct/index.js';
import { boot, expectSound, MiB } from '../cache/support/arena.js';

it.each<[Layer, string]>([
  ['none', 'to itself'],
  ['cpu-slab', 'to itself'],
  ['none', 'to another'],
  ['none', 'out of the arena'],
])('layer %s: links that were overwritten and lead %s are found, and nothing loops', (layer, where) => {
  const arena = boot({ bytes: 2 * MiB, cpus: 2, layer });
  const cache = arena.createCache('c', { size: 64 });
  const held: number[] = [];
  for (let p = cache.alloc(); p !== 0; p = cache.alloc()) held.push(p);
  // Without memory for a page of addresses, objects are linked through their own words.
  for (const p of held) cache.freeRcu(p, 0);
  const links = held.map((p) => arena.i32[p >> 2]!);
  for (const [i, p] of held.entries()) {
    const next = held[(i + 7) % held.length]!;
    arena.i32[p >> 2] = where === 'to itself' ? p >> 2 : where === 'to another' ? next >> 2 : 0x7fff_fff0;
  }
  expect(arena.validate().length).toBeGreaterThan(0);
  for (const [i, p] of held.entries()) arena.i32[p >> 2] = links[i]!;
  arena.kfreeRcuBarrier();
  expectSound(arena);
});
