/** Memory groups: what is charged where, what a limit refuses, and that it adds up. */
import { describe, expect, it } from 'vitest';
import {
  __GFP_ACCOUNT,
  __GFP_NOWARN,
  type Arena,
  GFP_KERNEL,
  type KmemCache,
  type Layer,
  type LockPolicy,
  type MemoryGroup,
  SLAB_ACCOUNT,
  SLAB_TYPESAFE_BY_RCU,
  SlabBugError,
  STOCK_BYTES,
} from '#src/index.js';
import { demoInfo, infoText } from '#src/lab/info.js';
import { calculateSizes, orderObjects } from '#src/slab/index.js';
import { Control } from '#workers/litmus/control.js';
import type { ChargedResult } from '#workers/litmus/groups.js';
import { allocMany, boot, expectSound, freeMany, MiB, secondCpu } from '../cache/support/arena.js';
import { launch, runTeam, until } from '../litmus/support/team.js';

const LAYERS: Layer[] = ['sheaves', 'percpu-array', 'cpu-slab', 'none'];
const POLICIES: LockPolicy[] = ['turn', 'op'];
const MATRIX = LAYERS.flatMap((layer) => POLICIES.map((lockPolicy) => ({ layer, lockPolicy })));

function accounted(arena: Arena, layer: Layer = 'sheaves', size = 64): KmemCache {
  return arena.createCache('charged', { size, layer, flags: SLAB_ACCOUNT });
}

/** Exactly what is charged once no turn is open. */
function settled(arena: Arena, group: MemoryGroup): number {
  arena.endTurn();
  return group.usage;
}

describe.each(MATRIX)('a cache with SLAB_ACCOUNT: $layer, $lockPolicy', ({ layer, lockPolicy }) => {
  it('charges each object to the group of its thread, and gives it back, in every way to allocate and free', () => {
    const arena = boot({ layer, lockPolicy });
    const cache = accounted(arena, layer);
    const group = arena.groups.create('g');
    arena.groups.workFor(group);
    const held: number[] = [];
    const expectHeld = (): void => expect(settled(arena, group)).toBe(held.length * cache.size);
    for (let round = 0; round < 3; round++) {
      held.push(...allocMany(cache, 200));
      expectHeld();
      const out = new Int32Array(70);
      expect(cache.allocBulk(out, 70)).toBe(true);
      held.push(...out, cache.allocNode(0), cache.allocOrThrow());
      expectHeld();
      const sheaf = cache.prefill(10)!;
      held.push(sheaf.alloc(), sheaf.alloc());
      cache.return(sheaf);
      expectHeld();
      cache.freeBulk(Int32Array.from(held.splice(0, 60)), 60);
      arena.kfree(held.pop()!);
      cache.freeRcu(held.pop()!);
      expectHeld(); // at once
      arena.kfreeRcuBarrier();
      expectHeld(); // and once
      freeMany(cache, held.splice(0, 90));
      expectHeld();
    }
    freeMany(cache, held.splice(0));
    expectHeld();
    expect(group.info).toMatchObject({
      name: 'g',
      parent: null,
      limit: null,
      usage: 0,
      failures: 0,
      forced: 0,
    });
    expect(group.info.peak).toBeGreaterThan(500 * cache.size);
    expect(cache.destroy().leaked).toBe(0);
    arena.groups.workFor(null);
    arena.groups.destroy(group);
    expect(arena.groups.list()).toEqual([]);
    expectSound(arena);
  });

  it('gives an object back when its charge is refused, and never exceeds the limit', () => {
    const arena = boot({ layer, lockPolicy });
    const cache = accounted(arena, layer);
    const limit = 100 * cache.size;
    const group = arena.groups.create('g', { limit });
    arena.groups.workFor(group);
    const held = allocMany(cache, 100);
    expect(group.usage).toBe(limit);
    for (let i = 0; i < 10; i++) expect(cache.alloc(GFP_KERNEL | __GFP_NOWARN)).toBe(0);
    expect(cache.allocBulk(new Int32Array(3), 3)).toBe(false);
    expect(cache.allocNode(0)).toBe(0);
    expect(group.usage).toBe(limit);
    expect(group.info.failures).toBeGreaterThan(10);
    cache.free(held.pop()!);
    held.push(cache.alloc());
    expect(held.at(-1)).not.toBe(0);
    freeMany(cache, held);
    expect(settled(arena, group)).toBe(0);
    expect(cache.destroy().leaked).toBe(0);
    expectSound(arena);
  });
});

describe('an object', () => {
  it('is given back to the group that it was charged to, by whoever frees it', () => {
    const arena = boot();
    const cache = accounted(arena);
    const [mine, theirs] = [arena.groups.create('mine'), arena.groups.create('theirs')];
    arena.groups.workFor(mine);
    const objects = allocMany(cache, 50);
    const other = secondCpu(arena);
    other.groups.workFor(other.groups.open('theirs'));
    const there = other.openCache('charged');
    freeMany(there, objects.splice(0, 20));
    other.openCache('charged').freeBulk(Int32Array.from(objects.splice(0, 20)), 20);
    expect(settled(arena, mine)).toBe(10 * cache.size);
    other.endTurn();
    expect(theirs.usage).toBe(0);
    arena.groups.workFor(null);
    freeMany(cache, objects);
    expect(settled(arena, mine)).toBe(0);
    const nobodys = cache.alloc();
    other.offline();
    cache.free(nobodys);
    expect(arena.groups.list().map(({ usage }) => usage)).toEqual([0, 0]);
    expectSound(arena);
  });

  it('of a thread without a group, or of a cache without SLAB_ACCOUNT, is charged to nobody', () => {
    const arena = boot();
    const cache = accounted(arena);
    const plain = arena.createCache('plain', { size: 64 });
    const group = arena.groups.create('g', { limit: 0 });
    const free = cache.alloc();
    arena.groups.workFor(group);
    expect(cache.alloc(GFP_KERNEL | __GFP_NOWARN)).toBe(0);
    const p = plain.alloc();
    expect(p).not.toBe(0);
    plain.free(p);
    cache.free(free);
    expect(group.usage).toBe(0);
  });

  it('has its group in padding where there is some, and in a word more where there is none', () => {
    const arena = boot();
    const padded = arena.createCache('padded', { size: 56, align: 64, flags: SLAB_ACCOUNT });
    const tight = arena.createCache('tight', { size: 64, flags: SLAB_ACCOUNT });
    expect({ padded: padded.size, tight: tight.size }).toEqual({ padded: 64, tight: 72 });
    arena.groups.workFor(arena.groups.create('g'));
    for (const cache of [padded, tight]) {
      const objects = allocMany(cache, 200);
      for (const p of objects) arena.u8.fill(0xff, p, p + cache.objectSize); // users reach no further
      freeMany(cache, objects);
    }
    arena.endTurn();
    expect(arena.groups.list()[0]!.usage).toBe(0);
  });

  it('that belongs to nobody can be charged later, once, if the limit allows it', () => {
    const arena = boot();
    const cache = accounted(arena);
    const [p, q] = allocMany(cache, 2) as [number, number];
    const group = arena.groups.create('g', { limit: cache.size });
    expect(cache.charge(p)).toBe(true); // to nobody
    arena.groups.workFor(group);
    expect(settled(arena, group)).toBe(0);
    expect([cache.charge(p), cache.charge(p), cache.charge(q)]).toEqual([true, true, false]);
    expect(settled(arena, group)).toBe(cache.size);
    cache.free(q);
    expect(() => cache.charge(q)).toThrow(SlabBugError);
    cache.free(p);
    expect(settled(arena, group)).toBe(0);
    const plain = arena.createCache('plain', { size: 64 });
    expect(() => plain.charge(plain.alloc())).toThrow(/plain was made without SLAB_ACCOUNT/);
    // Nor does a flag of one call make room for a group, as in the kernel where a cache has no extensions.
    expect(plain.alloc(GFP_KERNEL | __GFP_ACCOUNT)).not.toBe(0);
    expect(settled(arena, group)).toBe(0);
  });

  it('has a word of its stride wherever the slab`s leftover would have room for a vector', () => {
    for (const cpus of [1, 4, 16]) {
      for (let objectSize = 8; objectSize <= 8192; objectSize += 8) {
        const without = calculateSizes({ objectSize, cpus });
        const { size } = calculateSizes({ objectSize, cpus, objExt: true });
        const left = (4096 << without.order) - without.objects * without.size;
        if (left < without.objects * 8) continue;
        expect(orderObjects(without.order, size), `${objectSize}`).toBe(without.objects);
      }
    }
  });

  it('that is freed twice is given back once', () => {
    const arena = boot();
    const cache = accounted(arena);
    const group = arena.groups.create('g');
    arena.groups.workFor(group);
    const [p, q] = allocMany(cache, 2) as [number, number];
    cache.free(p);
    expect(() => cache.free(p)).toThrow(/already free/);
    expect(() => cache.freeBulk(Int32Array.of(q, p), 2)).toThrow(/already free/);
    expect(() => cache.freeRcu(p)).toThrow(/already free/);
    expect(settled(arena, group)).toBe(cache.size);
  });

  it('of a prefilled sheaf is charged whatever the limit: it was promised', () => {
    const arena = boot();
    const cache = accounted(arena);
    const group = arena.groups.create('g', { limit: 2 * cache.size });
    arena.groups.workFor(group);
    const sheaf = cache.prefill(10)!;
    const held = Array.from({ length: 10 }, () => sheaf.alloc());
    expect(held.every((p) => p !== 0)).toBe(true);
    expect(settled(arena, group)).toBe(10 * cache.size);
    expect(group.info.forced).toBe(8);
    expect(cache.alloc(GFP_KERNEL | __GFP_NOWARN)).toBe(0);
    freeMany(cache, held);
    cache.return(sheaf);
    expect(settled(arena, group)).toBe(0);
  });
});

describe('a tree of groups', () => {
  it('counts a charge in every group up to the root, and refuses it where any limit would be exceeded', () => {
    const arena = boot();
    const cache = accounted(arena);
    const above = arena.groups.create('above', { limit: 30 * cache.size });
    const [a, b] = [
      arena.groups.create('a', { parent: above }),
      arena.groups.create('b', { parent: above, limit: 20 * cache.size }),
    ];
    arena.groups.workFor(a);
    const ofA = allocMany(cache, 15);
    arena.groups.workFor(b);
    const ofB = allocMany(cache, 15);
    expect(cache.alloc(GFP_KERNEL | __GFP_NOWARN)).toBe(0);
    expect([above, a, b].map((group) => settled(arena, group) / cache.size)).toEqual([30, 15, 15]);
    freeMany(cache, ofA.splice(0, 10));
    ofB.push(...allocMany(cache, 5));
    expect(cache.alloc(GFP_KERNEL | __GFP_NOWARN)).toBe(0); // its own limit
    expect([above, a, b].map((group) => settled(arena, group) / cache.size)).toEqual([25, 5, 20]);
    freeMany(cache, [...ofA, ...ofB]);
    expect([above, a, b].map((group) => settled(arena, group))).toEqual([0, 0, 0]);
    expect(() => arena.groups.destroy(above)).toThrow(/group above has 2 threads and groups, and 0 bytes/);
    arena.groups.workFor(null);
    for (const group of [a, b, above]) arena.groups.destroy(group);
    expectSound(arena);
  });
});

describe('stock', () => {
  it('is what a thread has charged ahead, at most twice STOCK_BYTES, until its turn ends', () => {
    const arena = boot();
    const cache = accounted(arena);
    const group = arena.groups.create('g');
    arena.groups.workFor(group);
    const objects = allocMany(cache, 2000);
    let ahead = 0;
    for (const p of objects.splice(0, 1500)) {
      cache.free(p);
      ahead = Math.max(ahead, group.usage);
    }
    const surplus = group.usage - 500 * cache.size;
    expect(surplus).toBeGreaterThan(0);
    expect(surplus).toBeLessThanOrEqual(2 * STOCK_BYTES + cache.size);
    expect(settled(arena, group)).toBe(500 * cache.size);
    freeMany(cache, objects);
    expect(settled(arena, group)).toBe(0);
  });

  it('goes back when a thread leaves its CPU', () => {
    const arena = boot();
    accounted(arena);
    const group = arena.groups.create('g');
    const other = secondCpu(arena);
    other.groups.workFor(other.groups.open('g'));
    other.openCache('charged').free(other.openCache('charged').alloc());
    expect(group.usage).toBeGreaterThan(0);
    other.offline();
    expect(group.usage).toBe(0);
    arena.groups.destroy(group);
  });
});

describe('groups', () => {
  it('say what is wrong with what they are asked for', () => {
    const { groups } = boot();
    groups.create('g');
    expect(() => groups.create('g')).toThrow(/a group of that name exists/);
    expect(() => groups.create('')).toThrow(/name is ""; it must be 1 to 64 bytes long/);
    expect(() => groups.create('h', { limit: -1 })).toThrow(/limit is -1/);
    expect(() => groups.create('h', { parent: 'g' as never })).toThrow(/parent is "g"; it must be a group/);
    expect(() => groups.open('h')).toThrow(/no group is named "h"; there are g/);
    expect(groups.list()).toHaveLength(1);
  });

  it('are what granary info shows, with limits, usage and refusals', async () => {
    const report = await demoInfo({ bytes: 32 * MiB });
    expect(report.problems).toEqual([]);
    const main = report.groups.find(({ name }) => name === 'main')!;
    expect(main).toMatchObject({ parent: 'tasks', limit: 65536, forced: 0 });
    expect(main.usage).toBeLessThan(main.peak);
    expect(main.failures).toBeGreaterThan(0);
    expect(infoText(report)).toMatch(
      /group +in +limit +usage +peak +failures +forced\n(.*\n)?main +tasks +65536/,
    );
  });

  it('do not go with rcuDebug, which would hold charges back', () => {
    const arena = boot();
    const flags = SLAB_ACCOUNT | SLAB_TYPESAFE_BY_RCU;
    expect(() => arena.createCache('c', { size: 64, flags, rcuDebug: true })).toThrow(
      /rcuDebug is true; a cache with SLAB_ACCOUNT/,
    );
  });
});

describe('eight threads in two groups under one limit', () => {
  it('never exceed it, and everything adds up in the end', async () => {
    const arena = boot({ bytes: 16 * MiB, cpus: 9, lockdep: false });
    const cache = accounted(arena);
    const above = arena.groups.create('above', { limit: 15_000 });
    const groups = ['a', 'b'].map((name) => arena.groups.create(name, { parent: above }));
    const tasks = Array.from({ length: 8 }, (_, i) => ({
      group: 'ab'[i % 2]!,
      seed: i + 1,
      ms: 300,
      keep: i,
    }));
    arena.endTurn();
    const results = await runTeam<ChargedResult>('charged', arena.handle, tasks);
    for (const { over } of results) expect(over).toBeLessThanOrEqual(0);
    expect(results.reduce((sum, { refused }) => sum + refused, 0)).toBeGreaterThan(0);
    const held = results.flatMap((result) => result.held);
    expect(above.usage).toBe(held.length * cache.size);
    expect(groups.map(({ usage }) => usage / cache.size)).toEqual([0 + 2 + 4 + 6, 1 + 3 + 5 + 7]);
    freeMany(cache, held);
    arena.endTurn();
    expect(arena.groups.list().map(({ usage }) => usage)).toEqual([0, 0, 0]);
    expectSound(arena);
  });

  it('lose nothing but what a dead thread holds: its stock and its place go back when it is reaped', async () => {
    const arena = boot({ cpus: 2, lockdep: false });
    const cache = accounted(arena);
    const above = arena.groups.create('above', { limit: 200_000 });
    const group = arena.groups.create('a', { parent: above });
    arena.endTurn();
    const control = new Control();
    control.open();
    const args = { group: 'a', seed: 1, ms: 50, keep: 10, how: 'die' };
    const { worker, exited } = launch('charged', { control, handle: arena.handle, args });
    await until(() => control.get(0) !== 0);
    await worker.terminate();
    await exited;
    arena.cpuDead(1);
    expect(group.usage).toBe(10 * cache.size); // its objects are still there
    expect(above.usage).toBe(10 * cache.size);
  });
});
