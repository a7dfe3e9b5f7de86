/** Threads that share a CPU and are killed anywhere, also in the middle of an operation, while the others run on. */

import { describe, expect, it } from 'vitest';
import type { Arena } from '#src/index.js';
import { Control } from '#workers/litmus/control.js';
import { allocMany, boot, freeMany } from '../cache/support/arena.js';
import { launch, until } from '../litmus/support/team.js';

const SHARERS = 3;

/** What the reaper said about each, as one list; a thread that it could not reap counts as reported. */
function reapAll(arena: Arena, dead: number[], reported: string[]): void {
  for (const thread of dead) {
    try {
      const { heldLocks, notes } = arena.cpuDead(thread);
      reported.push(...notes, ...heldLocks.map((lock) => `lock ${lock}`));
    } catch (error) {
      reported.push((error as Error).message);
    }
  }
}

async function round(seed: number) {
  const arena = boot({ lockPolicy: 'op', cpus: 2, threads: 2 + 2 * SHARERS, bytes: 8 << 20 });
  arena.createCache('c', { size: 256 });
  arena.createCache('d', { size: 4096 });
  const members = Array.from({ length: SHARERS }, (_, i) => {
    const control = new Control();
    const args = { cpu: 1, seed: seed * SHARERS + i + 1 };
    return { control, ...launch('churn', { control, handle: arena.handle, args }) };
  });
  await until(() => members.every(({ control }) => control.get(0) > 0));
  const reported: string[] = [];
  for (const { control, worker, exited } of members) {
    const rounds = control.get(0) + ((seed * 37) % 100);
    const deadline = performance.now() + 200;
    // One that met a lock of a dead thread has ended by itself.
    await until(() => control.get(0) > rounds || performance.now() > deadline);
    const before = arena.onlineThreads;
    await worker.terminate();
    await exited;
    expect(arena.onlineThreads).toEqual(before);
  }
  reapAll(
    arena,
    arena.onlineThreads.filter((thread) => thread !== arena.cpu.thread),
    reported,
  );
  return { arena, reported, findings: arena.validate() };
}

describe('threads of one CPU that are killed at random moments', () => {
  it('leave no object in two places, and sound sheaves to whoever comes next', async () => {
    for (let seed = 1; seed <= 6; seed++) {
      const { arena, reported, findings } = await round(seed);
      const kinds = [...new Set(findings.map(({ invariant }) => invariant))];
      console.log(`seed ${seed}: reported ${reported.length}, findings ${kinds.join(' ') || 'none'}`);
      expect(findings.filter(({ invariant }) => invariant === 'I13')).toEqual([]);
      if (reported.length > 0) continue;
      expect(kinds.filter((kind) => kind !== 'I10')).toEqual([]);
      expect(arena.onlineThreads).toEqual([0]);
      const cache = arena.openCache('c');
      freeMany(cache, allocMany(cache, 300));
    }
  });
});
