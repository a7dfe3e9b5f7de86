/** Freed objects wait, poisoned, and what is written into them meanwhile is found when they leave. */
import { describe, expect, it } from 'vitest';
import {
  type Arena,
  GFP_KERNEL,
  LAYER_STAT_ITEMS,
  type LockPolicy,
  SLAB_ACCOUNT,
  SLAB_TYPESAFE_BY_RCU,
  SlabBugError,
  type SlabReport,
} from '#src/index.js';
import type { Layer } from '#src/struct/index.js';
import { Control } from '#workers/litmus/control.js';
import {
  allocMany,
  boot,
  expectRefused,
  expectSound,
  footprint,
  freeMany,
  inside,
  secondCpu,
} from '../cache/support/arena.js';
import { launch, runTeam } from '../litmus/support/team.js';
import { takePages } from '../pressure/support.js';

const SIZE = 64;
/** Sixteen objects wait. */
const WAITING = 16;
const QUARANTINE = WAITING * SIZE;

function reportsOf(arena: Arena): SlabReport[] {
  const reports: SlabReport[] = [];
  arena.onSlabReport((report) => reports.push(report));
  return reports;
}

const LAYERS = Object.keys(LAYER_STAT_ITEMS) as Layer[];
const POLICIES: LockPolicy[] = ['turn', 'op'];
const KINDS = LAYERS.flatMap((layer) => POLICIES.map((lockPolicy) => ({ layer, lockPolicy })));

describe.each(KINDS)('a quarantine, layer $layer, policy $lockPolicy', ({ layer, lockPolicy }) => {
  const setup = () => {
    const arena = boot({ layer, lockPolicy });
    return { arena, cache: arena.createCache('c', { size: SIZE, quarantine: QUARANTINE }) };
  };

  it('keeps the last objects that were freed from being used again, in the order of their frees', () => {
    const { arena, cache } = setup();
    const freed = allocMany(cache, WAITING);
    freeMany(cache, freed);
    const fresh = allocMany(cache, 200);
    expect(fresh.filter((p) => freed.includes(p))).toEqual([]);
    cache.free(fresh.pop()!); // the first of them leaves
    const rest = allocMany(cache, 300);
    expect(rest.filter((p) => freed.includes(p))).toEqual([freed[0]]);
    freeMany(cache, [...fresh, ...rest]);
    arena.endTurn();
    expectSound(arena);
    expect(cache.destroy().leaked).toBe(0);
    expectSound(arena);
  });

  it('poisons them, and refuses a second free as of any free object', () => {
    const { arena, cache } = setup();
    const [p] = allocMany(cache, 1) as [number];
    arena.u8.fill(1, p, p + SIZE);
    cache.free(p);
    expect([...arena.u8.subarray(p, p + SIZE)]).toEqual([...Array(SIZE - 1).fill(0x6b), 0xa5]);
    arena.endTurn();
    expectSound(arena);
    for (const free of [
      () => cache.free(p),
      () => cache.freeBulk(Int32Array.of(p), 1),
      () => cache.freeRcu(p),
    ]) {
      expectRefused(arena, free, SlabBugError, /Object already free/);
    }
  });

  it('reports a write into one when it leaves, once, and gives the object on', () => {
    const { arena, cache } = setup();
    const reports = reportsOf(arena);
    const objects = allocMany(cache, 1 + WAITING);
    const [victim] = objects as [number];
    cache.free(victim);
    arena.u8[victim + 10] = 1;
    arena.u8[victim + 13] = 2;
    freeMany(cache, objects.slice(1, WAITING));
    expect(reports).toEqual([]);
    cache.free(objects[WAITING]!);
    arena.endTurn();
    expect(reports.map(({ kind, what }) => `${kind}: ${what}`)).toEqual([
      'bug: Quarantine overwritten',
      expect.stringMatching(/^fix: Restoring Quarantine/),
    ]);
    const damage = { area: 'Quarantine', from: victim + 10, to: victim + 14, expected: 0x6b, found: 1 };
    expect(reports[0]).toMatchObject({ cache: 'c', object: { address: victim }, damage });
    expectSound(arena);
    expect(cache.destroy().leaked).toBe(0);
  });

  it('takes what bulk frees and kfree_rcu free, too', () => {
    const { arena, cache } = setup();
    const objects = allocMany(cache, 12);
    cache.freeBulk(Int32Array.from(objects.slice(0, 6)), 6);
    for (const p of objects.slice(6)) cache.freeRcu(p);
    cache.rcuBarrier();
    for (const p of objects) expect(arena.u8[p], `0x${p.toString(16)}`).toBe(0x6b);
    expect(allocMany(cache, 100).filter((p) => objects.includes(p))).toEqual([]);
    arena.endTurn();
    expectSound(arena);
  });

  it('is emptied by shrink and by offline, on the CPU that freed', () => {
    const { arena, cache } = setup();
    const other = secondCpu(arena);
    const theirs = other.openCache('c');
    const before = footprint(arena).c;
    freeMany(theirs, allocMany(theirs, 10));
    other.endTurn();
    expect(waitingIn(arena)).toBe(10);
    cache.shrink();
    expect(waitingIn(arena)).toBe(0);
    freeMany(theirs, allocMany(theirs, 10));
    other.offline();
    expect(waitingIn(arena)).toBe(0);
    expect(footprint(arena).c).toBe(before);
    expectSound(arena);
  });
});

/** Objects of 'c' in the rings of all CPUs. */
function waitingIn(arena: Arena): number {
  let waiting = 0;
  arena.openCache('c').forEachCached((_p, place) => {
    if (place.startsWith('the quarantine')) waiting++;
  });
  return waiting;
}

describe('a quarantine and memory', () => {
  it('gives way when pages are short', () => {
    const arena = boot({ bytes: 8 << 20 });
    const cache = arena.createCache('c', { size: 4096, quarantine: 4096 * 200 });
    freeMany(cache, allocMany(cache, 200));
    arena.endTurn();
    expect(waitingIn(arena)).toBe(200);
    const taken = takePages(arena, GFP_KERNEL);
    expect(waitingIn(arena)).toBe(0);
    for (const p of taken) arena.freePages(p, 0);
    expectSound(arena);
  });

  it('gives its rings back with the cache, and makes none when there is no room', () => {
    const arena = boot();
    const make = () => arena.createCache('c', { size: SIZE, quarantine: 1 << 20 });
    make().destroy();
    const before = footprint(arena);
    make().destroy();
    expect(footprint(arena)).toEqual(before);
    const taken = takePages(arena, GFP_KERNEL);
    expect(make).toThrow(/no memory for cache c/);
    for (const p of taken) arena.freePages(p, 0);
    expect(footprint(arena)).toEqual(before);
    expectSound(arena);
  });

  it('keeps what leaves zeroed with initOnFree', () => {
    const arena = boot({ initOnFree: true });
    const reports = reportsOf(arena);
    const cache = arena.createCache('c', { size: SIZE, quarantine: SIZE });
    const [p, q, r] = allocMany(cache, 3) as [number, number, number];
    for (const at of [p, q, r]) arena.u8.fill(7, at, at + SIZE);
    cache.free(p);
    arena.u8[p + SIZE - 1] = 3;
    cache.free(q);
    cache.free(r);
    arena.endTurn();
    expect(reports.map(({ what }) => what)).toContain('Quarantine overwritten');
    for (const at of [p, q, r])
      expect(arena.u8.subarray(at + 8, at + SIZE).every((byte) => byte === 0)).toBe(true);
    expectSound(arena);
  });

  it('is behind slab_debug, too, which finds what it finds when the object leaves', () => {
    const arena = boot({ slabDebug: 'FZPU,c' });
    const reports = reportsOf(arena);
    const cache = arena.createCache('c', { size: 60, quarantine: 4096 });
    const [p] = allocMany(cache, 1) as [number];
    arena.u8[p + 61] = 1; // behind the object, before it is freed
    cache.free(p);
    expect(reports).toEqual([]);
    cache.shrink();
    arena.endTurn();
    expect(reports[0]).toMatchObject({ what: expect.stringMatching(/Redzone overwritten/) });
  });
});

describe('the option quarantine', () => {
  it('of the arena is for each cache that the program makes, unless that says otherwise', () => {
    const arena = boot({ quarantine: QUARANTINE, caches: [{ name: 's', size: SIZE }], merge: 'kernel' });
    const waits = (name: string, options = {}): boolean => {
      const cache =
        name === 's' ? arena.openCache(name) : arena.createCache(name, { size: SIZE, ...options });
      const [p] = allocMany(cache, 1) as [number];
      cache.free(p);
      return cache.alloc() !== p;
    };
    expect(waits('s')).toBe(true);
    expect(waits('c')).toBe(true);
    expect(waits('off', { quarantine: 0 })).toBe(false);
    expect(waits('large', { size: 2 * QUARANTINE })).toBe(false);
    expect(waits('accounted', { flags: SLAB_ACCOUNT })).toBe(false);
    expect(waits('typesafe', { flags: SLAB_TYPESAFE_BY_RCU })).toBe(false);
    arena.endTurn();
    expectSound(arena);
  });

  it.each([
    [{ quarantine: -1 }, /quarantine is -1; it must be an integer from 0/],
    [{ quarantine: 32 }, /with objects of 64 bytes it must be at least 64/],
    [{ quarantine: 4096, flags: SLAB_ACCOUNT }, /SLAB_ACCOUNT gives its charges back at once/],
    [{ quarantine: 4096, flags: SLAB_TYPESAFE_BY_RCU }, /readers may look at free objects/],
  ])('of a cache is refused where it cannot be: %o', (options, message) => {
    const arena = boot();
    expectRefused(arena, () => arena.createCache('c', { size: SIZE, ...options }), RangeError, message);
  });

  it('needs to know what is free', () => {
    expect(() => boot({ check: 'none', quarantine: 4096 })).toThrow(/check 'none'/);
    const arena = boot({ check: 'none' });
    expect(() => arena.createCache('c', { size: SIZE, quarantine: 4096 })).toThrow(
      /needs an arena with check/,
    );
  });
});

describe.each(POLICIES)('real threads, policy %s', (lockPolicy) => {
  it('two that free what the other allocated lose nothing and report nothing', async () => {
    const arena = boot({ cpus: 3, lockPolicy, bytes: 16 << 20 });
    arena.createCache('c', { size: SIZE, quarantine: QUARANTINE });
    arena.endTurn();
    const tasks = [1, 2].map((cpu) => ({ cpu, seed: cpu, rounds: 20_000 }));
    const results = await runTeam<{ damaged: number; freed: number }>('trade', arena.handle, tasks);
    expect(results.map(({ damaged }) => damaged)).toEqual([0, 0]);
    expect(results[0]!.freed + results[1]!.freed).toBe(40_000);
    const cache = arena.openCache('c');
    expect(cache.debug.errors).toBe(0);
    expectSound(arena);
    expect(cache.destroy().leaked).toBe(0);
    expectSound(arena);
  });

  it('what a thread left waiting when it died is freed by its reaper, and looked at', async () => {
    const arena = boot({ cpus: 2, lockPolicy });
    const reports = reportsOf(arena);
    const cache = arena.createCache('c', { size: SIZE, quarantine: QUARANTINE });
    arena.endTurn();
    const args = { cpu: 1, n: 50, freed: 10, how: 'exit' };
    await launch('leave', { control: new Control(), handle: arena.handle, args }).exited;
    expect(waitingIn(arena)).toBe(10);
    cache.forEachCached((p, place) => {
      if (place.startsWith('the quarantine')) arena.u8[p + 1] = 0;
    });
    expect(arena.cpuDead(1)).toEqual({ cpu: 1, heldLocks: [], notes: [] });
    expect(waitingIn(arena)).toBe(0);
    expect(reports.filter(({ kind }) => kind === 'bug')).toHaveLength(10);
    expectSound(arena);
    expect(cache.destroy().leaked).toBe(40);
    expect(inside(arena).cpu.online).toBe(true);
  });
});
