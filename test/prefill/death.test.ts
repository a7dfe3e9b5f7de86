/** Threads that are gone with sheaves borrowed: whoever reaps them gives back what was left in those. */

import { describe, expect, it } from 'vitest';
import { Pcs, pcsOf } from '#src/cpu/index.js';
import type { Arena } from '#src/index.js';
import { prefilledSheaves } from '#src/sheaf/index.js';
import { Control } from '#workers/litmus/control.js';
import { boot, expectSound, freeMany, LONG, secondCpu, shrinkAll } from '../cache/support/arena.js';
import { launch, until } from '../litmus/support/team.js';
import { POLICIES, prefill, take } from './support.js';

const SIZES = [
  { size: 192, layer: 'sheaves' },
  { size: 4096, layer: 'sheaves' },
  { size: 64, layer: 'none' },
] as const;
/** GRANARY_LONG=1 tries each with both policies. */
const CASES = POLICIES.flatMap((policy, i) =>
  SIZES.filter((_, at) => LONG || at % 2 === i).map((cache) => ({ policy, ...cache })),
);

const loansOf = (arena: Arena, slot: number, cpu: number): number =>
  prefilledSheaves(arena.i32, pcsOf(arena.geometry, cpu, slot)).length;

describe.each(CASES)('with $size bytes, layer $layer, policy $policy', ({ policy, size, layer }) => {
  it.each(['exit', 'throw', 'return', 'after the turn', 'wait'])(
    'a thread that ends by %s leaves nothing borrowed once it is reaped',
    async (how) => {
      const arena = boot({ lockPolicy: policy, bytes: 32 << 20 });
      const cache = arena.createCache('c', { size, layer });
      const control = new Control();
      const args = { cpu: 1, how };
      const { worker, exited, result } = launch<number[]>('borrow', { control, handle: arena.handle, args });
      if (how === 'wait') {
        await until(() => control.get(0) === 1);
        await worker.terminate();
      }
      await exited;
      expect(loansOf(arena, cache.desc.slot, 1)).toBe(4);
      const flushed = cache.stat('SHEAF_FLUSH');
      expect(arena.cpuDead(1)).toEqual({ cpu: 1, heldLocks: [], notes: [] });
      expect(loansOf(arena, cache.desc.slot, 1)).toBe(0);
      expect(cache.stat('SHEAF_FLUSH') - flushed).toBeGreaterThan(3000);
      expectSound(arena);
      // Two objects of each of its four sheaves are its own; a sheaf of exactly one had no second.
      const popped = layer === 'none' ? 7 : 8;
      const held = await result.catch(() => []);
      expect(held).toHaveLength(['return', 'after the turn'].includes(how) ? popped : 0);
      freeMany(cache, held);
      expect(cache.destroy().leaked).toBe(held.length > 0 ? 0 : popped);
      expectSound(arena);
    },
  );
});

describe.each(POLICIES)('the slot of a dead borrower, policy %s', (policy) => {
  it('starts anew: no loan is inherited', async () => {
    const arena = boot({ lockPolicy: policy, bytes: 32 << 20 });
    const cache = arena.createCache('c', { size: 4096 });
    const args = { cpu: 1, how: 'exit' };
    await launch('borrow', { control: new Control(), handle: arena.handle, args }).exited;
    arena.cpuDead(1);
    const heir = secondCpu(arena);
    const theirs = heir.openCache('c');
    expect(arena.i32[pcsOf(arena.geometry, 1, cache.desc.slot) + Pcs.prefilled]).toBe(0);
    const sheaf = prefill(theirs, 9);
    expect(loansOf(arena, cache.desc.slot, 1)).toBe(1);
    freeMany(theirs, take(sheaf, 5));
    theirs.return(sheaf);
    heir.offline();
    expectSound(arena);
  });

  it('that died between marking an object and taking it off gives it back', () => {
    const arena = boot({ lockPolicy: policy });
    const cache = arena.createCache('c', { size: 4096 });
    const dying = secondCpu(arena);
    const sheaf = prefill(dying.openCache('c'), 3);
    dying.endTurn();
    const top = arena.i32[sheaf.at + 4 + sheaf.size - 1]!;
    arena.u8[arena.geometry.shadow + (top >> 3)] = cache.desc.tag;
    expect(arena.cpuDead(1)).toEqual({ cpu: 1, heldLocks: [], notes: [] });
    expectSound(arena);
    expect(cache.destroy().leaked).toBe(0);
  });

  it('whose pcs lock somebody else has gives back what was borrowed all the same', () => {
    const arena = boot({ lockPolicy: policy, cpus: 3 });
    const cache = arena.createCache('c', { size: 4096 });
    const dying = secondCpu(arena);
    prefill(dying.openCache('c'), 3);
    dying.endTurn();
    const lock = pcsOf(arena.geometry, 1, cache.desc.slot) + Pcs.lock;
    arena.i32[lock] = 3;
    expect(arena.cpuDead(1).notes).toEqual(['c: its pcs lock is held by somebody else']);
    arena.i32[lock] = 0;
    expect(loansOf(arena, cache.desc.slot, 1)).toBe(0);
    expectSound(arena);
  });
});

describe.each(POLICIES)('a borrower that is killed at a random moment, policy %s', (policy) => {
  it('loses nothing without a word', async () => {
    const silent: string[] = [];
    for (let i = 0; i < (LONG ? 12 : 2); i++) {
      const arena = boot({ lockPolicy: policy, bytes: 4 << 20 });
      arena.createCache('c', { size: i % 2 === 0 ? 256 : 4096 });
      const control = new Control();
      const args = { cpu: 1, seed: i + 1 };
      const { worker, exited } = launch('churnPrefilled', { control, handle: arena.handle, args });
      await until(() => control.get(0) > (i * 997) % 5000);
      await worker.terminate();
      await exited;
      try {
        const { heldLocks, notes } = arena.cpuDead(1);
        if (heldLocks.length > 0 || notes.length > 0) continue;
      } catch {
        continue; // it died in a lock that the reaper needs, and that was said
      }
      for (const { invariant, what } of arena.validate()) silent.push(`${i}: ${invariant} ${what}`);
      shrinkAll(arena);
    }
    expect(silent).toEqual([]);
  });
});
