/** Percpu memory that is charged while its object is allocated, and stays where it is while the object is free. */
import { describe, expect, it } from 'vitest';
import {
  __GFP_ACCOUNT,
  type Arena,
  defineCache,
  GFP_KERNEL,
  type MemoryGroup,
  PERCPU_COUNTER_BYTES,
  SLAB_ACCOUNT,
  SlabBugError,
} from '#src/index.js';
import {
  CTOR_FIELDS_OFFSET,
  chargeMm,
  mmPercpuBytes,
  mmStructCache,
  PCPU_CID,
  RSS_STAT,
  unchargeMm,
} from '#src/lab/workloads/mmStruct.js';
import { Control } from '#workers/litmus/control.js';
import type { ChargedResult } from '#workers/litmus/groups.js';
import { allocMany, expectRefused, expectSound, MiB, secondCpu } from '../cache/support/arena.js';
import { launch, runTeam, until } from '../litmus/support/team.js';
import { bootPercpu, info } from '../percpu/support.js';

const CPUS = 3;

/** Exactly what is charged once no turn is open. */
function settled(arena: Arena, group: MemoryGroup): number {
  arena.endTurn();
  return group.usage;
}

function workFor(arena: Arena, limit?: number): MemoryGroup {
  const group = arena.groups.create('g', limit === undefined ? {} : { limit });
  arena.groups.workFor(group);
  return group;
}

describe('an area', () => {
  it('is charged with every copy, and given back, without being allocated again', () => {
    const arena = bootPercpu({ lockStat: 'contended' });
    const { percpu } = arena;
    const locks = (): number[] =>
      arena
        .lockStat()
        .filter(({ name }) => name.startsWith('pcpu'))
        .map(({ acquisitions }) => acquisitions);
    const sizes = [1, 4, 30, 1000, 4096, 9000];
    const areas = sizes.map((size) => percpu.alloc(size));
    const group = workFor(arena);
    for (const p of areas) percpu.charge(p); // makes the vector
    for (const p of areas) percpu.uncharge(p);
    const { nrAlloc } = info(arena);
    const before = locks();
    for (let life = 0; life < 3; life++) {
      for (const p of areas) expect(percpu.charge(p)).toBe(true);
      // Words; and whole pages beyond a page.
      expect(settled(arena, group)).toBe((4 + 4 + 32 + 1000 + 4096 + 12288) * CPUS);
      for (const p of areas) percpu.uncharge(p);
      expect(settled(arena, group)).toBe(0);
    }
    expect([locks(), info(arena).nrAlloc]).toEqual([before, nrAlloc]);
    expectSound(arena);
  });

  it('that is charged stays so, and is given back once', () => {
    const arena = bootPercpu();
    const p = arena.allocPercpu(64);
    const group = workFor(arena);
    for (let i = 0; i < 3; i++) expect(arena.percpu.charge(p)).toBe(true);
    expect(settled(arena, group)).toBe(64 * CPUS);
    for (let i = 0; i < 3; i++) arena.percpu.uncharge(p);
    expect(settled(arena, group)).toBe(0);
  });

  it('that is freed gives its charge back, also into a cache of areas', () => {
    for (const percpu of [{}, { areaCache: 8 }]) {
      const arena = bootPercpu({ percpu });
      const group = workFor(arena);
      const p = arena.allocPercpu(64, 8, GFP_KERNEL | __GFP_ACCOUNT);
      expect(settled(arena, group)).toBe(64 * CPUS);
      expect(arena.validate()).toEqual([]);
      arena.freePercpu(p);
      expect(() => arena.freePercpu(p)).toThrow(SlabBugError);
      expect(settled(arena, group)).toBe(0);
      const again = arena.allocPercpu(64);
      expect([again, settled(arena, group)]).toEqual([p, 0]);
      expectSound(arena);
    }
  });

  it('is not had with __GFP_ACCOUNT where its charge is refused', () => {
    const arena = bootPercpu();
    const group = workFor(arena, 64 * CPUS);
    const p = arena.allocPercpu(64, 8, GFP_KERNEL | __GFP_ACCOUNT);
    const { nrAlloc } = info(arena);
    expect(arena.allocPercpu(4, 4, GFP_KERNEL | __GFP_ACCOUNT)).toBe(0);
    expect(info(arena).nrAlloc).toBe(nrAlloc);
    expect(group.info).toMatchObject({ usage: 64 * CPUS });
    const fbc = arena.kmalloc(2 * PERCPU_COUNTER_BYTES);
    const { counters } = arena.percpu;
    expect(counters.initMany(fbc, 0, 2, GFP_KERNEL | __GFP_ACCOUNT)).toBe(false);
    arena.freePercpu(p);
    expect(counters.initMany(fbc, 0, 2, GFP_KERNEL | __GFP_ACCOUNT)).toBe(true);
    expect(settled(arena, group)).toBe(2 * 4 * CPUS);
    counters.destroyMany(fbc, 2);
    expect(settled(arena, group)).toBe(0);
    expectSound(arena);
  });

  it('of a thread without a group belongs to nobody', () => {
    const arena = bootPercpu();
    const p = arena.allocPercpu(64, 8, GFP_KERNEL | __GFP_ACCOUNT);
    const group = workFor(arena);
    arena.percpu.uncharge(p);
    expect(settled(arena, group)).toBe(0);
    arena.groups.workFor(null);
    expect(arena.percpu.charge(p)).toBe(true);
    arena.groups.workFor(group);
    arena.freePercpu(p);
    expect(settled(arena, group)).toBe(0);
  });

  it('is named by its start', () => {
    const arena = bootPercpu();
    const { percpu } = arena;
    const p = percpu.alloc(64);
    workFor(arena);
    percpu.charge(p);
    for (const call of ['charge', 'uncharge'] as const) {
      expectRefused(arena, () => percpu[call](p + 4), SlabBugError, /is not the start of an area/);
      expectRefused(arena, () => percpu[call](0), SlabBugError, /is no percpu address/);
      expectRefused(arena, () => percpu[call](p + 64), SlabBugError, /is in no area/);
    }
  });

  it('is not charged without memory for the vector of its chunk', () => {
    const arena = bootPercpu();
    const p = arena.allocPercpu(64);
    const group = workFor(arena);
    arena.failPageAlloc(1);
    expect(arena.percpu.charge(p)).toBe(false);
    arena.failPageAlloc(0);
    expect(settled(arena, group)).toBe(0);
    expect(arena.percpu.charge(p)).toBe(true);
    expectSound(arena);
  });

  it('takes the vector of its chunk with it when the chunk goes', () => {
    const arena = bootPercpu();
    const group = workFor(arena);
    const all = Array.from({ length: 3 }, () => arena.allocPercpu(32 << 10, 8, GFP_KERNEL | __GFP_ACCOUNT));
    expect(settled(arena, group)).toBe(3 * (32 << 10) * CPUS);
    const before = arena.meminfo().usedPages;
    for (const p of all) arena.freePercpu(p);
    arena.percpu.balance();
    // Two chunks go with their pages and vectors; those of the one that stays do, too, or most.
    expect(arena.meminfo().usedPages).toBeLessThanOrEqual(before - 2 * (8 * CPUS + 8));
    expect(settled(arena, group)).toBe(0);
    expectSound(arena);
  });

  it('is uncharged by whoever frees it, from the group that was charged', () => {
    const arena = bootPercpu();
    const other = secondCpu(arena);
    const theirs = arena.groups.create('theirs');
    other.groups.workFor(other.groups.open('theirs'));
    const mine = workFor(arena);
    const [p, q] = [arena.allocPercpu(100), arena.allocPercpu(100)];
    expect([arena.percpu.charge(p), other.percpu.charge(q)]).toEqual([true, true]);
    other.endTurn();
    expect([settled(arena, mine), theirs.usage]).toEqual([100 * CPUS, 100 * CPUS]);
    other.percpu.uncharge(p);
    arena.freePercpu(q);
    other.endTurn();
    expect([settled(arena, mine), theirs.usage]).toEqual([0, 0]);
    expect(() => arena.groups.destroy(mine)).toThrow(/has 1 threads/);
  });
});

describe('counters', () => {
  it('of many are charged for their one area, and keep what they count', () => {
    const arena = bootPercpu();
    const { counters } = arena.percpu;
    const group = workFor(arena);
    const fbc = arena.kmalloc(4 * PERCPU_COUNTER_BYTES);
    counters.initMany(fbc, 7, 4);
    const { nrAlloc } = info(arena);
    counters.add(fbc, 5);
    for (let life = 0; life < 3; life++) {
      expect(counters.chargeMany(fbc, 4)).toBe(true);
      expect(settled(arena, group)).toBe(4 * 4 * CPUS);
      counters.unchargeMany(fbc, 4);
      expect(settled(arena, group)).toBe(0);
    }
    expect([counters.sum(fbc), info(arena).nrAlloc]).toEqual([12, nrAlloc]);
    expect(() => counters.chargeMany(fbc, 5)).toThrow(/n is 5; fewer counters were made/);
    counters.chargeMany(fbc, 4);
    counters.destroyMany(fbc, 4);
    expect(settled(arena, group)).toBe(0);
    expect(() => counters.chargeMany(fbc, 4)).toThrow(SlabBugError);
    expect(() => counters.unchargeMany(3, 4)).toThrow(/3 is not a multiple of 8/);
    expectSound(arena);
  });
});

describe('an mm_struct whose constructor has its percpu memory', () => {
  const bytes = mmPercpuBytes(CPUS);

  it('is charged for it from allocation to free, and by nobody while it is free', () => {
    const arena = bootPercpu();
    const cache = arena.createCache(mmStructCache);
    const group = workFor(arena);
    const mms = allocMany(cache, 30);
    expect(settled(arena, group)).toBe(0);
    for (let life = 0; life < 3; life++) {
      for (const mm of mms) expect(chargeMm(arena, mm)).toBe(true);
      arena.i32.fill(0, mms[0]! >> 2, (mms[0]! + CTOR_FIELDS_OFFSET) >> 2);
      expect(settled(arena, group)).toBe(30 * bytes);
      const { nrAlloc } = info(arena);
      for (const mm of mms.splice(0)) {
        unchargeMm(arena, mm);
        cache.free(mm);
      }
      expect([settled(arena, group), info(arena).nrAlloc]).toEqual([0, nrAlloc]);
      mms.push(...allocMany(cache, 30));
    }
    for (const mm of mms) cache.free(mm);
    expect(cache.destroy().leaked).toBe(0);
    expect(info(arena).nrAlloc).toBe(0);
    expectSound(arena);
  });

  it('goes back when its charge is refused, with its memory, and half a charge goes back', () => {
    const arena = bootPercpu();
    const cache = arena.createCache(mmStructCache);
    const group = workFor(arena, 2 * bytes + 16 * CPUS); // the third has room for its cid alone
    const mms = allocMany(cache, 3);
    expect(mms.map((mm) => chargeMm(arena, mm))).toEqual([true, true, false]);
    expect(settled(arena, group)).toBe(2 * bytes);
    const third = mms.pop()!;
    const cid = arena.i32[(third + PCPU_CID) >> 2]!;
    cache.free(third);
    expect(cache.alloc()).toBe(third);
    expect(arena.i32[(third + PCPU_CID) >> 2]).toBe(cid);
    unchargeMm(arena, mms[0]!);
    expect(chargeMm(arena, third)).toBe(true);
    expect([settled(arena, group), arena.percpu.counters.sum(third + RSS_STAT)]).toEqual([2 * bytes, 0]);
    for (const mm of [third, ...mms]) {
      unchargeMm(arena, mm);
      cache.free(mm);
    }
    expect(settled(arena, group)).toBe(0);
    cache.destroy();
    expect(info(arena).nrAlloc).toBe(0);
    expectSound(arena);
  });

  it('adds up with what its object is charged, in a cache with SLAB_ACCOUNT', () => {
    const arena = bootPercpu();
    const AT = 56;
    const both = defineCache('charged-both', {
      size: 64,
      flags: SLAB_ACCOUNT,
      ctor: (p, here: Arena) => {
        const area = here.allocPercpu(24);
        here.i32[(p + AT) >> 2] = area;
        return area === 0 ? 12 : 0;
      },
      dtor: (p, here: Arena) => here.freePercpu(here.i32[(p + AT) >> 2]!),
    });
    const cache = arena.createCache(both);
    const cost = cache.size + 24 * CPUS;
    const group = workFor(arena, 50 * cost);
    const areaOf = (p: number): number => arena.i32[(p + AT) >> 2]!;
    const take = (): number => {
      const p = cache.alloc();
      if (p === 0 || arena.percpu.charge(areaOf(p))) return p;
      cache.free(p);
      return 0;
    };
    const held: number[] = [];
    for (let p = take(); p !== 0; p = take()) held.push(p);
    expect([held.length, settled(arena, group)]).toEqual([50, 50 * cost]);
    for (const p of held) {
      arena.percpu.uncharge(areaOf(p));
      cache.free(p);
    }
    expect(settled(arena, group)).toBe(0);
    cache.destroy();
    expectSound(arena);
  });
});

describe('threads', () => {
  it('that charge within one limit never exceed it, and everything adds up in the end', async () => {
    const THREADS = 4;
    const arena = bootPercpu({ bytes: 32 * MiB, cpus: THREADS + 1, lockdep: false });
    const cache = arena.createCache(mmStructCache);
    const bytes = mmPercpuBytes(THREADS + 1);
    const above = arena.groups.create('above', { limit: 20 * bytes });
    const groups = ['a', 'b'].map((name) => arena.groups.create(name, { parent: above }));
    const tasks = Array.from({ length: THREADS }, (_, i) => ({
      group: 'ab'[i % 2]!,
      seed: i + 1,
      ms: 300,
      keep: i,
    }));
    arena.endTurn();
    const results = await runTeam<ChargedResult>('chargedMm', arena.handle, tasks);
    for (const { over } of results) expect(over).toBeLessThanOrEqual(0);
    expect(results.reduce((sum, { refused }) => sum + refused, 0)).toBeGreaterThan(0);
    const held = results.flatMap((result) => result.held);
    expect(groups.map(({ usage }) => usage / bytes)).toEqual([0 + 2, 1 + 3]);
    expect(above.usage).toBe(held.length * bytes);
    for (const mm of held) {
      unchargeMm(arena, mm);
      cache.free(mm);
    }
    arena.endTurn();
    expect(arena.groups.list().map(({ usage }) => usage)).toEqual([0, 0, 0]);
    expect(cache.destroy().leaked).toBe(0);
    expect(info(arena).nrAlloc).toBe(0);
    expectSound(arena);
  });

  it('that die leave what their objects are charged, until somebody frees them', async () => {
    const arena = bootPercpu({ cpus: 2, lockdep: false });
    const cache = arena.createCache(mmStructCache);
    const bytes = mmPercpuBytes(2);
    const above = arena.groups.create('above', { limit: 1 << 20 });
    const group = arena.groups.create('a', { parent: above });
    arena.endTurn();
    const control = new Control();
    control.open();
    const args = { group: 'a', seed: 1, ms: 50, keep: 10, how: 'die' };
    const { worker, exited } = launch('chargedMm', { control, handle: arena.handle, args });
    await until(() => control.get(0) !== 0);
    await worker.terminate();
    await exited;
    arena.cpuDead(1);
    expect([group.usage, above.usage]).toEqual([10 * bytes, 10 * bytes]);
    const leak = cache.destroy();
    expect(leak.leaked).toBe(10);
  });
});
