/** A CPU whose thread is gone: between two operations its slabs are flushed, within one they are given up. */

import { describe, expect, it } from 'vitest';
import { CpuSlab, pcsOf } from '#src/cpu/index.js';
import type { Arena, LockPolicy, ReapReport } from '#src/index.js';
import type { Layer } from '#src/struct/index.js';
import { Intent } from '#src/sync/index.js';
import { Control } from '#workers/litmus/control.js';
import { allocMany, boot, expectSound, freeMany, LONG, secondCpu } from '../cache/support/arena.js';
import { launch, until } from '../litmus/support/team.js';
import { cpuView, fillSlabs, O, POLICIES, setup } from './support.js';

describe.each(POLICIES)('policy %s', (lockPolicy) => {
  it('gone between two operations: its slabs are flushed, its objects stay', async () => {
    const { arena, cache, other } = setup({ lockPolicy });
    other.offline();
    const control = new Control();
    const args = { cpu: 1, n: 50, freed: 20, how: 'exit' };
    const member = launch<number[]>('leave', { control, handle: arena.handle, args });
    expect(await member.exited).toBe(7);
    expect(arena.cpuDead(1)).toEqual({ cpu: 1, heldLocks: [], notes: [] });
    expect(cpuView(arena, cache, 1)).toEqual({ slab: null, free: [], partial: [] });
    expectSound(arena);
    const { ALLOC_FASTPATH, ALLOC_SLOWPATH, FREE_FASTPATH, FREE_SLOWPATH } = cache.stats();
    expect([ALLOC_FASTPATH + ALLOC_SLOWPATH, FREE_FASTPATH + FREE_SLOWPATH]).toEqual([50, 20]);
    expect(cache.destroy().leaked).toBe(30);
    expectSound(arena);
  });
});

describe('gone within an operation', () => {
  it('leaves everything where it is, says so, and the next thread begins anew', () => {
    const { arena, cache, other, theirs } = setup();
    const [full] = fillSlabs(theirs, 3) as [number[]];
    theirs.free(full[0]!);
    const last = theirs.alloc();
    theirs.free(last);
    // As if it had stopped for ever in its next allocation, in the middle of its turn.
    other.cpu.enter(Intent.ALLOC, cache.desc.slot);
    const before = cpuView(arena, cache, 1);
    expect(before.slab).not.toBe(null);
    const report = arena.cpuDead(1);
    expect(report.heldLocks).toEqual([]);
    expect(report.notes).toHaveLength(2);
    expect(report.notes[1]).toBe(
      'c: the slabs of CPU 1, 1 of them, were given up, with the free objects in them',
    );
    expect(cpuView(arena, cache, 1)).toEqual({ slab: null, free: [], partial: [] });
    const findings = arena.validate();
    expect(new Set(findings.map(({ invariant }) => invariant))).toEqual(new Set(['I10', 'I23']));
    expect(findings.filter(({ invariant }) => invariant === 'I10')).toHaveLength(before.free.length);
    // Others free into the slab that was given up, and never get anything from it.
    cache.free(full[1]!);
    const heir = secondCpu(arena, 1);
    const held = [...allocMany(heir.openCache('c'), 4 * O), ...allocMany(cache, 4 * O)];
    expect(held).not.toContain(full[1]);
    expect(new Set(held).size).toBe(8 * O);
    freeMany(cache, held);
    heir.offline();
    arena.endTurn();
    expect(new Set(arena.validate().map(({ invariant }) => invariant))).toEqual(new Set(['I10', 'I23']));
  });

  it('an object that was freed but is still marked is free', () => {
    const { arena, cache, theirs } = setup();
    const [p] = allocMany(theirs, 2);
    theirs.free(p!);
    arena.u8[arena.geometry.shadow + (p! >> 3)] = cache.desc.tag;
    expect(arena.i32[pcsOf(arena.geometry, 1, cache.desc.slot) + CpuSlab.frees]).toBe(1);
    expect(arena.cpuDead(1).notes).toEqual([]);
    expect(cache.stats()).toMatchObject({ ALLOC_SLOWPATH: 1, ALLOC_FASTPATH: 1, FREE_FASTPATH: 1 });
    expectSound(arena);
  });
});

const PHASES = ['single allocations', 'single frees', 'a bulk allocation', 'a bulk free'];
const STOPPED = 1;
/** What a death within an operation may leave: lost objects, a slab on no list, without a CPU, or not counted yet. */
const LOST = ['I10', 'I11', 'I22', 'I23'];

interface Options {
  layer: Layer;
  lockPolicy: LockPolicy;
}

/** Kills a thread at the `at`-th moment of a phase; undefined when the phase has no so many. */
async function killAt(options: Options, phase: number, at: number): Promise<[Arena, ReapReport] | undefined> {
  const arena = boot({ cpus: 2, bytes: 2 << 20, maxCaches: 24, ...options });
  arena.createCache('c', { size: 4096 });
  const control = new Control();
  const member = launch('stopAt', { control, handle: arena.handle, args: { cpu: 1, phase, at } });
  await until(() => control.get(0) !== 0);
  const stopped = control.get(0) === STOPPED;
  await member.worker.terminate();
  await member.exited;
  return stopped ? [arena, arena.cpuDead(1)] : undefined;
}

const CASES = (
  [
    { layer: 'cpu-slab', lockPolicy: 'turn' },
    { layer: 'cpu-slab', lockPolicy: 'op' },
    { layer: 'none', lockPolicy: 'turn' },
  ] as Options[]
).flatMap((options, i) =>
  PHASES.map((name, phase) => ({ ...options, name, phase })).filter(
    ({ phase }) => LONG || phase % 2 === i % 2,
  ),
);

describe.each(CASES)('layer $layer, policy $lockPolicy, killed in $name', ({ phase, name, ...options }) => {
  it('nothing is in two places, and what is lost is said', async () => {
    let moments = 0;
    for (let at = 1; at < 40; at += LONG ? 3 : 18) {
      const deaths = await Promise.all([at, at + 1, at + 2].map((each) => killAt(options, phase, each)));
      for (const death of deaths) {
        if (death === undefined) continue;
        moments++;
        const [arena, { heldLocks, notes }] = death;
        const kinds = [...new Set(arena.validate().map(({ invariant }) => invariant))];
        if (heldLocks.length > 0) continue;
        expect(kinds.filter((kind) => !LOST.includes(kind))).toEqual([]);
        if (kinds.length > 0) expect(notes).not.toEqual([]);
        const heir = secondCpu(arena, 1);
        const held = [arena, heir].flatMap((each) => allocMany(each.openCache('c'), 20));
        expect(new Set(held).size).toBe(40);
        for (const [i, p] of held.entries()) [heir, arena][i % 2]!.openCache('c').free(p);
        heir.offline();
        arena.openCache('c').shrink();
        const after = arena.validate().filter(({ invariant }) => !LOST.includes(invariant));
        expect(after).toEqual([]);
      }
      if (deaths.includes(undefined)) break;
    }
    // Within a turn, frees of the cpu slab's objects take and give up no lock.
    const { layer, lockPolicy } = options;
    if (layer === 'none' || lockPolicy === 'op') expect(moments, name).toBeGreaterThan(0);
  });
});
