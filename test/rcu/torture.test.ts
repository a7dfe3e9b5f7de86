/** RCU on real threads: torture, planted bugs that it must find, and threads that park, stay, or die. */

import { describe, expect, it } from 'vitest';
import type { Arena } from '#src/index.js';
import { Control } from '#workers/litmus/control.js';
import { type Plant, SLOTS, SLOTS_AT, type Torture } from '#workers/litmus/rcu.js';
import { boot, expectSound } from '../cache/support/arena.js';
import { launch, runTeam, until } from '../litmus/support/team.js';

const THREADS = 8;
/** GRANARY_RCU_MS=60000 is the long form. */
const MS = Number(process.env.GRANARY_RCU_MS ?? 3_000);

async function torture(
  ms: number,
  plant: Plant,
): Promise<{ arena: Arena; control: Control; total: Torture }> {
  const arena = boot({ cpus: THREADS + 1, bytes: 32 << 20 });
  arena.createCache('c', { size: 64 });
  arena.endTurn();
  const control = new Control();
  const tasks = Array.from({ length: THREADS }, (_, i) => ({
    cpu: i + 1,
    seed: 77 + i,
    ms,
    writes: i % 2 === 0 ? 20 : 2,
    plant,
  }));
  const reports = await runTeam<Torture>('rcu-torture', arena.handle, tasks, control);
  const sum = (pick: (report: Torture) => number): number => reports.reduce((n, r) => n + pick(r), 0);
  return {
    arena,
    control,
    total: {
      reads: sum((r) => r.reads),
      updates: sum((r) => r.updates),
      freed: sum((r) => r.freed),
      errors: reports.flatMap((r) => r.errors),
    },
  };
}

describe('torture', () => {
  it('never frees under a reader, and loses nothing', { timeout: 60_000 + 2 * MS }, async () => {
    const { arena, control, total } = await torture(MS, '');
    expect(total.errors).toEqual([]);
    expect(total.reads).toBeGreaterThan(1_000);
    expect(total.freed).toBeGreaterThan(100);
    const left = Array.from({ length: SLOTS }, (_, i) => control.m[SLOTS_AT + i]!).filter((p) => p !== 0);
    expect(total.updates - total.freed, 'what was not freed is in the slots').toBe(left.length);
    const cache = arena.openCache('c');
    for (const p of left) cache.free(p);
    arena.endTurn();
    expectSound(arena);
    expect(cache.destroy().leaked).toBe(0);
  });

  const plants: Plant[] = ['grace period too short', 'quiescent state too early', 'freed at once'];
  it.each(plants)('finds a planted bug: %s', { timeout: 30_000 }, async (plant) => {
    const { total } = await torture(10_000, plant);
    expect(total.errors).not.toEqual([]);
  });
});

describe('a grace period does not wait for', () => {
  it('a thread that is parked between turns', async () => {
    const arena = boot({ cpus: 2 });
    arena.createCache('c', { size: 64 });
    arena.endTurn();
    const control = new Control();
    const member = launch('rcu-park', { control, handle: arena.handle, args: { cpu: 1, seed: 1 } });
    await until(() => control.arrived === 1);
    arena.rcu.limitMs = 5_000;
    arena.rcu.synchronize();
    control.open();
    control.stop();
    await member.exited;
  });

  it('a thread that was terminated in a read section, once it is reaped', async () => {
    const arena = boot({ cpus: 2 });
    arena.createCache('c', { size: 64 });
    arena.endTurn();
    const control = new Control();
    control.open();
    const { worker, exited } = launch('rcu-read-forever', {
      control,
      handle: arena.handle,
      args: { cpu: 1, seed: 1 },
    });
    await until(() => control.get(1) === 1);
    const number = arena.rcu.request();
    expect(arena.rcu.poll(number)).toBe(false);
    await worker.terminate();
    await exited;
    expect(arena.rcu.poll(number), 'nobody knows yet').toBe(false);
    arena.cpuDead(1);
    expect(arena.rcu.poll(number)).toBe(true);
  });

  it('waits for one that stays in its turn, and names it', async () => {
    const arena = boot({ cpus: 2 });
    arena.createCache('c', { size: 64 });
    arena.endTurn();
    const control = new Control();
    control.open();
    const { exited } = launch('rcu-stay', { control, handle: arena.handle, args: { cpu: 1, seed: 1 } });
    await until(() => control.get(0) === 1);
    const stalls: (readonly number[])[] = [];
    Object.assign(arena.rcu, {
      stallMs: 20,
      limitMs: 20_000,
      onStall: ({ cpus }: { cpus: number[] }) => stalls.push(cpus),
    });
    const done = arena.rcu.synchronizeAsync();
    await until(() => stalls.length > 0);
    expect(stalls).toEqual([[1]]);
    control.stop();
    await done;
    await exited;
  });
});
