/** Guarded blocks of kmalloc: canary begins behind the last byte that was asked for. */
import { describe, expect, it } from 'vitest';
import {
  __GFP_ACCOUNT,
  __GFP_THISNODE,
  __GFP_ZERO,
  type Arena,
  type ArenaOptions,
  GFP_KERNEL,
  SlabBugError,
  type SlabReport,
  structOf,
  ZERO_SIZE_PTR,
} from '#src/index.js';
import { boot, expectRefused, expectSound, footprint, inside, secondCpu } from '../cache/support/arena.js';

const PAGE = 4096;
/** In a cache of 64. */
const ASKED = 50;
const CANARY = 0xaa;

interface Heap {
  arena: Arena;
  reports: SlabReport[];
}

/** Every call is guarded while there are slots. */
function setup(options: Partial<ArenaOptions> = {}, objects = 8, every = 1): Heap {
  const arena = boot({ guard: { every, objects }, ...options });
  const reports: SlabReport[] = [];
  arena.onSlabReport((report) => reports.push(report));
  return { arena, reports };
}

const isGuarded = (arena: Arena, p: number): boolean => inside(arena).guards.owns(p);
const said = ({ reports }: Heap): string[] => reports.map(({ what }) => what);

function guarded({ arena }: Heap, size = ASKED): number {
  const p = arena.kmalloc(size);
  if (!isGuarded(arena, p)) throw new Error('no guarded block is left');
  return p;
}

/** Nothing is wrong, and every block is back: the pool serves as many as it has slots. */
function expectAllBack({ arena }: Heap, objects = 8): void {
  arena.endTurn();
  expectSound(arena);
  const all = Array.from({ length: objects + 1 }, () => arena.kmalloc(ASKED));
  expect(all.filter((p) => isGuarded(arena, p))).toHaveLength(objects);
  for (const p of all) arena.kfree(p);
}

describe('who gets a guarded block', () => {
  it('one of so many calls of each size, and none of the allocator`s own', () => {
    const { arena } = setup({}, 100, 10);
    const all = Array.from({ length: 100 }, () => arena.kmalloc(ASKED));
    expect(all.filter((p) => isGuarded(arena, p))).toEqual(all.filter((_, i) => i % 10 === 9));
    const before = inside(arena).guards.live(inside(arena).kmallocs.bucket(ASKED).desc).length;
    for (let i = 0; i < 20; i++) arena.createCache(`c${i}`, { size: 64, guard: false }); // barns, sheaves
    arena.groups.create('g');
    const names = arena.cacheNames().filter((name) => name.startsWith('kmalloc-'));
    const live = names.flatMap((name) => inside(arena).guards.live(arena.openCache(name).desc));
    expect(live).toHaveLength(before);
    for (const p of all) arena.kfree(p);
    arena.endTurn();
    expectSound(arena);
  });

  const ways: Record<string, (arena: Arena) => number> = {
    kmalloc: (arena) => arena.kmalloc(ASKED),
    'kmalloc of a node': (arena) => arena.kmalloc(ASKED, GFP_KERNEL, 1),
    kzalloc: (arena) => arena.kzalloc(ASKED),
    'a site': (arena) => arena.kmallocSite({ site: 7 }).alloc(ASKED),
    'a private set': (arena) => arena.createBuckets('set').alloc(ASKED),
    'krealloc of nothing': (arena) => arena.krealloc(0, ASKED),
    'krealloc of a smaller one': (arena) => arena.krealloc(arena.kmalloc(8), ASKED),
    'a page': (arena) => arena.kmalloc(PAGE),
  };
  it.each(Object.keys(ways))('%s', (name) => {
    const { arena } = setup({ nodes: 2, kmalloc: { copies: 3 }, bytes: 16 << 20 });
    const p = ways[name]!(arena);
    expect(isGuarded(arena, p)).toBe(true);
    expect(arena.ksize(p)).toBe(name === 'a page' ? PAGE : ASKED);
    arena.kfree(p);
    arena.endTurn();
    expectSound(arena);
  });

  const others: Record<string, (arena: Arena) => number> = {
    'more than a page': (arena) => arena.kmalloc(PAGE + 1),
    'whole pages': (arena) => arena.kmalloc(5 * PAGE),
    kmallocNolock: (arena) => arena.kmallocNolock(ASKED),
    'a cache of kmalloc by name': (arena) => arena.openCache('kmalloc-64').alloc(),
    'who insists on a node': (arena) => arena.kmalloc(ASKED, GFP_KERNEL | __GFP_THISNODE, 1),
    'a block that is charged': (arena) => arena.kmalloc(ASKED, GFP_KERNEL | __GFP_ACCOUNT),
  };
  it.each(Object.keys(others))('not %s', (name) => {
    const { arena } = setup({ nodes: 2, kmalloc: { types: ['cgroup'] }, bytes: 16 << 20 });
    const p = others[name]!(arena);
    expect(isGuarded(arena, p)).toBe(false);
    arena.kfree(p);
    arena.endTurn();
    expectSound(arena);
  });

  it('a private set counts a call once', () => {
    const { arena } = setup({}, 20, 5);
    const set = arena.createBuckets('set');
    const all = Array.from({ length: 50 }, () => set.alloc(ASKED));
    expect(all.filter((p) => isGuarded(arena, p))).toHaveLength(10);
    for (const p of all) arena.kfree(p);
    expect(set.destroy().leaked).toBe(0);
  });

  it('zeroed, all that was asked for and no more', () => {
    const { arena } = setup();
    const p = arena.kzalloc(ASKED);
    expect([...arena.u8.subarray(p, p + ASKED + 1)]).toEqual([...Array(ASKED).fill(0), CANARY]);
  });

  it('is aligned as kmalloc aligns', () => {
    const { arena } = setup({}, 200);
    for (const size of [8, 16, 32, 64, 96, 128, 192, 256, 512, 1024, 2048, 4096]) {
      for (let i = 0; i < 8; i++) expect(guarded({ arena, reports: [] }, size) % (size & -size)).toBe(0);
    }
  });
});

describe('what is found', () => {
  it('a write of one byte too many, at the free', () => {
    const heap = setup();
    const p = guarded(heap);
    heap.arena.u8[p + ASKED] = 1;
    heap.arena.kfree(p);
    expect(said(heap)).toEqual(['memory corruption']);
    expect(heap.reports[0]).toMatchObject({
      cache: 'kmalloc-64',
      object: { address: p },
      damage: { from: p + ASKED, to: p + ASKED + 1, expected: CANARY, found: 1 },
    });
    expect(heap.reports[0]!.object!.allocated!.stack.join()).toContain('guardKmalloc.test');
    expectAllBack(heap);
  });

  it('the same by a scan, once', () => {
    const heap = setup();
    const p = guarded(heap);
    heap.arena.u8[p + ASKED] = 1;
    expect(heap.arena.scanGuards()).toBe(1);
    expect(heap.arena.scanGuards()).toBe(0);
    heap.arena.kfree(p);
    expect(said(heap)).toEqual(['memory corruption']);
  });

  it('a write after the free, by a scan', () => {
    const heap = setup();
    const p = guarded(heap);
    heap.arena.kfree(p);
    heap.arena.u8[p + ASKED - 1] = 7;
    expect(heap.arena.scanGuards()).toBe(1);
    expect(said(heap)).toEqual(['use-after-free write']);
    expect(heap.reports[0]!.object!.freed!.stack.join()).toContain('guardKmalloc.test');
  });

  it('a second free, whichever', () => {
    const heap = setup();
    const { arena } = heap;
    const p = guarded(heap);
    arena.kfree(p);
    for (const again of [
      () => arena.kfree(p),
      () => arena.kfreeRcu(p),
      () => arena.kfreeNolock(p),
      () => arena.kfreeRcuNolock(p, 0),
      () => arena.kfreeSensitive(p),
      () => arena.kfreeBulk(Int32Array.of(p), 1),
      () => arena.krealloc(p, 60),
      () => arena.krealloc(p, 5000),
      () => arena.krealloc(p, 0),
      () => arena.ksize(p),
    ]) {
      expect(again).toThrow(SlabBugError);
      expect(again).toThrow(/Object already free/);
    }
    expect(said(heap)[0]).toBe('invalid free');
    expectAllBack(heap);
  });

  it('what is no block: the middle of one, and what lies between', () => {
    const heap = setup();
    const { arena } = heap;
    const p = guarded(heap);
    expect(() => arena.kfree(p + 8)).toThrow(/no guarded object/);
    expect(() => arena.krealloc(p + 8, 9)).toThrow(/no guarded object/);
    expectRefused(arena, () => arena.kfree(p - (p % PAGE) + PAGE), SlabBugError, /did not come from kmalloc/);
    expectRefused(arena, () => arena.krealloc(p, -1), RangeError, /size is -1/);
    arena.kfree(p);
    expectAllBack(heap);
  });
});

describe('krealloc of a guarded block', () => {
  it('stays up to the size of its cache, and its guard moves', () => {
    const heap = setup({ kmalloc: { requestedSize: true } });
    const { arena } = heap;
    const p = guarded(heap);
    arena.u8.fill(3, p, p + ASKED);
    for (const size of [20, 64, 33]) {
      expect(arena.krealloc(p, size)).toBe(p);
      expect([arena.ksize(p), arena.requestedSize(p)]).toEqual([size, size]);
      expect(arena.scanGuards()).toBe(0);
      arena.u8[p + size - 1] = 3;
    }
    arena.u8[p + 33] = 3;
    arena.kfree(p);
    expect(heap.reports[0]!.damage).toMatchObject({ from: p + 33, to: p + 34 });
    expectAllBack(heap);
  });

  it('looks at what was behind the block before it grows over it', () => {
    const heap = setup();
    const p = guarded(heap);
    heap.arena.u8[p + ASKED + 2] = 1;
    expect(heap.arena.krealloc(p, ASKED + 8)).toBe(p);
    expect(said(heap)).toEqual(['memory corruption']);
  });

  it.each([
    [{}, GFP_KERNEL | __GFP_ZERO],
    [{ initOnAlloc: true }, GFP_KERNEL],
  ])('gains zeroes: %o', (options, gfp) => {
    const heap = setup(options);
    const p = guarded(heap, 40);
    heap.arena.u8.fill(3, p, p + 40);
    expect(heap.arena.krealloc(p, 20, gfp)).toBe(p);
    expect(heap.arena.krealloc(p, 60, gfp)).toBe(p);
    expect([...heap.arena.u8.subarray(p, p + 60)]).toEqual([...Array(20).fill(3), ...Array(40).fill(0)]);
  });

  it('moves with its bytes to a larger cache, or frees', () => {
    const heap = setup();
    const { arena } = heap;
    const p = guarded(heap);
    arena.u8.fill(3, p, p + ASKED);
    const q = arena.krealloc(p, 100, GFP_KERNEL | __GFP_ZERO);
    expect(q).not.toBe(p);
    expect([...arena.u8.subarray(q, q + 100)]).toEqual([...Array(ASKED).fill(3), ...Array(50).fill(0)]);
    expect(() => arena.kfree(p)).toThrow(/Object already free/);
    const large = arena.krealloc(q, 10_000);
    expect(isGuarded(arena, large)).toBe(false);
    const small = arena.kmalloc(9);
    expect(arena.krealloc(small, 0)).toBe(ZERO_SIZE_PTR);
    arena.kfree(large);
    expect(heap.reports.filter(({ what }) => what !== 'invalid free')).toEqual([]);
    expectAllBack(heap);
  });
});

describe('each way to free one', () => {
  const ways: Record<string, (arena: Arena, p: number) => void> = {
    kfree: (arena, p) => arena.kfree(p),
    'another CPU': (arena, p) => {
      const other = secondCpu(arena);
      other.kfree(p);
      other.offline();
    },
    kfreeBulk: (arena, p) => {
      const rest = Array.from({ length: 20 }, () => arena.kmalloc(ASKED));
      const list = Int32Array.from([...rest.slice(0, 10), p, ...rest.slice(10)]);
      expect(rest.some((each) => isGuarded(arena, each))).toBe(true);
      arena.kfreeBulk(list, list.length);
    },
    'freeBulk of its cache': (arena, p) => arena.openCache('kmalloc-64').freeBulk(Int32Array.of(p), 1),
    'free of its cache': (arena, p) => arena.openCache('kmalloc-64').free(p),
    kfreeNolock: (arena, p) => arena.kfreeNolock(p),
    kfreeSensitive: (arena, p) => arena.kfreeSensitive(p),
    kfreeRcu: (arena, p) => {
      arena.kfreeRcu(p);
      arena.kfreeRcuBarrier();
    },
    'kfreeRcu with a word': (arena, p) => {
      arena.kfreeRcu(p, 8);
      arena.kfreeRcuBarrier();
    },
    'kfreeRcu with a word behind what was asked for': (arena, p) => {
      inside(arena).pages.refuseEach(1); // without memory for a page it is linked through the word
      arena.kfreeRcu(p, 56);
      inside(arena).pages.refuseEach(0);
      arena.kfreeRcuBarrier();
    },
    kfreeRcuNolock: (arena, p) => {
      arena.kfreeRcuNolock(p, 60);
      arena.kfreeRcuBarrier();
    },
    'krealloc to nothing': (arena, p) => void arena.krealloc(p, 0),
  };

  it.each(Object.keys(ways))('%s', (name) => {
    const heap = setup();
    const p = guarded(heap);
    ways[name]!(heap.arena, p);
    expect(said(heap)).toEqual([]);
    expect(() => heap.arena.ksize(p)).toThrow(/Object already free/);
    expectAllBack(heap);
    expect(said(heap)).toEqual([]);
  });

  it('kfree_rcu says what it finds at once, and readers go on', () => {
    const heap = setup();
    const { arena } = heap;
    const p = guarded(heap);
    arena.u8.fill(3, p, p + ASKED + 1);
    arena.kfreeRcu(p);
    expect(said(heap)).toEqual(['memory corruption']);
    expect(heap.reports[0]!.object!.freed!.stack.join()).toContain('guardKmalloc.test');
    expect(arena.u8[p]).toBe(3);
    arena.kfreeRcuBarrier();
    expect(arena.u8[p]).toBe(0x6b);
    expectAllBack(heap);
  });
});

describe('guarded blocks in arenas', () => {
  it.each([
    { layer: 'none' },
    { layer: 'cpu-slab' },
    { layer: 'percpu-array' },
    { check: 'full' },
    { lockPolicy: 'op' },
    { quarantine: 4096 },
    { initOnAlloc: true, initOnFree: true },
    { kmalloc: { requestedSize: true, copies: 3, types: ['dma', 'reclaimable', 'cgroup'] } },
    { slabDebug: 'FZPU,other' },
    { slabDebug: 'A,kmalloc-*' },
    { tiny: true },
  ] as const)('%o', (options) => {
    const heap = setup(options, 8, 3);
    const { arena } = heap;
    const sizes = [1, 7, 8, 50, 96, 190, 300, 1000, 2048, 4000, 4096, 5000, 9000];
    let guarded = 0;
    for (let round = 0; round < 20; round++) {
      const all = sizes.map((size) => ({ size, p: arena.kmalloc(size) }));
      for (const { size, p } of all) arena.u8.fill(round, p, p + size);
      guarded += all.filter(({ p }) => isGuarded(arena, p)).length;
      for (const { size, p } of all) {
        expect(arena.ksize(p)).toBeGreaterThanOrEqual(size);
        expect(arena.u8[p + size - 1]).toBe(round);
        arena.kfree(p);
      }
    }
    arena.endTurn();
    expect(guarded).toBeGreaterThan(40);
    expect(heap.reports).toEqual([]);
    expectSound(arena);
  });

  it('failslab comes first', () => {
    const { arena } = setup({ slabDebug: 'A,kmalloc-64' });
    arena.failslab({ interval: 2 });
    const all = Array.from({ length: 6 }, () => arena.kmalloc(ASKED));
    expect(all.map((p) => (p === 0 ? 'failed' : isGuarded(arena, p)))).toEqual([
      true,
      'failed',
      true,
      'failed',
      true,
      'failed',
    ]);
  });

  it('a hardened arena copies and views what was asked for, and no more', () => {
    const heap = setup({ hardenedUsercopy: true });
    const { arena } = heap;
    const p = guarded(heap);
    arena.copyFromUser(p, new Uint8Array(ASKED).fill(1));
    const copy = (at: number, n: number) => () => arena.copyFromUser(at, new Uint8Array(n));
    expectRefused(arena, copy(p, ASKED + 1), SlabBugError, /exposure attempt: 51 bytes/);
    expectRefused(arena, copy(p - 1, 2), SlabBugError, /exposure attempt|guard page/);
    const view = structOf('viewed', { a: 'u32', b: 'u32' }).cursor(arena).at(p);
    expect(view.a).toBe(0x01010101);
    const large = structOf('large', { a: 'u32', rest: 'f64', more: 'f64' }).cursor(arena);
    const q = guarded(heap, 12);
    expectRefused(arena, () => large.at(q), SlabBugError, /a view of 24 bytes on an object of 12/);
    arena.kfree(p);
    expect(() => view.a).toThrow(/whose object was freed/);
    expect(copy(p, 1)).toThrow(/lies in an object that is free/);
    expect(heap.reports).toEqual([]);
  });

  it('made without guards kmalloc has the class that it had', () => {
    const classOf = (options: Partial<ArenaOptions>): string[] => {
      const { kmallocs } = inside(boot(options));
      return [kmallocs.constructor.name, kmallocs.bucket(64).constructor.name];
    };
    expect(classOf({})).toEqual(['HotKmallocs', 'TurnKmemCache']);
    expect(classOf({ guard: { every: 9, objects: 1 } })).toEqual(['GuardedKmallocs', 'GuardedKmemCache']);
  });

  it('takes no memory beyond its pool', () => {
    const { arena } = setup({}, 8, 1);
    const useAll = (rounds: number): void => {
      for (let round = 0; round < rounds; round++) {
        for (const p of Array.from({ length: 8 }, () => arena.kmalloc(ASKED))) arena.kfree(p);
      }
      arena.endTurn();
    };
    useAll(1); // and that of the stacks
    const before = footprint(arena);
    useAll(10);
    expect(footprint(arena)).toEqual(before);
  });
});
