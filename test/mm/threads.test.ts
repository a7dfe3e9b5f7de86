/** Page faults on other threads: an area that one has pinned is the one it wanted, and stays as it is. */
import { describe, expect, it } from 'vitest';
import type { ReapReport } from '#src/index.js';
import { Control } from '#workers/litmus/control.js';
import { FIXED, type MmPlant, type MmReport } from '#workers/litmus/mm.js';
import { boot, expectSound, MiB } from '../cache/support/arena.js';
import { launch, until } from '../litmus/support/team.js';

const FAULTERS = 3;
const CHANGES = Number(process.env.GRANARY_MM_CHANGES ?? 300);

async function race(changes: number, plant: MmPlant) {
  const arena = boot({ cpus: FAULTERS + 2, bytes: 16 * MiB });
  const mm = arena.mms.create()!;
  mm.map(4096, { at: FIXED });
  arena.endTurn();
  const control = new Control();
  const members = Array.from({ length: FAULTERS + 1 }, (_, i) =>
    launch<MmReport>(i === 0 ? 'mm-change' : 'mm-fault', {
      control,
      handle: arena.handle,
      args: { mm: mm.address, ms: 40_000, changes, plant, cpu: i + 1, seed: 5 + i },
    }),
  );
  await Promise.race([
    until(() => control.arrived === members.length),
    Promise.all(members.map(({ result }) => result)),
  ]);
  control.open();
  const reports = await Promise.all(members.map(({ result }) => result));
  await Promise.all(members.map(({ exited }) => exited));
  return { arena, mm, reports };
}

describe('page faults on other threads', () => {
  it('pin the area they wanted, which stays as it is', { timeout: 60_000 }, async () => {
    const { arena, mm, reports } = await race(CHANGES, '');
    expect(reports.flatMap(({ errors }) => errors)).toEqual([]);
    const [writer, ...faulters] = reports;
    expect(writer!.changes).toBe(CHANGES);
    for (const { pinned } of faulters) expect(pinned).toBeGreaterThan(50);
    expect(mm.validate()).toEqual([]);
    arena.mms.destroy(mm);
    arena.kfreeRcuBarrier();
    expectSound(arena);
    expect(arena.mms.vmas.destroy().leaked).toBe(0);
  });

  const plants: MmPlant[] = ['writers do not wait', 'no second look'];
  it.each(plants)('find a planted bug: %s', { timeout: 60_000 }, async (plant) => {
    const { reports } = await race(1_000_000, plant);
    expect(reports.slice(1).flatMap(({ errors }) => errors)).not.toEqual([]);
  });
});

describe('a thread that dies', () => {
  it('in the middle of faults holds up nobody but a writer of that area', { timeout: 60_000 }, async () => {
    const arena = boot({ cpus: 3, bytes: 16 * MiB });
    const mm = arena.mms.create()!;
    mm.map(4096, { at: FIXED });
    arena.endTurn();
    const control = new Control();
    control.open();
    const { worker, exited } = launch('mm-fault', {
      control,
      handle: arena.handle,
      args: { mm: mm.address, cpu: 1, seed: 3 },
    });
    await until(() => control.arrived === 1);
    await worker.terminate();
    await exited;
    const report: ReapReport = arena.cpuDead(1);
    expect(report.heldLocks ?? []).toEqual([]);
    expect(mm.fault(FIXED)).toBe(true);
    const other = mm.map(4096, { at: 0x800000 });
    expect(mm.unmap(other, 4096)).toBe(1);
  });
});
