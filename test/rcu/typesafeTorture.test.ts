/** SLAB_TYPESAFE_BY_RCU on real threads: what a reader looks at stays of its type; without the flag it does not. */

import { describe, expect, it } from 'vitest';
import { SLAB_TYPESAFE_BY_RCU } from '#src/index.js';
import { Control } from '#workers/litmus/control.js';
import { TYPESAFE_SLOTS, TYPESAFE_SLOTS_AT, type TypesafeTorture } from '#workers/litmus/typesafe.js';
import { boot, expectSound } from '../cache/support/arena.js';
import { runTeam } from '../litmus/support/team.js';

const THREADS = 4;
/** GRANARY_RCU_MS=60000 is the long form. */
const MS = Number(process.env.GRANARY_RCU_MS ?? 2_000);

async function torture(ms: number, flags: number) {
  const arena = boot({ cpus: THREADS + 1, bytes: 8 << 20 });
  const cache = arena.createCache('typed', { size: 1000, layer: 'none', flags });
  const other = arena.createCache('other', { size: 500, layer: 'none' });
  cache.minPartial = 0;
  other.minPartial = 0;
  arena.endTurn();
  const control = new Control();
  const tasks = Array.from({ length: THREADS }, (_, i) => ({ cpu: i + 1, seed: 5 + i, ms }));
  const reports = await runTeam<TypesafeTorture>('typesafe-torture', arena.handle, tasks, control);
  return { arena, control, cache, reports, errors: reports.flatMap((report) => report.errors) };
}

describe('a type-safe cache under torture', () => {
  it('keeps the type of what is read, though it is freed at once', { timeout: 60_000 + 2 * MS }, async () => {
    const { arena, control, cache, reports, errors } = await torture(MS, SLAB_TYPESAFE_BY_RCU);
    expect(errors).toEqual([]);
    const sum = (pick: (report: TypesafeTorture) => number): number =>
      reports.reduce((n, r) => n + pick(r), 0);
    expect(sum((r) => r.reads)).toBeGreaterThan(1_000);
    expect(
      sum((r) => r.reused),
      'objects were given out again under readers',
    ).toBeGreaterThan(0);
    expect(cache.stat('FREE_SLAB')).toBeGreaterThan(50);
    for (let i = 0; i < TYPESAFE_SLOTS; i++) {
      const p = control.m[TYPESAFE_SLOTS_AT + i]!;
      if (p !== 0) cache.free(p);
    }
    expectSound(arena);
    expect(cache.destroy().leaked).toBe(0);
    expectSound(arena);
  });

  it('does not without the flag', { timeout: 30_000 }, async () => {
    const { errors } = await torture(20_000, 0);
    expect(errors).not.toEqual([]);
  });
});
