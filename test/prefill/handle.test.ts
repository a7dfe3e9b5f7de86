/** What a borrowed sheaf depends on, who may use it, and for how long. */

import { describe, expect, it } from 'vitest';
import { type KmemCache, PrefilledSheaf } from '#src/cache/index.js';
import { Pcs, pcsOf } from '#src/cpu/index.js';
import { CpuError, SlabBugError } from '#src/index.js';
import { barnOf, PREFILL_MAX } from '#src/sheaf/index.js';
import { listLock, nodeOf } from '#src/slab/index.js';
import { LockClass, storeRelease } from '#src/sync/index.js';
import { boot, expectRefused, expectSound, footprint, secondCpu, shrinkAll } from '../cache/support/arena.js';
import { C, forbidAll, POLICIES, prefill, setup, take } from './support.js';

describe.each(POLICIES)('allocation from a borrowed sheaf, policy %s', (policy) => {
  it('goes on while others hold every lock there is', () => {
    const { arena, cache, pcs } = setup(policy);
    const sheaves = [prefill(cache, C), prefill(cache, 30)];
    arena.endTurn();
    const other = secondCpu(arena);
    const locks = [
      [barnOf(arena.cpu, cache.desc, 0), LockClass.Barn],
      [listLock(nodeOf(arena.i32, cache.desc, 0)), LockClass.ListLock],
    ] as const;
    storeRelease(arena.i32, pcs + Pcs.lock, other.cpu.locks.owner);
    // Tried: no code waits for the one under the other.
    for (const [lock, cls] of locks) expect(other.cpu.locks.tryLock(lock as never, cls)).toBe(true);
    expect(new Set([...take(sheaves[0]!, C), ...take(sheaves[1]!, 30)]).size).toBe(C + 30);
    for (const [lock, cls] of [...locks].reverse()) other.cpu.locks.unlock(lock as never, cls);
    storeRelease(arena.i32, pcs + Pcs.lock, 0);
    for (const sheaf of sheaves) cache.return(sheaf);
    expectSound(arena);
  });

  it('asks for no lock, no page and no kmalloc', () => {
    // The alloc that is refused below leaves its pcs lock taken, which lockdep would report.
    const { arena, cache } = setup(policy, { lockdep: false });
    const sheaves = [1, C, 30].map((n) => prefill(cache, n));
    sheaves.push(cache.refill(prefill(cache, 1), 9)!);
    arena.endTurn();
    forbidAll(arena);
    expect(() => cache.alloc()).toThrow(/was called/);
    for (const sheaf of sheaves) {
      take(sheaf, sheaf.size);
      expect(sheaf.alloc()).toBe(0);
    }
  });

  it('goes on when the cache was shrunk, and no shrink takes its objects', () => {
    const { arena, cache } = setup(policy);
    const other = secondCpu(arena);
    const sheaf = prefill(cache, 12);
    arena.endTurn();
    for (const each of [cache, other.openCache('c')]) {
      each.shrink();
      expect(sheaf.size).toBe(12);
    }
    expect(new Set(take(sheaf, 12)).size).toBe(12);
    expectSound(arena);
  });

  it('guarantees n, whatever else is allocated meanwhile', () => {
    const { arena, cache } = setup(policy, { bytes: 4 << 20 });
    const sheaf = prefill(cache, 12);
    const held: number[] = [];
    for (let p = cache.alloc(); p !== 0; p = cache.alloc()) held.push(p);
    expect(cache.prefill(1) === null).toBe(true);
    const got = take(sheaf, 12);
    expect(new Set([...held, ...got]).size).toBe(held.length + 12);
    expectSound(arena);
  });
});

describe('n', () => {
  it.each([-1, 0.5, Number.NaN, PREFILL_MAX + 1, 2 ** 32 + 1])('%d is refused by name', (n) => {
    const { arena, cache } = setup('turn');
    const sheaf = prefill(cache, 1);
    const allowed = new RegExp(`^n is ${n}; it must be an integer from 0 to ${PREFILL_MAX}$`);
    expectRefused(arena, () => cache.prefill(n), RangeError, allowed);
    expectRefused(arena, () => cache.refill(sheaf, n), RangeError, allowed);
  });

  it('of another type is refused', () => {
    const { arena, cache } = setup('turn');
    expectRefused(arena, () => cache.prefill('3' as never), TypeError, /^n is "3"; it must be a number$/);
  });

  it('may be as large as one sheaf can be', () => {
    const arena = boot({ bytes: 8 << 20 });
    const cache = arena.createCache('c', { size: 8 });
    const before = footprint(arena);
    const sheaf = prefill(cache, PREFILL_MAX);
    expect(sheaf).toMatchObject({ size: PREFILL_MAX, capacity: PREFILL_MAX });
    expect(new Set(take(sheaf, 1000)).size).toBe(1000);
    expectSound(arena);
    cache.return(sheaf);
    expect(cache.destroy().leaked).toBe(1000);
    expect(before.c).toBe(0);
  });
});

describe('a handle', () => {
  const refuse = (cache: KmemCache, sheaf: unknown) => [
    () => cache.return(sheaf as never),
    () => cache.refill(sheaf as never, 1),
    () => cache.refill(sheaf as never, 100),
  ];
  const use = (sheaf: PrefilledSheaf) => [() => sheaf.alloc(), () => sheaf.size, () => sheaf.capacity];

  it('that prefill did not return is refused', () => {
    const { arena, cache } = setup('turn');
    const real = prefill(cache, C);
    const forged = [
      undefined,
      null,
      4096,
      {},
      { ...real },
      { size: 3, capacity: 4, at: real.at, cache, alloc: () => 0 },
      structuredClone({ at: real.at }),
      Object.create(PrefilledSheaf.prototype),
    ];
    for (const sheaf of forged) {
      for (const call of refuse(cache, sheaf)) {
        expectRefused(arena, call, TypeError, /^sheaf is .*; it must be what prefill of c returned$/);
      }
    }
    const copy = Object.assign(Object.create(Object.getPrototypeOf(real)), real);
    for (const call of [...refuse(cache, copy), ...use(copy)]) {
      expectRefused(arena, call, TypeError, /private|Receiver/);
    }
    expect(real.size).toBe(C);
  });

  it('of another cache is refused, by its name', () => {
    const { arena, cache } = setup('turn');
    const sheaf = prefill(arena.createCache('d', { size: 64 }), 3);
    for (const call of refuse(cache, sheaf)) {
      expectRefused(arena, call, SlabBugError, /^BUG c: Prefilled sheaf is of cache d$/);
    }
  });

  it('of another arena is refused', () => {
    const { arena, cache } = setup('turn');
    const sheaf = prefill(setup('turn').cache, 3);
    for (const call of refuse(cache, sheaf)) {
      expectRefused(arena, call, SlabBugError, /^BUG c: Prefilled sheaf is of cache c in another arena$/);
    }
  });

  it('of another CPU is refused', () => {
    const { arena, cache } = setup('turn');
    const other = secondCpu(arena);
    const sheaf = prefill(other.openCache('c'), 3);
    other.endTurn();
    for (const call of refuse(cache, sheaf)) {
      expectRefused(
        arena,
        call,
        SlabBugError,
        /^BUG c: Prefilled sheaf was borrowed by CPU 1; this is CPU 0$/,
      );
    }
  });

  it('that was returned is refused, and says so', () => {
    for (const n of [C, 30]) {
      const { arena, cache } = setup('turn');
      const sheaf = prefill(cache, n);
      cache.return(sheaf);
      for (const call of [...refuse(cache, sheaf), ...use(sheaf)]) {
        expectRefused(arena, call, SlabBugError, /^BUG c: Prefilled sheaf used after it was returned$/);
      }
      // The same memory lent out again does not revive it.
      const again = prefill(cache, n);
      expect(() => sheaf.alloc()).toThrow(/after it was returned/);
      expect(again.size).toBe(n);
    }
  });

  it('whose CPU went offline is refused; its objects went back', () => {
    for (const policy of POLICIES) {
      const scene = setup(policy);
      const { arena, cache } = scene;
      const other = secondCpu(arena);
      const theirs = other.openCache('c');
      const sheaves = [C, 30, 2].map((n) => prefill(theirs, n));
      const held = take(sheaves[1]!, 5);
      other.offline();
      expect(arena.i32[pcsOf(arena.geometry, 1, cache.desc.slot) + Pcs.prefilled]).toBe(0);
      expectSound(arena);
      for (const sheaf of sheaves) {
        for (const call of [...use(sheaf), ...refuse(cache, sheaf), ...refuse(theirs, sheaf)]) {
          expectRefused(
            arena,
            call,
            SlabBugError,
            /^BUG c: Prefilled sheaf used after it went back when CPU 1 went offline$/,
          );
        }
      }
      expect(() => theirs.prefill(1)).toThrow(CpuError);
      for (const p of [...held, ...scene.held]) cache.free(p);
      expect(cache.destroy()).toEqual({ cache: 'c', leaked: 0, objects: [] });
      expectSound(arena);
    }
  });

  it('takes no memory with it: everything comes back', () => {
    const { arena, cache, held } = setup('turn');
    for (const p of held.splice(0)) cache.free(p);
    const before = footprint(arena);
    const sheaves = [1, 2, C, 9, 100, 3000].map((n) => prefill(cache, n));
    for (const sheaf of sheaves) for (const p of take(sheaf, 1)) cache.free(p);
    for (const sheaf of sheaves) cache.return(sheaf);
    expect(footprint(arena)).toEqual(before);
    expectSound(arena);
  });
});

describe('destroy with sheaves borrowed', () => {
  it.each(POLICIES)('reports their objects as leaked and harms nothing, policy %s', (policy) => {
    const { arena, cache, held } = setup(policy);
    for (const p of held.splice(0)) cache.free(p);
    const other = secondCpu(arena);
    const theirs = other.openCache('c');
    const sheaves = [prefill(cache, C), prefill(cache, 20), prefill(theirs, 2)];
    const popped = take(sheaves[1]!, 3);
    other.endTurn();
    const report = cache.destroy();
    const total = C + 20 + C;
    expect(report).toMatchObject({ cache: 'c', leaked: total, sheaves: 3 });
    expect(report.objects).toEqual(expect.arrayContaining(popped));
    expectSound(arena);
    // The objects are still the borrower's.
    const rest = sheaves.flatMap((sheaf) => take(sheaf, sheaf.size));
    expect([...popped, ...rest].sort((a, b) => a - b)).toEqual(report.objects.sort((a, b) => a - b));
    for (const [i, owner] of [cache, cache, theirs].entries()) {
      for (const call of [() => owner.return(sheaves[i]!), () => owner.refill(sheaves[i]!, 1)]) {
        expectRefused(arena, call, SlabBugError, /^BUG c: the cache was destroyed$/);
      }
    }
    // The next cache of that name is another one.
    const next = arena.createCache('c', { size: 4096 });
    next.free(next.alloc());
    expect(() => next.return(sheaves[0]!)).toThrow(/is of cache c$/);
    other.offline();
    expect(() => sheaves[2]!.size).toThrow(/went back when CPU 1 went offline/);
    expect(next.destroy().leaked).toBe(0);
    arena.offline();
    arena.online({ cpu: 0 });
    expectSound(arena);
  });

  it('is a leak even if they are empty: somebody still has them', () => {
    const { arena, cache, held } = setup('turn');
    const sheaf = prefill(cache, C);
    for (const p of [...held, ...take(sheaf, C)]) cache.free(p);
    expect(cache.destroy()).toEqual({ cache: 'c', leaked: 0, objects: [], sheaves: 1 });
    expect(sheaf.alloc()).toBe(0);
    expect(arena.cacheNames()).not.toContain('c');
    expectSound(arena);
  });
});

describe('validate', () => {
  it('sees the objects of borrowed sheaves, by CPU', () => {
    const { arena, cache, pcs } = setup('turn');
    const sheaf = prefill(cache, 20);
    expectSound(arena);
    const p = arena.i32[sheaf.at + 4]!;
    const what = () => arena.validate().map((finding) => `${finding.invariant} ${finding.what}`);
    // Freed into main as well, behind the cache's back.
    arena.u8[arena.geometry.shadow + (p >> 3)] = cache.desc.tag;
    expect(what()).toEqual([expect.stringMatching(/^I10 .* is allocated and in prefilled of CPU 0$/)]);
    arena.u8[arena.geometry.shadow + (p >> 3)] = 0;
    arena.i32[sheaf.at + 5] = p;
    expect(what()).toContainEqual(
      expect.stringMatching(/^I13 .* is in prefilled of CPU 0 and in prefilled of CPU 0$/),
    );
    arena.i32[sheaf.at + 5] = p + 4096;
    arena.i32[sheaf.at] = sheaf.at; // a circle
    expect(what()).toContainEqual(
      expect.stringMatching(/^I3 sheaf \d+ is prefilled of CPU 0 and prefilled of CPU 0$/),
    );
    arena.i32[sheaf.at] = 0;
    arena.i32[sheaf.at + 2] = 21;
    expect(what()).toContainEqual('I2 prefilled of CPU 0: size 21');
    arena.i32[sheaf.at + 2] = 20;
    arena.i32[pcs + Pcs.spare] = sheaf.at;
    expect(what()).toContainEqual(expect.stringMatching(/^I3 sheaf \d+ is prefilled of CPU 0 and spare of/));
    arena.i32[pcs + Pcs.spare] = 0;
  });

  it('finds objects lost that no sheaf has any more', () => {
    const { arena, cache, pcs } = setup('turn');
    prefill(cache, 20);
    arena.i32[pcs + Pcs.prefilled] = 0;
    const findings = arena.validate();
    expect(findings).toHaveLength(20);
    expect(new Set(findings.map(({ invariant }) => invariant))).toEqual(new Set(['I10']));
  });
});

describe('a kmalloc cache', () => {
  it('lends sheaves as any other', () => {
    const { arena } = setup('turn');
    for (const name of ['kmalloc-64', 'kmalloc-256', 'kmalloc-8k']) {
      const cache = arena.openCache(name);
      for (const n of [1, cache.sheafCapacity, cache.sheafCapacity + 1]) {
        const sheaf = prefill(cache, n);
        const objects = take(sheaf, n);
        expect(new Set(objects).size).toBe(n);
        for (const p of objects) arena.kfree(p);
        cache.return(sheaf);
        expectSound(arena);
      }
    }
    shrinkAll(arena);
    expectSound(arena);
  });
});
