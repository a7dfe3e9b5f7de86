/** Threads that die with objects in kfree_rcu: whoever reaps them frees what they had in their lists, and in hand. */
import { describe, expect, it } from 'vitest';
import type { Arena, ArenaOptions, CacheOptions, KmemCache } from '#src/index.js';
import { KFREE_RCU_BATCH, KfreeRcuCpu, krcpOf } from '#src/rcu/index.js';
import { Control } from '#workers/litmus/control.js';
import { allocMany, boot, expectSound, inside, LONG, secondCpu } from '../cache/support/arena.js';
import { launch, until } from '../litmus/support/team.js';

const SIZE = 64;
const N = 6;

const KINDS: Record<string, { options: Partial<ArenaOptions>; cache: CacheOptions }> = {
  'a quarantine': { options: {}, cache: { size: SIZE, quarantine: 4 * SIZE } },
  'guarded objects': { options: { guard: { every: 1, objects: 60 } }, cache: { size: SIZE } },
  'no sheaves': { options: {}, cache: { size: SIZE, layer: 'none' } },
};

/** A thread without its locks, as if it were killed where it asks for one of kfree_rcu. */
class Killed extends Error {}

function killAtLock(arena: Arena, isDue: (lock: number) => boolean): void {
  const { locks } = inside(arena).cpu;
  const { lock } = locks;
  locks.lock = (at, cls) => {
    if (isDue(at)) throw new Killed('here');
    lock.call(locks, at, cls);
  };
}

describe.each(Object.keys(KINDS))('a cache with %s', (kind) => {
  const setup = (): { arena: Arena; cache: KmemCache; other: Arena; theirs: KmemCache } => {
    const arena = boot({ bytes: 4 << 20, maxCaches: 30, ...KINDS[kind]!.options });
    const cache = arena.createCache('c', KINDS[kind]!.cache);
    const other = secondCpu(arena);
    return { arena, cache, other, theirs: other.openCache('c') };
  };
  const expectNothingLost = (arena: Arena, cache: KmemCache): void => {
    expect(arena.cpuDead(1)).toMatchObject({ heldLocks: [], notes: [] });
    arena.endTurn();
    expectSound(arena);
    arena.kfreeRcuBarrier();
    arena.endTurn();
    expectSound(arena);
    expect(cache.destroy()).toMatchObject({ leaked: 0 });
    expectSound(arena);
  };

  it('what a thread was about to put into its list is freed by its reaper', () => {
    const { arena, cache, other, theirs } = setup();
    const [p, q] = allocMany(theirs, 2) as [number, number];
    theirs.freeRcu(p);
    other.endTurn();
    const krcp = krcpOf(arena.geometry, 1);
    killAtLock(other, (at) => at === krcp);
    expect(() => theirs.freeRcu(q)).toThrow(Killed);
    expectNothingLost(arena, cache);
  });

  it('and what it was about to link, without memory', () => {
    const { arena, cache, other, theirs } = setup();
    const [p] = allocMany(theirs, 1) as [number];
    other.endTurn();
    const { lists } = inside(other).kfreeRcu;
    lists.pushHead = () => {
      throw new Killed('here');
    };
    expect(() => other.kfreeRcuNolock(p, 8)).toThrow(Killed);
    expectNothingLost(arena, cache);
  });

  it('and what it waited for, with neither', () => {
    const { arena, cache, other, theirs } = setup();
    const [p] = allocMany(theirs, 1) as [number];
    inside(other).pages.refuseEach(1);
    inside(other).rcu.synchronize = () => {
      throw new Killed('here');
    };
    expect(() => theirs.freeRcu(p)).toThrow(Killed);
    other.endTurn();
    expectNothingLost(arena, cache);
  });

  it('and what it had taken out to free it', () => {
    const { arena, cache, other, theirs } = setup();
    for (const p of allocMany(theirs, 40)) theirs.freeRcu(p);
    other.endTurn();
    inside(other).kmallocs.objectAt = () => {
      throw new Killed('here');
    };
    expect(() => other.kfreeRcuBarrier()).toThrow(Killed);
    const krcp = krcpOf(arena.geometry, 1);
    expect(arena.i32[krcp + KfreeRcuCpu.end]).toBe(KFREE_RCU_BATCH);
    arena.i32[krcp + KfreeRcuCpu.from] = 0; // an error says that nobody goes on with them, a death does not
    expectNothingLost(arena, cache);
  });

  it('a list that has no memory is for the next try', () => {
    const { arena, cache, other, theirs } = setup();
    const [p] = allocMany(theirs, 1) as [number];
    other.endTurn();
    killAtLock(other, (at) => at === krcpOf(arena.geometry, 1));
    expect(() => theirs.freeRcu(p)).toThrow(Killed);
    inside(arena).pages.refuseEach(1);
    expect(() => arena.cpuDead(1)).toThrow(/no memory for the list of what thread slot 1/);
    inside(arena).pages.refuseEach(0);
    expectNothingLost(arena, cache);
  });
});

interface Death {
  at: number;
  heldLocks: number;
  notes: string[];
  wrong: string[];
}

/** Stops a real thread at a moment, terminates it there, and looks what is left when all has been freed. */
async function killedAt(kind: string, phase: string, pages: number, at: number): Promise<Death | undefined> {
  const arena = boot({ bytes: 4 << 20, maxCaches: 30, ...KINDS[kind]!.options });
  const cache = arena.createCache('c', KINDS[kind]!.cache);
  arena.endTurn();
  const control = new Control();
  const args = { cpu: 1, n: N, phase, pages, at };
  const { worker, exited } = launch('stopInKfreeRcu', { control, handle: arena.handle, args });
  await until(() => control.get(0) !== 0);
  const stopped = control.get(0) === 1;
  await worker.terminate();
  await exited;
  if (!stopped) return undefined;
  let report: ReturnType<Arena['cpuDead']>;
  try {
    report = arena.cpuDead(1);
  } catch {
    return { at, heldLocks: 1, notes: [], wrong: [] };
  }
  const death = { at, heldLocks: report.heldLocks.length, notes: report.notes, wrong: [] as string[] };
  if (death.heldLocks > 0) return death;
  arena.kfreeRcuBarrier();
  arena.endTurn();
  // Callbacks of a barrier look into lists, and lose nothing.
  const silent = report.notes.every((note) => note.includes('callbacks died'));
  const lost = arena.validate().filter(({ invariant }) => silent || invariant !== 'I10');
  death.wrong.push(...lost.map(({ invariant, what }) => `${invariant} ${what}`));
  const { leaked } = cache.destroy();
  // What it had not freed when it died stays allocated: at most the one whose free had not begun to change anything.
  const unfreed = N - control.get(1);
  if (silent && leaked > unfreed) death.wrong.push(`${leaked} objects leaked, ${unfreed} not freed`);
  return death;
}

/** GRANARY_LONG=1 stops at each moment, otherwise at one of so many. */
const STRIDE = LONG ? 1 : 29;
const BATCH = LONG ? 4 : 2;

describe.each(Object.keys(KINDS))('killed in kfree_rcu of a cache with %s', (kind) => {
  it.each([
    ['give', 1],
    ['give', 0],
    ['free', 1],
  ] as const)(
    'phase %s, pages %i: nothing is lost without a word',
    async (phase, pages) => {
      const deaths: Death[] = [];
      for (let at = 1; ; at += BATCH * STRIDE) {
        const moments = Array.from({ length: BATCH }, (_, i) => at + i * STRIDE);
        const batch = await Promise.all(moments.map((moment) => killedAt(kind, phase, pages, moment)));
        const found = batch.filter((death) => death !== undefined);
        deaths.push(...found);
        if (found.length < BATCH) break;
      }
      expect(deaths.length).toBeGreaterThan(0);
      expect(deaths.filter(({ wrong }) => wrong.length > 0)).toEqual([]);
    },
    60_000,
  );
});
