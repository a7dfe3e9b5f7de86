/**
 * Constructors and destructors on real threads: they fail at every position while eight threads make and end slabs, and
 * threads die in them. `GRANARY_CTOR_MS=60000` makes each run under fire that long.
 */
import { describe, expect, it } from 'vitest';
import { type Arena, GFP_NOWAIT, type KmemCache, type Layer, type LockPolicy } from '#src/index.js';
import { Control } from '#workers/litmus/control.js';
import { CtorBook, defineCounted, keepCounts } from '#workers/litmus/ctor.js';
import { boot, expectSound, footprint, inside, secondCpu } from '../cache/support/arena.js';
import { launch, runTeam, until } from '../litmus/support/team.js';
import { defineStranger, expectSettled, keepBook } from './support.js';

const MS = Number(process.env.GRANARY_CTOR_MS ?? 120);
const THREADS = 8;

/** This thread knows the caches of the roles too. */
const DEFINED = {
  object: defineCounted('object', 200),
  slab: defineCounted('slab', 200),
  death: defineCounted('object', 1000),
};

interface FireResult {
  allocs: number;
  failures: number;
  frees: number;
  unconstructed: number;
}

function expectBalanced(control: Control): void {
  expect(control.get(CtorBook.wrong), 'objects constructed or destructed twice').toBe(0);
  expect(control.get(CtorBook.destructed)).toBe(control.get(CtorBook.constructed));
}

const LAYERS: Layer[] = ['sheaves', 'percpu-array', 'cpu-slab', 'none'];
const FIRES = LAYERS.map((layer, i) => ({
  layer,
  lockPolicy: (i % 2 === 0 ? 'turn' : 'op') as LockPolicy,
  form: (i < 2 ? 'object' : 'slab') as 'object' | 'slab',
  refinements: i % 2 === 0 ? {} : { lazyFreelist: false, returnFreelist: false },
}));

describe.each(FIRES)('under fire: $layer, $lockPolicy, by $form, $refinements', (fire) => {
  const { layer, lockPolicy, form, refinements } = fire;

  it('every object that was constructed is destructed once, whichever of a slab fails', async () => {
    const arena = boot({
      bytes: 24 << 20,
      cpus: THREADS + 1,
      layer,
      lockPolicy,
      refinements,
      lockdep: false,
    });
    const control = new Control();
    keepCounts(control);
    const cache = arena.createCache(DEFINED[form]);
    cache.minPartial = 0;
    const before = footprint(arena);
    // Prime to the objects of a slab, so that in time each position fails.
    const failEvery = 2 * cache.objsPerSlab + 1;
    control.set(CtorBook.failEvery, failEvery);
    const tasks = Array.from({ length: THREADS }, (_, i) => ({ seed: i + 1, form, size: 200, ms: MS }));
    const results = await runTeam<FireResult>('underFire', arena.handle, tasks, control);
    for (const { allocs, frees, unconstructed } of results) {
      expect(allocs).toBeGreaterThan(0);
      expect(frees).toBe(allocs);
      expect(unconstructed).toBe(0);
    }
    expect(control.get(CtorBook.calls)).toBeGreaterThan(2 * failEvery);
    expect(footprint(arena)).toEqual(before);
    expectSound(arena);
    expect(cache.destroy().leaked).toBe(0);
    expectBalanced(control);
  });
});

describe('a thread that dies', () => {
  async function dieIn(how: 'ctor' | 'dtor', nth: number): Promise<Death> {
    const arena = boot({ cpus: 2, lockdep: false });
    const control = new Control();
    keepCounts(control);
    const cache = arena.createCache(DEFINED.death);
    const before = footprint(arena);
    arena.endTurn();
    control.set(how === 'ctor' ? CtorBook.stopAtCtor : CtorBook.stopAtDtor, nth);
    control.open();
    const args = { how, n: 40, form: 'object', size: 1000 };
    const { worker, exited } = launch('dieInCallback', { control, handle: arena.handle, args });
    await until(() => control.get(CtorBook.stopped) !== 0);
    await worker.terminate();
    await exited;
    return { arena, cache, control, before };
  }
  interface Death {
    arena: Arena;
    cache: KmemCache;
    control: Control;
    before: Record<string, number>;
  }

  it.each([1, 2, 4, 8, 11, 19])(
    'in constructor %i leaves a slab whose constructed objects its reaper destructs',
    async (nth) => {
      const { arena, cache, control } = await dieIn('ctor', nth);
      const slabs = Math.floor((nth - 1) / cache.objsPerSlab);
      const { notes } = arena.cpuDead(1);
      const said = notes.filter((note) => /its constructor was at 0x[0-9a-f]+/.test(note));
      expect(said).toHaveLength(1);
      // What its sheaf was to hold died with it; the slab that was being made did not.
      expect(control.get(CtorBook.constructed)).toBe(nth - 1);
      expect(control.get(CtorBook.destructed)).toBe(nth - 1 - slabs * cache.objsPerSlab);
      expect(control.get(CtorBook.wrong)).toBe(0);
      expect(cache.alloc()).not.toBe(0);
    },
  );

  it.each([1, 3, 8, 9, 16])(
    'in destructor %i leaves the others to its reaper, and is not begun twice',
    async (nth) => {
      const { arena, cache, control, before } = await dieIn('dtor', nth);
      const { notes } = arena.cpuDead(1);
      expect(
        notes.some((note) => /its destructor may not have come to an end for 0x[0-9a-f]+/.test(note)),
      ).toBe(true);
      // slab_mutex was not held: destructors run when it has been given up.
      expect(cache.shrink().skippedCpus).toEqual([]);
      expect(footprint(arena)).toEqual(before);
      expectSound(arena);
      cache.destroy();
      expectBalanced(control);
    },
  );

  it('in a callback keeps destroy from ending the cache until it is reaped', async () => {
    const { arena, cache } = await dieIn('dtor', 3);
    expect(() => cache.destroy()).toThrow(
      /thread slot 1 has been in a constructor or destructor of .*arena\.cpuDead\(1\)/,
    );
    arena.cpuDead(1);
    expect(cache.destroy().leaked).toBe(0);
    expectSound(arena);
  });
});

describe('a thread without the functions', () => {
  it('frees objects, leaves the destructors to others, and is told what to import when it opens the cache', async () => {
    const arena = boot({ cpus: 2 });
    const { defined, destructed } = defineStranger();
    const cache = arena.createCache(defined);
    cache.minPartial = 0;
    const before = footprint(arena);
    const objects = Array.from({ length: 200 }, () => cache.alloc());
    arena.endTurn();
    const control = new Control();
    const args = { objects: objects.join(','), name: cache.name };
    const { result, exited } = launch<string>('freeAsStranger', { control, handle: arena.handle, args });
    expect(await result).toMatch(
      new RegExp(
        `CacheDefinitionError: cache ${cache.name}: its functions are not on this thread; import the module .*support`,
      ),
    );
    await exited;
    expect(destructed).toEqual([]);
    expect(inside(arena).slabs.callbacks.hasWaiting(cache.desc)).toBe(true);
    expectSound(arena);
    cache.shrink();
    expect(footprint(arena)).toEqual(before);
    expect(new Set(destructed).size).toBe(destructed.length);
    expect(objects.every((p) => destructed.includes(p))).toBe(true);
    cache.destroy();
    expectSound(arena);
  });
});

describe('a reclaim worker', () => {
  it('destructs what it takes out of caches, in its own thread', () => {
    const arena = boot({ bytes: 4 << 20, cpus: 2, lockdep: false });
    const book = keepBook({ size: 500 });
    const cache = arena.createCache(book.defined);
    const objects = Array.from({ length: 1500 }, () => cache.alloc());
    for (const p of objects) cache.free(p);
    arena.endTurn();
    const before = book.destructed.length;
    const worker = secondCpu(arena);
    const hogs: number[] = [];
    for (let p = arena.allocPages(0, GFP_NOWAIT); p !== 0; p = arena.allocPages(0, GFP_NOWAIT)) hogs.push(p);
    book.within = () => expect(worker.cpu.locks.held).toBe(0);
    const pages = worker.reclaimWorker().step();
    expect(pages).toBeGreaterThan(0);
    expect(book.destructed.length).toBeGreaterThan(before);
    for (const p of hogs) arena.freePages(p, 0);
    worker.offline();
    cache.destroy();
    expectSettled(book);
    expectSound(arena);
  });
});
