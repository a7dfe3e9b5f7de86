/** One writer, readers on other threads: every range that they see is one that the tree had at that time. */
import { describe, expect, it } from 'vitest';
import { LockError, type ReapReport } from '#src/index.js';
import { Control } from '#workers/litmus/control.js';
import {
  BEGUN,
  logged,
  MADE,
  MAPLE_CONTROL_BYTES,
  type MaplePlant,
  type MapleReport,
} from '#workers/litmus/maple.js';
import { RangeModel } from '#workers/litmus/rangeModel.js';
import { boot, expectSound, MiB } from '../cache/support/arena.js';
import { launch, until } from '../litmus/support/team.js';

const READERS = 3;
const MS = Number(process.env.GRANARY_MAPLE_MS ?? 400);

async function race(ms: number, plant: MaplePlant, gaps = true) {
  const arena = boot({ cpus: READERS + 2, bytes: 32 * MiB });
  const tree = arena.maple.create({ gaps })!;
  arena.endTurn();
  const control = new Control(new SharedArrayBuffer(MAPLE_CONTROL_BYTES));
  const args = { tree: tree.address, ms, plant };
  const members = Array.from({ length: READERS + 1 }, (_, i) =>
    launch<MapleReport>(i === 0 ? 'maple-write' : 'maple-read', {
      control,
      handle: arena.handle,
      args: { ...args, cpu: i + 1, seed: 31 + i },
    }),
  );
  await Promise.race([
    until(() => control.arrived === members.length),
    Promise.all(members.map(({ result }) => result)),
  ]);
  control.open();
  const reports = await Promise.all(members.map(({ result }) => result));
  await Promise.all(members.map(({ exited }) => exited));
  return { arena, tree, reports };
}

describe('readers on other threads', () => {
  it.each([true, false])(
    'see no range that the tree has not had (gaps: %s)',
    { timeout: 120_000 },
    async (gaps) => {
      const { arena, tree, reports } = await race(MS, '', gaps);
      expect(reports.flatMap(({ errors }) => errors)).toEqual([]);
      const [writer, ...readers] = reports;
      expect(writer!.stores).toBeGreaterThan(0);
      for (const { seen } of readers) expect(seen).toBeGreaterThan(0);
      expect(tree.validate()).toEqual([]);
      arena.maple.destroy(tree);
      arena.kfreeRcuBarrier();
      expectSound(arena);
      expect(arena.maple.nodes.destroy().leaked).toBe(0);
    },
  );

  const plants: MaplePlant[] = ['freed at once', 'boundaries moved in two steps'];
  it.each(plants)('find a planted bug: %s', { timeout: 60_000 }, async (plant) => {
    const { reports } = await race(20_000, plant);
    expect(reports.slice(1).flatMap(({ errors }) => errors)).not.toEqual([]);
  });
});

describe('a writer that is terminated', () => {
  it('leaves the tree as it was before its last store, or after it', { timeout: 60_000 }, async () => {
    // Most of its time it is in a critical section: as many as it takes until some ended outside of one.
    let whole = 0;
    for (let round = 0; whole < 3 && round < 40; round++) {
      const arena = boot({ cpus: 2, bytes: 16 * MiB });
      const tree = arena.maple.create()!;
      arena.endTurn();
      const control = new Control(new SharedArrayBuffer(MAPLE_CONTROL_BYTES));
      control.open();
      const args = { tree: tree.address, ms: 30_000, plant: 'no pause', cpu: 1, seed: 50 + round };
      const { worker, exited } = launch('maple-write', { control, handle: arena.handle, args });
      await until(() => control.get(MADE) > 40 + 130 * (round % 8));
      await worker.terminate();
      await exited;
      let report: ReapReport;
      try {
        report = arena.cpuDead(1);
      } catch (error) {
        // It died with a lock of the cache: that is told, and not repaired.
        if (!(error instanceof LockError)) throw error;
        continue;
      }
      const made = control.get(MADE);
      const model = new RangeModel();
      const play = (from: number, to: number): void => {
        for (let i = from; i < to; i++) {
          const { first, last, entry } = logged(control, i);
          model.store(first, last, entry);
        }
      };
      play(0, made);
      const before = [...model.ranges];
      play(made, control.get(BEGUN));
      try {
        const found = tree.ranges();
        expect([before, model.ranges]).toContainEqual(found);
        expect(tree.validate()).toEqual([]);
        whole++;
      } catch (error) {
        // In its critical section: who writes learns of it, and who reads a leaf that it was moving a boundary in.
        if (!(error instanceof LockError)) throw error;
        expect(report.heldLocks.length).toBeGreaterThan(0);
      }
    }
    expect(whole).toBe(3);
  });
});
