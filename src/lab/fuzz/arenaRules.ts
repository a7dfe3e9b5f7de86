/** The arena and its heap. */
import type { KmallocSite, KmemBuckets, KmemCache, PrefilledSheaf } from '../../cache/index.js';
import { attributeFiles, type MemoryGroup, ZERO_SIZE_PTR } from '../../index.js';
import * as A from './args.js';
import { type Arg, call, getter, type Rule, type Rules, type Surface } from './rule.js';
import type { World } from './world.js';

/** kmalloc and its like: `args[0]` is a size. */
const kmallocDone: Rule['done'] = ({ world, args, result }) => {
  const size = args[0] as number;
  if (result === ZERO_SIZE_PTR) return world.expect(size === 0, `ZERO_SIZE_PTR for ${String(size)} bytes`);
  world.expect(Number.isInteger(size), `kmalloc accepted a size of ${typeof size}`);
  world.handedOut(result, 'kmalloc', Number.isInteger(size) ? size : 1);
};

const kfreeDone: Rule['done'] = ({ world, args: [p] }) => {
  if (p !== 0 && p !== ZERO_SIZE_PTR) world.takenBack(p, 'any object');
};

const anyObject = (world: World): number => world.have(world.rng.pick([...world.caches, 'kmalloc' as const]));

const bulkDone: Rule['done'] = ({ world, args: [list, n] }) => {
  for (let i = 0; i < (n as number); i++) {
    const p = (list as Int32Array)[i]!;
    if (p !== 0 && p !== ZERO_SIZE_PTR) world.takenBack(p, 'any object');
  }
};

const someObjects = (world: World): Int32Array => {
  const distinct = new Set(Array.from({ length: 4 }, () => world.have('kmalloc')));
  return Int32Array.from(distinct);
};

const heap: Rules = {
  kmalloc: call([A.size, A.gfp, A.node], kmallocDone),
  kzalloc: call([A.size, A.gfp], kmallocDone),
  kmallocNolock: call([A.size, A.nolockGfp], kmallocDone),
  kfree: call([anyObject], kfreeDone),
  kfreeNolock: call([A.kmalloced], kfreeDone),
  kfreeRcu: call([anyObject, A.head], kfreeDone),
  kfreeRcuNolock: call([A.kmalloced, () => 4], kfreeDone),
  kfreeRcuBarrier: call(),
  kfreeSensitive: call([A.kmalloced], kfreeDone),
  // Entries are freed one by one, as in the kernel: those before a bad one are gone.
  kfreeBulk: call([someObjects, () => 1], bulkDone),
  krealloc: call([A.kmalloced, A.size, A.gfp], ({ world, args: [p, size], result }) => {
    if (result === 0) return world.freeSome(20);
    if (p !== 0 && p !== ZERO_SIZE_PTR) world.takenBack(p, 'any object');
    if (result !== ZERO_SIZE_PTR) world.handedOut(result, 'kmalloc', size as number);
    else world.expect(size === 0, 'krealloc to ZERO_SIZE_PTR');
  }),
  ksize: call([A.kmalloced], ({ world, args: [p], result }) => {
    const held = world.live.get(p as number);
    const enough = held === undefined ? result === 0 : (result as number) >= held.bytes;
    world.expect(enough, `ksize of ${String(p)} is ${String(result)}`);
  }),
  requestedSize: call([A.kmalloced]),
  allocPages: call([A.order, A.gfp, A.node], ({ world, args: [order], result }) => {
    world.handedOut(result, 'pages', 4096 << (order as number), order as number);
  }),
  freePages: call(
    [
      (world) => [...world.live].find(([, { by }]) => by === 'pages')?.[0] ?? world.arena.allocPages(0),
      () => 0,
    ],
    ({ world, args: [p, order] }) => {
      if (!world.live.has(p as number)) return; // made for this call
      world.expect(
        world.live.get(p as number)!.order === order,
        `freePages of ${String(p)} with another order`,
      );
      world.takenBack(p, 'pages');
    },
  ),
  allocPercpu: call([(w) => 4 << w.rng.below(6), () => 8, A.gfp], ({ world, result }) => {
    if (result !== 0) world.percpu.add(result as number);
  }),
  freePercpu: call([(w) => [...w.percpu][0] ?? 0], ({ world, args: [p] }) => {
    world.expect(p === 0 || world.percpu.delete(p as number), `freePercpu accepted ${String(p)}`);
  }),
  perCpuPtr: call([(w) => [...w.percpu][0] ?? w.arena.allocPercpu(8), A.cpu], ({ world, result }) => {
    world.expect(typeof result === 'number' && result > 0, `perCpuPtr gave ${String(result)}`);
  }),
  kmallocSite: call([({ rng }) => ({ site: rng.below(99) })]),
  createBuckets: call([A.name, () => ({})], ({ result }) => (result as KmemBuckets).destroy()),
  openBuckets: call([A.name]),
  failPageAlloc: call([() => 0], ({ world }) => world.arena.failPageAlloc(0)),
  failslab: call([() => ({})], ({ world }) => world.arena.failslab({})),
  onSlabReport: call([() => () => {}], ({ result }) => (result as () => void)()),
};

const ANY_CACHE: Arg = (world) => world.rng.pick(world.caches).name;

const caches: Rules = {
  createCache: call(
    [A.name, ({ rng }) => ({ size: 8 + rng.below(300), align: rng.pick([0, 8, 64]) })],
    ({ world, result }) => {
      const cache = result as KmemCache;
      const p = cache.alloc();
      if (p !== 0) cache.free(p);
      world.expect(cache.destroy().leaked === 0, 'a cache leaks what it got back');
    },
  ),
  openCache: call([ANY_CACHE]),
  cacheNames: call(),
  cacheInfo: call(),
  slabinfo: call(),
  readAttribute: call([ANY_CACHE, ({ rng }) => rng.pick(attributeFiles())]),
  writeAttribute: call([ANY_CACHE, ({ rng }) => rng.pick(['shrink', 'min_partial']), () => '1']),
  staticCache: call([() => undefined]),
  setupCache: call([() => undefined]),
  copyFromUser: call([A.scratch, ({ rng }) => new Uint8Array(rng.below(64))], undefined, [0]),
  copyToUser: call([({ rng }) => new Uint8Array(rng.below(64)), A.scratch]),
  writeText: call([A.scratch, () => 32, () => 'some text'], undefined, [0, 1]),
  readText: call([A.scratch, () => 32]),
  registerShrinker: call([() => ({ name: 'fuzz', count: () => 0, scan: () => 0 })], ({ result }) =>
    (result as () => void)(),
  ),
};

const GETTERS = [
  'handle',
  'cpu',
  'rcu',
  'maple',
  'mms',
  'onlineCpus',
  'onlineThreads',
  'groups',
  'callbackErrors',
  'staticCaches',
  'percpu',
];

const state: Rules = {
  ...Object.fromEntries(GETTERS.map((name) => [`get ${name}`, getter('object')])),
  'get isOnline': getter('boolean'),
  'get lastOom': call(),
  endTurn: call(),
  online: call([() => ({})], ({ world }) => world.fault('a thread is online twice')),
  cpuDead: call([() => 1], ({ world }) => world.fault('a CPU that was never online is dead')),
  reclaimWorker: call(),
  stopReclaimWorkers: call(),
  reclaimInfo: call(),
  scanGuards: call([], ({ world, result }) => world.expect(result === 0, 'a guarded object is damaged')),
  validate: call([], ({ world, result }) =>
    world.expect((result as []).length === 0, `validate: ${JSON.stringify(result)}`),
  ),
  lockStat: call(),
  lockdep: call(),
  meminfo: call(),
};

export const ARENA: Surface = {
  name: 'Arena',
  pick: (world) => world.arena,
  weight: 30,
  rules: { ...heap, ...caches, ...state },
  internal: 'caches placeOf noCpu',
  elsewhere: { offline: 'ends every handle; the fuzzer`s entrance comes and goes' },
};

export const BUCKETS: Surface = {
  name: 'KmemBuckets',
  pick: (world) => world.buckets,
  weight: 2,
  rules: {
    alloc: call([A.size, A.gfp, A.node], kmallocDone),
    destroy: { args: [], run: () => {} },
  },
  internal: '',
};

export const SITE: Surface = {
  name: 'KmallocSite',
  pick: (world): KmallocSite => world.site,
  weight: 2,
  rules: { alloc: call([A.size, A.gfp, A.node], kmallocDone) },
  internal: '',
};

export const SHEAF: Surface = {
  name: 'PrefilledSheaf',
  pick: (world): PrefilledSheaf | undefined =>
    world.loans.length === 0 ? undefined : world.rng.pick(world.loans).sheaf,
  weight: 4,
  rules: {
    alloc: call([A.gfp], ({ world, on, result }) => {
      const { cache, size } = on as PrefilledSheaf;
      if (result !== 0) world.handedOut(result, cache.primary, cache.objectSize);
      else world.expect(size === 0, 'a sheaf with objects gave none');
    }),
    'get size': getter('number'),
    'get capacity': getter('number'),
  },
  internal: 'at ended end',
};

export const GROUPS: Surface = {
  name: 'MemoryGroups',
  pick: (world) => world.arena.groups,
  weight: 2,
  rules: {
    create: call([A.name, (w) => ({ limit: 4096, parent: w.rng.pick([undefined, w.groups[0]]) })], (made) => {
      made.world.arena.groups.destroy(made.result as MemoryGroup);
    }),
    open: call([() => 'first']),
    workFor: call([(w) => w.rng.pick([null, ...w.groups])]),
    destroy: call([(w) => w.arena.groups.create(`group${w.names++}`)]),
    list: call(),
  },
  internal: 'head walk find checkName checkGroup checkLive usersOf',
};

export const GROUP: Surface = {
  name: 'MemoryGroup',
  pick: (world) => world.rng.pick(world.groups),
  weight: 1,
  rules: {
    'get limit': getter('number'),
    'set limit': call([() => 1 << 19]),
    'get usage': getter('number'),
    'get info': getter('object'),
  },
  internal: 'isOf',
};
