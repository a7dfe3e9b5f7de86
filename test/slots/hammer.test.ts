/** Eight threads on two CPUs, with cookies in the objects, threads that are killed between two operations, and their heirs. */

import { afterEach, describe, expect, it } from 'vitest';
import type { KmemCache } from '#src/cache/index.js';
import { Control } from '#workers/litmus/control.js';
import { PLACES, SHARED_CACHES, Sharer, TABLES_AT } from '#workers/litmus/sharers.js';
import { boot, expectSound, MiB } from '../cache/support/arena.js';
import { launch, type Member, until } from '../litmus/support/team.js';

const SHARERS = 8;
const MS = 800;

const members: Array<Member<string[]>> = [];
afterEach(async () => {
  await Promise.all(members.splice(0).map(({ worker }) => worker.terminate()));
});

describe.each([1, 2])('eight threads on two CPUs, %i nodes', (nodes) => {
  it('lose nothing, whoever dies and is replaced', async () => {
    const arena = boot({ lockPolicy: 'op', cpus: 2, threads: SHARERS + 1, nodes, bytes: 32 * MiB });
    const caches = SHARED_CACHES.map((name, i) => arena.createCache(name, { size: 64 << (2 * i) }));
    const control = new Control();
    let seed = 1;
    const start = (index: number): void => {
      const args = { index, seed: seed++ };
      members[index] = launch<string[]>('hammer', { control, handle: arena.handle, args });
    };
    for (let index = 0; index < SHARERS; index++) start(index);
    await until(() =>
      Array.from({ length: SHARERS }, (_, i) => control.get(Sharer.frees + i)).every((n) => n > 0),
    );

    const end = performance.now() + MS;
    let kills = 0;
    while (performance.now() < end) {
      const index = kills % SHARERS;
      const { worker, exited } = members[index]!;
      control.set(Sharer.park + index, 1);
      await until(() => control.get(Sharer.parked + index) === 1);
      await worker.terminate();
      await exited;
      const thread = control.get(Sharer.thread + index);
      expect(arena.cpuDead(thread)).toEqual({ cpu: thread % 2, heldLocks: [], notes: [] });
      control.set(Sharer.park + index, 0);
      control.set(Sharer.parked + index, 0);
      start(index);
      expect(caches[kills % 3]!.shrink().skippedCpus).toEqual([]);
      kills++;
    }
    control.stop();
    expect((await Promise.all(members.map(({ result }) => result))).flat()).toEqual([]);
    await Promise.all(members.map(({ exited }) => exited));
    expect(kills).toBeGreaterThan(1);
    expect(arena.onlineThreads).toEqual([0]);
    expectSound(arena);

    // The counters are exact: each operation of each life is in them, and what is still held is the difference.
    const done = (word: number): number =>
      Array.from({ length: SHARERS }, (_, i) => control.get(word + i)).reduce((a, b) => a + b, 0);
    const live = leftOver(control);
    const total = countersOf(caches);
    expect(total.allocs).toBe(done(Sharer.allocs));
    expect(total.frees).toBe(done(Sharer.frees));
    expect(total.allocs - total.frees).toBe(live.length);
    expect(total.allocBypasses).toBeLessThanOrEqual(total.allocSlow);
    expect(total.freeBypasses).toBeLessThanOrEqual(total.freeSlow);
    expect(total.trylockFailures, 'the threads met').toBeGreaterThan(0);
    console.log(`${nodes} nodes: ${kills} kills, ${JSON.stringify(total)}`);

    for (const { place, p } of live) caches[place % 3]!.free(p);
    for (const cache of caches) expect(cache.destroy().leaked).toBe(0);
    expectSound(arena);
  });
});

/** Objects in the mailbox and in the tables of all sharers. */
function leftOver(control: Control): Array<{ place: number; p: number }> {
  const found = [];
  for (let i = 0; i < (1 + SHARERS) * PLACES; i++) {
    const p = control.m[TABLES_AT + i]!;
    if (p !== 0) found.push({ place: i % PLACES, p });
  }
  expect(new Set(found.map(({ p }) => p)).size).toBe(found.length);
  return found;
}

function countersOf(caches: KmemCache[]) {
  const total = {
    allocs: 0,
    frees: 0,
    allocSlow: 0,
    freeSlow: 0,
    trylockFailures: 0,
    allocBypasses: 0,
    freeBypasses: 0,
  };
  for (const cache of caches) {
    const { ALLOC_FASTPATH, ALLOC_SLOWPATH, FREE_FASTPATH, FREE_SLOWPATH } = cache.stats();
    const { trylockFailures, allocBypasses, freeBypasses } = cache.trylockStats();
    total.allocs += ALLOC_FASTPATH + ALLOC_SLOWPATH;
    total.frees += FREE_FASTPATH + FREE_SLOWPATH;
    total.allocSlow += ALLOC_SLOWPATH;
    total.freeSlow += FREE_SLOWPATH;
    total.trylockFailures += trylockFailures;
    total.allocBypasses += allocBypasses;
    total.freeBypasses += freeBypasses;
  }
  return total;
}
