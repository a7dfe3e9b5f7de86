import { setFlagsFromString } from 'node:v8';
import { expect, it } from 'vitest';
import * as cache from '#src/cache/index.js';
import * as cpu from '#src/cpu/index.js';
import { Arena } from '#src/index.js';
import * as page from '#src/page/index.js';
import * as percpu from '#src/percpu/index.js';
import * as rcu from '#src/rcu/index.js';
import * as sheaf from '#src/sheaf/index.js';
import * as slab from '#src/slab/index.js';
import { Superblock } from '#src/struct/index.js';
import * as sync from '#src/sync/index.js';

setFlagsFromString('--allow-natives-syntax');
const hasFastProperties = new Function('o', 'return %HasFastProperties(o)') as (o: object) => boolean;
setFlagsFromString('--no-allow-natives-syntax');

const layers = { cache, cpu, page, percpu, rcu, sheaf, slab, sync, struct: { Superblock } };
const layouts = Object.entries(layers).flatMap(([layer, names]) =>
  Object.entries(names)
    .filter(([, value]) => typeof value === 'object' && value !== null && 'SIZEOF' in value)
    .map(([name, layout]) => [`${layer}.${name}`, layout as object] as const),
);

it('tells a dictionary from an object with fields', () => {
  const grown: Record<string, number> = {};
  for (let i = 0; i < 60; i++) grown[`field${i}`] = i;
  expect(hasFastProperties(grown)).toBe(false);
  expect(hasFastProperties({ ...grown })).toBe(true);
});

it('makes no dictionaries of layouts: compiled code would search them by name', () => {
  expect(layouts.length).toBeGreaterThan(15);
  expect(layouts.filter(([, layout]) => !hasFastProperties(layout)).map(([name]) => name)).toEqual([]);
});

it('makes none of the geometry either, with the thread that creates an arena and with one that attaches', () => {
  const arena = Arena.create({ bytes: 4 << 20 });
  const attached = Arena.attach(arena.handle);
  expect([arena, attached].map(({ geometry }) => hasFastProperties(geometry))).toEqual([true, true]);
});
