/** Guarded objects: one of so many allocations lies alone in a page, and what is written beside it or too late is found. */
import { describe, expect, it } from 'vitest';
import {
  __GFP_ZERO,
  type Arena,
  type ArenaOptions,
  GFP_KERNEL,
  GFP_NOWAIT,
  type KmemCache,
  type LockPolicy,
  SLAB_ACCOUNT,
  SLAB_CACHE_DMA,
  SLAB_TYPESAFE_BY_RCU,
  SlabBugError,
  type SlabReport,
} from '#src/index.js';
import { Control } from '#workers/litmus/control.js';
import {
  allocMany,
  boot,
  expectRefused,
  expectSound,
  freeMany,
  inside,
  secondCpu,
} from '../cache/support/arena.js';
import { launch, runTeam } from '../litmus/support/team.js';
import { takePages } from '../pressure/support.js';

const SIZE = 64;
const PAGE = 4096;

interface Heap {
  arena: Arena;
  cache: KmemCache;
  reports: SlabReport[];
}

/** Every allocation is guarded while there are slots. */
function setup(options: Partial<ArenaOptions> = {}, objects = 8, every = 1): Heap {
  const arena = boot({ guard: { every, objects }, ...options });
  const reports: SlabReport[] = [];
  arena.onSlabReport((report) => reports.push(report));
  return { arena, cache: arena.createCache('c', { size: SIZE }), reports };
}

const isGuarded = (arena: Arena, p: number): boolean => inside(arena).guards.owns(p);
const said = ({ reports }: Heap): string[] => reports.map(({ what }) => what);

/** Allocates until an object lies at the left end of its page, or at the right; the others stay allocated. */
function placed({ arena, cache }: Heap, side: 'left' | 'right'): number {
  for (;;) {
    const p = cache.alloc();
    if (!isGuarded(arena, p)) throw new Error('no guarded object is left');
    if ((p % PAGE === 0) === (side === 'left')) return p;
    cache.free(p);
  }
}

describe('guarded objects', () => {
  it('are one of so many, from the pool, each in a page of its own', () => {
    const { arena, cache } = setup({}, 16, 10);
    const all = allocMany(cache, 100);
    const guarded = all.filter((p) => isGuarded(arena, p));
    expect(guarded).toEqual(all.filter((_, i) => i % 10 === 9));
    expect(new Set(guarded.map((p) => Math.floor(p / PAGE))).size).toBe(10);
    expect(all.slice(0, 9).some((p) => isGuarded(arena, p))).toBe(false);
    arena.endTurn();
    expectSound(arena);
    freeMany(cache, all);
    arena.endTurn();
    expectSound(arena);
    expect(cache.destroy().leaked).toBe(0);
    expectSound(arena);
  });

  it('come from the slabs again when the pool is in use, and lie at both ends', () => {
    const { arena, cache } = setup({}, 50);
    const all = allocMany(cache, 60);
    const guarded = all.filter((p) => isGuarded(arena, p));
    expect(guarded).toHaveLength(50);
    expect(new Set(guarded.map((p) => p % PAGE))).toEqual(new Set([0, PAGE - SIZE]));
    freeMany(cache, all);
  });

  it('use the slot again that was freed first', () => {
    const { arena, cache } = setup({}, 4);
    const pages = (list: number[]): number[] => list.map((p) => Math.floor(p / PAGE));
    const all = allocMany(cache, 4);
    const order = [all[2]!, all[0]!, all[3]!, all[1]!];
    freeMany(cache, order);
    expect(pages(allocMany(cache, 4))).toEqual(pages(order));
    expect(isGuarded(arena, cache.alloc())).toBe(false);
  });

  it('are zeroed if asked', () => {
    const { arena, cache } = setup();
    const p = cache.alloc(GFP_KERNEL | __GFP_ZERO);
    expect(isGuarded(arena, p)).toBe(true);
    expect(arena.u8.subarray(p, p + SIZE).every((byte) => byte === 0)).toBe(true);
  });
});

describe('what is reported', () => {
  it('memory corruption, of a write beside an object in its page, at its free', () => {
    const heap = setup();
    const p = placed(heap, 'left');
    heap.arena.u8[p + SIZE + 3] = 1;
    expect(said(heap)).toEqual([]);
    heap.cache.free(p);
    expect(said(heap)).toEqual(['memory corruption']);
    const [report] = heap.reports;
    const at = p + SIZE + 3;
    expect(report).toMatchObject({
      cache: 'c',
      object: { address: p, allocated: { cpu: 0 }, freed: { cpu: 0 } },
      damage: { from: at, to: at + 1, expected: 0xaa, found: 1 },
    });
    expect(report!.object!.allocated!.stack.join()).toContain('guard.test');
    expect(report!.object!.freed!.stack.join()).toContain('guard.test');
    expect(report!.text).toMatch(/BUG c .*memory corruption/);
    expect(heap.cache.debug.errors).toBe(1);
    expectSound(heap.arena);
  });

  it.each([
    ['left', -1],
    ['right', SIZE],
  ] as const)('out-of-bounds write, beyond the %s end of the page', (side, offset) => {
    const heap = setup();
    const p = placed(heap, side);
    heap.arena.u8[p + offset] = 0;
    expect(heap.arena.scanGuards()).toBe(1);
    expect(said(heap)).toEqual(['out-of-bounds write']);
    expect(heap.reports[0]!.object!.address).toBe(p);
    expect(heap.arena.scanGuards()).toBe(0); // it is said once
    heap.cache.free(p);
    expect(said(heap)).toHaveLength(1);
  });

  it('use-after-free write, by a scan', () => {
    const heap = setup();
    const p = placed(heap, 'right');
    heap.cache.free(p);
    heap.arena.i32[(p >> 2) + 2] = 42;
    expect(heap.arena.scanGuards()).toBe(1);
    expect(said(heap)).toEqual(['use-after-free write']);
    expect(heap.reports[0]!.damage).toMatchObject({ from: p + 8, to: p + 12, expected: 0x6b, found: 42 });
  });

  it('use-after-free write, when the slot is used again or the cache ends', () => {
    const heap = setup({}, 2);
    const [p, q] = allocMany(heap.cache, 2) as [number, number];
    freeMany(heap.cache, [p, q]);
    heap.arena.u8[p] = 1;
    heap.arena.u8[q] = 1;
    const other = heap.arena.createCache('other', { size: 512 });
    other.alloc(); // p's slot
    heap.arena.endTurn();
    expect(said(heap)).toEqual(['use-after-free write']);
    expect(heap.reports[0]).toMatchObject({ cache: 'c', object: { address: p } });
    expect(heap.cache.destroy().leaked).toBe(0);
    heap.arena.endTurn();
    expect(said(heap)).toHaveLength(2);
    expect(heap.reports[1]!.object!.address).toBe(q);
    expectSound(heap.arena);
  });

  it('invalid free, of an object that is free, or of what is none', () => {
    const heap = setup();
    const { arena, cache } = heap;
    const p = placed(heap, 'left');
    const thrown = (action: () => void, message: RegExp): void => {
      expect(action).toThrow(SlabBugError);
      expect(action).toThrow(message);
    };
    thrown(() => cache.free(p + 8), /no guarded object/);
    thrown(() => cache.free(p + PAGE), /no guarded object/);
    thrown(() => cache.free(p + 0.5), /no guarded object/);
    const other = arena.createCache('other', { size: SIZE });
    thrown(() => other.free(p), /belongs to c/);
    cache.free(p);
    thrown(() => cache.free(p), /Object already free/);
    thrown(() => arena.kfree(p), /Object already free/);
    thrown(() => cache.freeRcu(p), /Object already free/);
    expect(new Set(said(heap))).toEqual(new Set(['invalid free']));
    arena.endTurn();
    expectSound(arena);
  });

  it('nothing, of objects that are used as they may be', () => {
    const heap = setup();
    for (let round = 0; round < 100; round++) {
      const all = allocMany(heap.cache, 12);
      for (const p of all) heap.arena.u8.fill(round, p, p + SIZE);
      expect(heap.arena.scanGuards()).toBe(0);
      freeMany(heap.cache, all);
    }
    expect(heap.reports).toEqual([]);
    expectSound(heap.arena);
  });
});

describe('each way to free one', () => {
  const ways: Record<string, (heap: Heap, p: number) => void> = {
    free: ({ cache }, p) => cache.free(p),
    kfree: ({ arena }, p) => arena.kfree(p),
    'another CPU': ({ arena }, p) => {
      const other = secondCpu(arena);
      other.openCache('c').free(p);
      other.offline();
    },
    freeBulk: ({ cache }, p) => {
      const rest = allocMany(cache, 20);
      cache.freeBulk(Int32Array.from([...rest.slice(0, 10), p, ...rest.slice(10)]), 21);
    },
    freeRcu: ({ cache }, p) => {
      cache.freeRcu(p);
      expect(() => cache.free(p)).toThrow(/Object already free/);
      cache.rcuBarrier();
    },
    'kfreeRcu with a word': ({ arena, cache }, p) => {
      arena.kfreeRcu(p, 8);
      cache.rcuBarrier();
    },
    kfreeNolock: ({ arena }, p) => arena.kfreeNolock(p),
    kfreeRcuNolock: ({ arena, cache }, p) => {
      arena.kfreeRcuNolock(p, 8);
      cache.rcuBarrier();
    },
    handles: ({ cache }, p) => {
      cache.free(p);
      const handles = cache.handles();
      const all = Array.from({ length: 12 }, () => handles.alloc());
      for (const h of all) cache.assertAllocated(handles.at(h));
      for (const h of all) handles.free(h);
      expect(all.some((h) => handles.has(h))).toBe(false);
    },
  };

  it.each(Object.keys(ways))('%s', (name) => {
    const heap = setup();
    const p = placed(heap, 'left');
    ways[name]!(heap, p);
    expect(() => heap.cache.assertAllocated(p)).toThrow(/Object already free|no guarded object/);
    heap.arena.endTurn();
    expectSound(heap.arena);
    expect(heap.cache.destroy().leaked).toBe(0);
    expectSound(heap.arena);
  });

  it('all or none in bulk', () => {
    const { arena, cache } = setup();
    const all = allocMany(cache, 20);
    const list = Int32Array.from([...all, all[0]!]);
    expect(() => cache.freeBulk(list, 21)).toThrow(SlabBugError);
    for (const p of all) cache.assertAllocated(p);
    freeMany(cache, all);
    arena.endTurn();
    expectSound(arena);
  });

  it('none: destroy names it', () => {
    const heap = setup();
    const p = placed(heap, 'left');
    heap.cache.shrink();
    expect(heap.cache.destroy()).toMatchObject({ leaked: 1, objects: [p] });
    expectSound(heap.arena);
  });
});

describe('the option guard', () => {
  it('is for each cache that can have them', () => {
    const { arena } = setup({ slabDebug: 'FZ,debug', caches: [{ name: 's', size: SIZE }] }, 32);
    const guards = (name: string, options = {}): boolean => {
      const cache =
        name === 's' ? arena.openCache(name) : arena.createCache(name, { size: SIZE, ...options });
      return isGuarded(arena, cache.alloc());
    };
    expect(guards('s')).toBe(true);
    expect(guards('page', { size: PAGE })).toBe(true);
    expect(guards('not', { guard: false })).toBe(false);
    expect(guards('large', { size: PAGE + 8 })).toBe(false);
    expect(guards('accounted', { flags: SLAB_ACCOUNT })).toBe(false);
    expect(guards('typesafe', { flags: SLAB_TYPESAFE_BY_RCU })).toBe(false);
    expect(guards('debug')).toBe(false);
    expect(guards('dma', { flags: SLAB_CACHE_DMA })).toBe(false);
    arena.endTurn();
    expectSound(arena);
  });

  it.each([
    [{ size: PAGE + 8 }, /do not fit into a guarded page/],
    [{ flags: SLAB_ACCOUNT }, /SLAB_ACCOUNT have their group behind them/],
    [{ flags: SLAB_TYPESAFE_BY_RCU }, /readers may look/],
  ])('is refused where it cannot be: %o', (options, message) => {
    const { arena } = setup();
    const make = () => arena.createCache('x', { size: SIZE, guard: true, ...options });
    expectRefused(arena, make, RangeError, message);
  });

  it.each([
    [{ every: 0, objects: 1 }, /guard.every is 0/],
    [{ every: 1, objects: 256 }, /guard.objects is 256/],
    [7, /guard is 7; it must be an object/],
  ])('%o is none', (guard, message) => {
    expect(() => boot({ guard: guard as never })).toThrow(message);
    const arena = boot();
    expect(() => arena.createCache('c', { size: SIZE, guard: true })).toThrow(/made without guard/);
    expect(arena.scanGuards()).toBe(0);
  });

  it.each([
    { layer: 'none' },
    { layer: 'cpu-slab' },
    { layer: 'percpu-array' },
    { check: 'full' },
    { lockPolicy: 'op' },
    { quarantine: 4096 },
    { initOnAlloc: true },
    { nodes: 2 },
    { tiny: true },
  ] as const)('goes with %o', (options) => {
    const heap = setup(options, 8, 3);
    for (let round = 0; round < 5; round++) {
      const all = allocMany(heap.cache, 100);
      expect(all.some((p) => isGuarded(heap.arena, p))).toBe(true);
      expect(new Set(all).size).toBe(100);
      freeMany(heap.cache, all);
    }
    heap.arena.endTurn();
    expect(heap.reports).toEqual([]);
    expectSound(heap.arena);
    expect(heap.cache.destroy().leaked).toBe(0);
  });

  it('serves when there is no other memory', () => {
    const heap = setup({ bytes: 4 << 20 }, 8, 2);
    const taken = takePages(heap.arena, GFP_NOWAIT);
    const all = Array.from({ length: 400 }, () => heap.cache.alloc(GFP_NOWAIT)).filter((p) => p !== 0);
    expect(all.filter((p) => isGuarded(heap.arena, p))).toHaveLength(8);
    freeMany(heap.cache, all);
    for (const p of taken) heap.arena.freePages(p, 0);
    heap.arena.endTurn();
    expectSound(heap.arena);
  });
});

describe.each(['turn', 'op'] as LockPolicy[])('real threads, policy %s', (lockPolicy) => {
  it('two that free what the other allocated, while a third scans', async () => {
    const { arena, cache, reports } = setup({ cpus: 3, lockPolicy, bytes: 16 << 20 }, 16, 5);
    arena.endTurn();
    const tasks = [1, 2].map((cpu) => ({ cpu, seed: cpu, rounds: 20_000 }));
    let running = true;
    const team = runTeam<{ damaged: number; freed: number }>('trade', arena.handle, tasks).finally(() => {
      running = false;
    });
    while (running) {
      expect(arena.scanGuards()).toBe(0);
      await new Promise((resolve) => setTimeout(resolve, 1));
    }
    const results = await team;
    expect(results.map(({ damaged }) => damaged)).toEqual([0, 0]);
    expect(results[0]!.freed + results[1]!.freed).toBe(40_000);
    expect(reports).toEqual([]);
    expectSound(arena);
    expect(cache.destroy().leaked).toBe(0);
    expectSound(arena);
  });

  it('a thread that died leaves its objects allocated, and the pool to others', async () => {
    const heap = setup({ cpus: 2, lockPolicy }, 16, 2);
    const { arena, cache } = heap;
    arena.endTurn();
    const args = { cpu: 1, n: 20, freed: 10, how: 'exit' };
    await launch('leave', { control: new Control(), handle: arena.handle, args }).exited;
    expect(arena.cpuDead(1)).toEqual({ cpu: 1, heldLocks: [], notes: [] });
    expectSound(arena);
    const mine = allocMany(cache, 100).filter((p) => isGuarded(arena, p));
    expect(mine).toHaveLength(11); // five of the dead thread's are still out
    arena.endTurn();
    expectSound(arena);
  });
});

it('what a thread was working on when it died is given back by its reaper', () => {
  const { arena, cache } = setup({}, 4);
  const other = secondCpu(arena);
  const guards = inside(other).guards as unknown as { take(): number };
  other.endTurn();
  expect(guards.take()).not.toBe(0);
  expect(arena.validate().map(({ invariant }) => invariant)).toEqual(['I20']);
  arena.cpuDead(1);
  expectSound(arena);
  expect(allocMany(cache, 5).filter((p) => isGuarded(arena, p))).toHaveLength(4);
});
