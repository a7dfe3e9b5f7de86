/** Caches, of every layer. */
import type { CacheHandles, KmemCache, PrefilledSheaf } from '../../cache/index.js';
import * as A from './args.js';
import { CACHE_INTERNAL } from './internal.js';
import { call, getter, type Rule, type Rules, type Surface } from './rule.js';
import type { World } from './world.js';

const given: Rule['done'] = ({ world, on, result }) => {
  const cache = on as KmemCache;
  world.handedOut(result, cache.primary, cache.objectSize);
};
const taken: Rule['done'] = ({ world, on, args: [p] }) => world.takenBack(p, (on as KmemCache).primary);

/** Arguments that depend on the cache: the driver calls with the one that it drew. */
const own = (world: World): number => world.have(world.target as KmemCache);
const loan = (world: World): unknown =>
  world.loans.find(({ cache }) => cache === world.target)?.sheaf ?? world.rng.pick(world.forgeries);

const handle = ({ handled, handles }: World): number => {
  const fresh = handled.size === 0 ? handles.alloc() : 0;
  if (fresh !== 0) handled.add(fresh);
  return [...handled][0] ?? 0;
};

const owned = (world: World): Int32Array => Int32Array.from(new Set([own(world), own(world), own(world)]));

const keep = (world: World, cache: KmemCache, sheaf: unknown): void => {
  if (sheaf !== null) world.loans.push({ sheaf: sheaf as PrefilledSheaf, cache });
};

const drop = (world: World, sheaf: unknown): void => {
  const at = world.loans.findIndex((each) => each.sheaf === sheaf);
  if (at < 0) return world.fault('a sheaf was accepted that is not lent');
  world.loans.splice(at, 1);
};

const objects: Rules = {
  alloc: call([A.gfp], given),
  free: call([own], taken),
  allocOrThrow: call([A.gfp], given),
  allocNode: call([A.node, A.gfp], given),
  freeRcu: call([own, A.head], taken),
  freeRcuNolock: call([own, () => 4], taken),
  allocBulk: call([A.list, A.count, A.gfp], ({ world, on, args: [list, n], result }) => {
    const { primary, objectSize } = on as KmemCache;
    if (result !== true) return world.freeSome(10);
    for (let i = 0; i < (n as number); i++) world.handedOut((list as Int32Array)[i], primary, objectSize);
  }),
  freeBulk: call([owned, () => 1], ({ world, on, args: [list, n] }) => {
    for (let i = 0; i < (n as number); i++) {
      world.takenBack((list as Int32Array)[i], (on as KmemCache).primary);
    }
  }),
  prefill: call([A.count, A.gfp], ({ world, on, args: [n], result }) => {
    if (result !== null) world.expect((result as PrefilledSheaf).size >= (n as number), 'prefill gave less');
    keep(world, on as KmemCache, result);
  }),
  refill: {
    args: [loan, A.count, A.gfp],
    forges: true,
    done: ({ world, on, args: [sheaf], result }) => {
      if (result === null) return;
      drop(world, sheaf);
      keep(world, on as KmemCache, result);
    },
  },
  return: { args: [loan, A.gfp], forges: true, done: ({ world, args: [sheaf] }) => drop(world, sheaf) },
};

const wholes: Rules = {
  rcuBarrier: call(),
  drainQuarantine: call(),
  charge: call([own]),
  handles: call(),
  prefillArray: call([A.count, A.gfp]),
  setupPercpuArray: call([() => 100_000]),
  shrink: call(),
  destroy: {
    args: [],
    run: (world, on: KmemCache) => {
      // Another handle of it would outlive it: the one that is destroyed is one of its own.
      const cache = world.arena.createCache(`ended${world.names++}`, { size: on.objectSize });
      world.expect(cache.destroy().leaked === 0, 'a new cache leaks');
    },
  },
  stats: call(),
  layerStats: call(),
  trylockStats: call(),
  stat: call([() => 'alloc_slab']),
  ...Object.fromEntries(['primary', 'debug'].map((name) => [`get ${name}`, getter('object')])),
  ...Object.fromEntries(['name', 'layer'].map((name) => [`get ${name}`, getter('string')])),
  ...Object.fromEntries(
    ['size', 'objectSize', 'order', 'objsPerSlab', 'minPartial'].map((name) => [
      `get ${name}`,
      getter('number'),
    ]),
  ),
  'set minPartial': call([({ rng }) => rng.below(6)]),
  'get isAlive': getter('boolean'),
};

export const CACHE: Surface = {
  name: 'KmemCache',
  pick: (world) => world.rng.pick(world.caches),
  weight: 30,
  rules: { ...objects, ...wholes },
  internal: CACHE_INTERNAL,
};

/** The handles of a cache that nobody else allocates from, so that the model is the handle itself. */
export const HANDLES: Surface = {
  name: 'CacheHandles',
  pick: (world) => world.handles,
  weight: 3,
  rules: {
    alloc: call([A.gfp], ({ world, on, result }) => {
      if (result !== 0) world.expect((on as CacheHandles).has(result as number), 'a new handle is void');
      if (result !== 0) world.handled.add(result as number);
    }),
    free: call([handle], ({ world, args: [h] }) => {
      world.expect(world.handled.delete(h as number), `free of handle ${String(h)} was accepted`);
    }),
    at: call([handle], ({ world, args: [h] }) => {
      world.expect(world.handled.has(h as number), `handle ${String(h)} was good for an address`);
    }),
    has: call([handle], ({ world, args: [h], result }) => {
      world.expect(result === world.handled.has(h as number), `has(${String(h)}) was ${String(result)}`);
    }),
    'get retired': getter('number'),
  },
  internal: 'renew retire look wrong',
};

export const CACHE_DEBUG: Surface = {
  name: 'CacheDebug',
  pick: (world) => world.rng.pick(world.caches).debug,
  weight: 1,
  rules: {
    validate: call(),
    allocTraces: call(),
    freeTraces: call(),
    tracks: call([(world) => world.have(world.caches[0]!)]),
    'get errors': getter('number'),
  },
  internal: '',
};
