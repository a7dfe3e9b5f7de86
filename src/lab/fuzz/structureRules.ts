/** What is built on the heap: trees, address spaces, percpu memory, counters, RCU, views. */
import type { Failslab } from '../../cache/index.js';
import type { MapleTree } from '../../maple/index.js';
import type { Mm } from '../../mm/index.js';
import type { Rcu } from '../../rcu/index.js';
import * as A from './args.js';
import { call, getter, pair, type Rules, type Surface } from './rule.js';
import type { World } from './world.js';

const tree = (world: World): MapleTree => world.rng.pick(world.trees);
const mm = (world: World): Mm => world.rng.pick(world.mms);
const counter = (world: World): number => world.rng.pick(world.counters);
const area = (world: World): number => [...world.percpu][0] ?? world.arena.percpu.alloc(8);

/** Runs `body` with the lock of the tree. */
const locked = (body: (world: World, on: MapleTree) => void) =>
  pair<MapleTree>((world, on) => {
    on.lock();
    try {
      body(world, on);
    } finally {
      on.unlock();
    }
  });

export const MAPLE: Surface = {
  name: 'Maple',
  pick: (world) => world.arena.maple,
  weight: 1,
  rules: {
    create: call([() => ({})], ({ world, result }) => {
      if (result !== null) world.trees.push(result as MapleTree);
    }),
    // A tree may be part of any object, so an address of one cannot be told from another.
    open: call([(world) => tree(world).address], ({ result }) => void (result as MapleTree).address, [0]),
    destroy: call([(world) => world.arena.maple.create()]),
    'get nodes': getter('object'),
  },
  internal: '',
};

export const TREE: Surface = {
  name: 'MapleTree',
  pick: tree,
  weight: 10,
  rules: {
    load: call([A.key]),
    rangeAt: call([A.key]),
    cursor: call([A.key]),
    ranges: call([() => 0, A.key]),
    store: call([() => 16, (w) => 16 + w.rng.below(999), A.entry, A.gfp]),
    erase: call([A.key, () => 1 << 17, A.gfp]),
    alloc: call([A.entry, () => 8, () => 0, () => 1 << 16, A.gfp]),
    allocReverse: call([A.entry, () => 8, () => 0, () => 1 << 16, A.gfp]),
    emptyArea: call([() => 8, () => 0, A.key]),
    emptyAreaReverse: call([() => 8, () => 0, A.key]),
    lock: locked(() => {}),
    unlock: call([], ({ world }) => world.fault('unlock of a tree that is not locked')),
    preallocate: locked((world, on) => {
      const first = world.rng.below(500);
      if (on.preallocate(first, first + 9, 7)) on.storePrealloc(first, first + 9, 7);
    }),
    storePrealloc: call([A.key, A.key, A.entry], ({ world }) =>
      world.fault('storePrealloc without the lock'),
    ),
    reserve: call([A.gfp]),
    plan: call([() => 8, (w) => 8 + w.rng.below(99), A.entry]),
    clear: call(),
    duplicateInto: call([(w) => w.arena.maple.create()], ({ world }) =>
      world.fault('a copy without the lock'),
    ),
    validate: call([], ({ world, result }) => world.expect((result as []).length === 0, `tree: ${result}`)),
    finish: call(),
    ...Object.fromEntries(
      ['address', 'height', 'nodesUsed'].map((name) => [`get ${name}`, getter('number')]),
    ),
    ...Object.fromEntries(
      ['hasGaps', 'isRcu', 'isEmpty', 'isLocked'].map((name) => [`get ${name}`, getter('boolean')]),
    ),
  },
  internal:
    'change allocBy searchFree checkSearch attempt reserveWithoutLock takeLock giveLockUp locked assertLocked isOf',
};

export const MAPLE_CURSOR: Surface = {
  name: 'MapleCursor',
  pick: (world) => tree(world).cursor(),
  weight: 1,
  rules: {
    set: call([A.key]),
    walk: call([A.key]),
    next: call([() => 1 << 16]),
    prev: call([() => 0]),
  },
  internal: '',
};

export const MMS: Surface = {
  name: 'Mms',
  pick: (world) => world.arena.mms,
  weight: 1,
  rules: {
    create: call([], ({ world, result }) => {
      if (result !== null) world.mms.push(result as Mm);
    }),
    open: call([(world) => mm(world).address]),
    fork: call([mm], ({ world, result }) => {
      if (result !== null) world.mms.push(result as Mm);
    }),
    destroy: call([(world) => world.arena.mms.create()]),
    'get vmas': getter('object'),
    'get mms': getter('object'),
  },
  internal: 'alloc handle checkMm',
};

export const MM: Surface = {
  name: 'Mm',
  pick: mm,
  weight: 8,
  rules: {
    map: call([A.bytes, ({ rng }) => rng.pick([undefined, { at: 1 << 20 }, { flags: 3 }])]),
    unmap: call([A.page, A.bytes]),
    protect: call([A.page, A.bytes, ({ rng }) => rng.below(8)]),
    brk: call([A.page]),
    growDown: call([A.page]),
    find: call([A.page]),
    list: call(),
    startFault: pair<Mm>((world, on) => {
      const vma = on.startFault((16 + world.rng.below(64)) * 4096);
      if (vma !== 0) on.endFault(vma);
    }),
    fault: call([A.page, () => 1]),
    faultUnderMmapLock: call([A.page, () => 1]),
    forkInto: call([mm], ({ world }) => world.fault('a fork into a space that is in use')),
    exit: call(),
    validate: call([], ({ world, result }) => world.expect((result as []).length === 0, `mm: ${result}`)),
    'get address': getter('number'),
    'get mapCount': getter('number'),
    'get areasTree': getter('object'),
  },
  internal: 'copyAreas copiedInVain describe change provide dropSpare locked isOf',
  elsewhere: { endFault: 'with startFault: what it is given is a reference, which it takes at its word' },
};

export const PERCPU: Surface = {
  name: 'PercpuAllocator',
  pick: (world) => world.arena.percpu,
  weight: 4,
  rules: {
    ptr: call([area, A.cpu]),
    thisCpuPtr: call([area]),
    alloc: call([(w) => 4 << w.rng.below(6), () => 8, A.gfp], ({ world, result }) => {
      if (result !== 0) world.percpu.add(result as number);
    }),
    free: call([(w) => [...w.percpu][0] ?? 0], ({ world, args: [p] }) => {
      world.expect(p === 0 || world.percpu.delete(p as number), `free of percpu ${String(p)} accepted`);
    }),
    charge: call([area, A.gfp]),
    uncharge: call([area]),
    balance: call(),
    info: call(),
  },
  internal:
    'allocUncharged refusePtr reportFailure allocReclaiming tryAlloc fromChunks fromAreas dropHeld zero keepArea ' +
    'drainAreas reap leaveCpu takeFromHand',
};

export const COUNTERS: Surface = {
  name: 'PercpuCounters',
  pick: (world) => world.arena.percpu.counters,
  weight: 4,
  rules: {
    add: call([counter, ({ rng }) => rng.below(99) - 40]),
    read: call([counter]),
    readPositive: call([counter]),
    sum: call([counter]),
    set: call([counter, () => 5]),
    sync: call([counter]),
    compare: call([counter, () => 5]),
    chargeMany: call([counter, () => 1, A.gfp]),
    unchargeMany: call([counter, () => 1]),
    limitedAdd: call([counter, () => 1000, () => 3]),
    // They write where they are told: into any object of the heap.
    init: {
      args: [],
      run: (world, on: World['arena']['percpu']['counters']) => initAndDestroy(world, on, 1),
    },
    initMany: {
      args: [],
      run: (world, on: World['arena']['percpu']['counters']) => initAndDestroy(world, on, 2),
    },
    updateBatch: call(),
    'get batch': getter('number'),
  },
  internal:
    'areaOf addShared fold takePart sumOfParts cpuDead foldDead nth countAt partOf checkAddress checkCounter checkAmount locked listed',
  elsewhere: { destroy: 'with init', destroyMany: 'with initMany' },
};

function initAndDestroy(world: World, on: World['arena']['percpu']['counters'], n: number): void {
  const p = world.arena.kmalloc(128);
  if (p === 0) return;
  if (on.initMany(p, 7, n)) {
    world.expect(on.sum(p) === 7, 'a new counter has another value');
    on.destroyMany(p, n);
  }
  world.arena.kfree(p);
}

export const RCU: Surface = {
  name: 'Rcu',
  pick: (world) => world.arena.rcu,
  weight: 3,
  rules: {
    readLock: pair<Rcu>((_world, on) => {
      on.readLock();
      on.readUnlock();
    }),
    readUnlock: call([], ({ world }) => world.fault('readUnlock of no section')),
    briefly: call([() => () => {}]),
    dereference: call([(world) => world.have('kmalloc') >> 2]),
    assignPointer: pair<Rcu>((world, on) => on.assignPointer(world.scratch >> 2, 0)),
    quiescent: call(),
    call: call([() => () => {}]),
    request: call(),
    poll: call([(world) => world.arena.rcu.request()]),
    synchronize: call(),
    barrier: call(),
    'get debug': getter('boolean'),
    'get pending': getter('number'),
    'get depth': getter('number'),
  },
  internal:
    'nesting setNesting readLockSlow readUnlockSlow release releaseIfRequested goOffline leave beginReading stopReading ' +
    'holdForTurn becomeQuiescent openText waitFor until stalled drainOwn runCallbacks runOrDefer armTimer ' +
    'disarmTimer mark outstanding isDone sleepUntil',
  elsewhere: {
    synchronizeAsync: 'waits for what synchronize waits for',
    barrierAsync: 'waits for what barrier waits for',
    'set debug': 'takes stacks at each section',
    onStall: 'a function of the user`s, which Rcu calls',
  },
};

export const FAILSLAB: Surface = {
  name: 'Failslab',
  pick: (world): Failslab => world.arena.failslab({}),
  weight: 1,
  rules: { 'get pending': getter('boolean') },
  internal: 'set shouldFail callBack',
};

const cursorRules: Rules = {
  at: call([A.scratch], ({ world }) => {
    (world.cursor as { at(p: number): void }).at(world.scratch);
  }),
};

export const CURSOR: Surface = {
  name: 'Cursor',
  pick: (world) => world.cursor,
  weight: 1,
  rules: {
    ...cursorRules,
    ...Object.fromEntries(['a', 'b', 'next'].map((name) => [`get ${name}`, getter('number')])),
    'get c': getter('bigint'),
    'set a': call([A.key]),
    'set b': call([A.key]),
    'set next': call([A.key]),
    'set c': call([() => 5n]),
  },
  internal: '',
};

export const RECLAIM_WORKER: Surface = {
  name: 'ReclaimWorker',
  pick: (world) => world.arena.reclaimWorker(),
  weight: 1,
  rules: { step: call() },
  internal: '',
  elsewhere: { run: 'blocks until stopReclaimWorkers' },
};

export const THIS_CPU: Surface = {
  name: 'ThisCpu',
  pick: (world) => world.arena.cpu,
  weight: 1,
  rules: { endTurn: call(), 'get depth': getter('number'), assertOnline: call() },
  internal:
    'drainDeferred runCallbacks count enter enterNolock leave isBusy inHand sheafInHand holdForTurn defer ' +
    'giveUpSheaves callbacksAreDue queueTurnEnd turnOf serveRequests requestThread goOffline',
};
