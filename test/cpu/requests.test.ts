/** Asking another CPU for its sheaves: it polls with every allocation, or is blocked and never answers. */

import { afterEach, describe, expect, it } from 'vitest';
import { Pcs, pcsOf } from '#src/cpu/index.js';
import { CpuError } from '#src/index.js';
import { Control } from '#workers/litmus/control.js';
import { boot, expectSound, sheafSizes } from '../cache/support/arena.js';
import { launch, type Member, until } from '../litmus/support/team.js';

const members: Member[] = [];
afterEach(async () => {
  await Promise.all(members.splice(0).map(({ worker }) => worker.terminate()));
});

describe.each(['turn', 'op'] as const)('a CPU in a long synchronous run, policy %s', (lockPolicy) => {
  it('gives its sheaves to whoever shrinks, again and again', async () => {
    const arena = boot({ cpus: 2, lockPolicy });
    const cache = arena.createCache('c', { size: 192 });
    const control = new Control();
    const busy = launch<{ rounds: number }>('longTurn', { control, handle: arena.handle, args: { cpu: 1 } });
    members.push(busy);
    await until(() => control.arrived === 1);
    control.open();
    await until(() => control.get(0) > 10);
    for (let i = 0; i < 30; i++) {
      const before = control.get(0);
      expect(cache.shrink().skippedCpus).toEqual([]);
      // It goes on, and locks its sheaves anew.
      await until(() => control.get(0) > before + 1);
    }
    control.stop();
    expect((await busy.result).rounds).toBeGreaterThan(30);
    await busy.exited;
    expect(cache.shrink()).toEqual({ slabs: 0, skippedCpus: [] });
    const { ALLOC_FASTPATH, ALLOC_SLOWPATH, FREE_FASTPATH, FREE_SLOWPATH } = cache.stats();
    expect(ALLOC_FASTPATH + ALLOC_SLOWPATH).toBe(FREE_FASTPATH + FREE_SLOWPATH);
    expectSound(arena);
  });
});

describe('a CPU that is blocked within its turn', () => {
  it('is skipped and named; destroy refuses; afterwards all is as it was', async () => {
    const arena = boot({ cpus: 2 });
    const cache = arena.createCache('c', { size: 192 });
    const control = new Control();
    const blocked = launch<{ p: number }>('blockInTurn', { control, handle: arena.handle, args: { cpu: 1 } });
    members.push(blocked);
    await until(() => control.arrived === 1);
    control.open();
    await until(() => control.get(0) === 1);
    const lock = pcsOf(arena.geometry, 1, cache.desc.slot) + Pcs.lock;
    const owner = arena.i32[lock];
    expect(owner).not.toBe(0);
    expect(cache.shrink().skippedCpus).toEqual([1]);
    expect(() => cache.destroy()).toThrow(CpuError);
    expect(() => cache.destroy()).toThrow(/CPU 1 did not give up its sheaves of c/);
    expect(arena.i32[lock], 'nobody took the lock away').toBe(owner);
    const p = cache.alloc();
    cache.free(p);
    arena.endTurn();
    // Its sheaf is a kmalloc object, so it may hold the sheaves of such caches, too.
    const findings = arena.validate();
    expect(findings.map(({ where }) => where)).toContain('c');
    expect(findings.filter(({ what }) => !/^the sheaves of CPU 1 are locked by 0x/.test(what))).toEqual([]);
    control.stop();
    await blocked.result;
    await blocked.exited;
    expectSound(arena);
    expect(sheafSizes(arena, cache, 1).main).toBe(0);
    expect(cache.destroy()).toMatchObject({ leaked: 0 });
    expectSound(arena);
  });
});
