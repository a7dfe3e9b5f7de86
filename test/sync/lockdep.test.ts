/** What lockdep must find, each planted; that it finds nothing else is the rest of the suite, which runs with it. */
import { describe, expect, it } from 'vitest';
import { lockRemotePcs } from '#src/cache/remote.js';
import { pcsOf } from '#src/cpu/index.js';
import { Arena, type ArenaOptions, LockdepError, type LockdepKind, NUMA_NO_NODE } from '#src/index.js';
import { GFP_KERNEL, GFP_NOWAIT } from '#src/page/index.js';
import {
  LEAF_LOCK_CLASSES,
  LOCK_CLASS_LEVEL,
  LOCK_CLASS_NAMES,
  LOCK_CLASS_TAKES,
  LockClass,
  type LockClassId,
  type Lockdep,
  type LockPtr,
  NESTED_LOCK_CLASSES,
} from '#src/sync/index.js';
import { inside, secondCpu } from '../cache/support/arena.js';
import { runTeam } from '../litmus/support/team.js';

const { SlabMutex, CpuSheaves, Barn, ListLock, Zone, Krcp } = LockClass;

/** An arena in which rules are broken on purpose, and some free words that serve as locks. */
function plant(options: Partial<ArenaOptions> = {}): { arena: Arena; at: LockPtr[] } {
  const arena = Arena.create({ bytes: 8 << 20, cpus: 2, lockdep: true, ...options });
  arena.online({ cpu: 0 });
  const page = arena.allocPages(0) / 4;
  arena.i32.fill(0, page, page + 64);
  return { arena, at: Array.from({ length: 8 }, (_, i) => (page + 8 * i) as LockPtr) };
}

/** Runs what lockdep must refuse; returns the report. */
function refused(arena: Arena, kind: LockdepKind, action: () => unknown): string {
  let thrown: unknown;
  try {
    action();
  } catch (error) {
    thrown = error;
  }
  expect(thrown, 'nothing was reported').toBeInstanceOf(LockdepError);
  const { message } = thrown as LockdepError;
  expect(thrown).toMatchObject({ kind, name: 'LockdepError' });
  expect(arena.lockdep().reports).toContain(message);
  return message;
}

function nest(arena: Arena, outer: [LockPtr, LockClassId], inner: [LockPtr, LockClassId]): void {
  const { locks } = arena.cpu;
  locks.lock(...outer);
  try {
    locks.lock(...inner);
    locks.unlock(...inner);
  } finally {
    locks.unlock(...outer);
  }
}

describe('the order of locks', () => {
  it('A -> B, then B -> A: an inversion, with both chains and their places', () => {
    const { arena, at } = plant();
    const [a, b] = [at[0]!, at[1]!];
    nest(arena, [a, Krcp], [b, Zone]);
    function theWrongWay(): void {
      nest(arena, [b, Zone], [a, Krcp]);
    }
    const report = refused(arena, 'inversion', theWrongWay);
    expect(report).toContain(`thread 0 possible circular locking dependency: takes krcp->lock at word ${a}`);
    expect(report).toMatch(/now at nest \(sync\/lockdep\.test\.ts:\d+:\d+\) < theWrongWay/);
    expect(report).toMatch(/held: zone->lock at word \d+, taken at nest \(sync\/lockdep/);
    expect(report).toMatch(/the other way, krcp->lock -> zone->lock by thread 0: nest \(sync\/lockdep/);
    // It was refused before it waited, and nothing is left locked.
    expect([arena.i32[a], arena.i32[b], arena.cpu.locks.held]).toEqual([0, 0, 0]);
  });

  it('sees a circle of three, each half of which is another chain', () => {
    const { arena, at } = plant();
    const [a, b, c] = [at[0]!, at[1]!, at[2]!];
    refused(arena, 'order', () => nest(arena, [a, Barn], [b, ListLock]));
    refused(arena, 'order', () => nest(arena, [b, ListLock], [c, Krcp]));
    const report = refused(arena, 'inversion', () => nest(arena, [c, Krcp], [a, Barn]));
    expect(report).toContain('the other way, barn->lock -> n->list_lock by thread 0');
    expect(report).toContain('the other way, n->list_lock -> krcp->lock by thread 0');
  });

  it('sees the halves of two CPUs', () => {
    const { arena, at } = plant();
    const other = secondCpu(arena);
    nest(arena, [at[0]!, Krcp], [at[1]!, Zone]);
    const report = refused(arena, 'inversion', () => nest(other, [at[3]!, Zone], [at[2]!, Krcp]));
    expect(report).toContain('lockdep: thread 1 possible circular');
    expect(report).toContain('krcp->lock -> zone->lock by thread 0: nest (sync/lockdep.test.ts');
  });

  it('sees the halves of two threads', async () => {
    const { arena, at } = plant({ cpus: 3 });
    const [a, b] = [at[0]!, at[1]!];
    const run = (args: Record<string, number>): Promise<string[]> =>
      runTeam<string>('nestLocks', arena.handle, [args]);
    expect(await run({ outerAt: a, outer: Krcp, innerAt: b, inner: Zone })).toEqual(['']);
    const [report] = await run({ outerAt: b, outer: Zone, innerAt: a, inner: Krcp });
    expect(report).toContain(`possible circular locking dependency: takes krcp->lock at word ${a}`);
    expect(report).toMatch(/krcp->lock -> zone->lock by thread 1: nestLocks \(chunks\/litmus\.js:\d+:\d+\)/);
    expect(arena.lockdep().reports).toEqual([report]);
  });

  it('against the table is reported the first time, with nobody having gone the other way', () => {
    const { arena, at } = plant();
    const report = refused(arena, 'order', () => nest(arena, [at[0]!, Barn], [at[1]!, ListLock]));
    expect(report).toContain('takes n->list_lock at word');
    expect(report).toContain('against the order of docs/locking.md');
    expect(arena.lockdep().edges.map(({ held, taken }) => [held, taken])).toContainEqual([
      'barn->lock',
      'n->list_lock',
    ]);
  });

  it('knows which class was first waited for under which, by whom and where', () => {
    const { arena, at } = plant();
    nest(secondCpu(arena), [at[0]!, Krcp], [at[1]!, Zone]);
    const edge = arena.lockdep().edges.find(({ held }) => held === 'krcp->lock');
    expect(edge).toMatchObject({ taken: 'zone->lock', thread: 1 });
    expect(edge!.place).toMatch(/^nest \(sync\/lockdep\.test\.ts:\d+:\d+\) < /);
  });

  it('takes a trylock for no wait, and its lock for held', () => {
    const { arena, at } = plant();
    const { locks } = arena.cpu;
    locks.lock(at[0]!, Zone);
    expect(locks.tryLock(at[1]!, ListLock)).toBe(true);
    expect(locks.tryLock(at[2]!, ListLock)).toBe(true);
    const report = refused(arena, 'recursion', () => locks.lock(at[3]!, ListLock));
    expect(report).toContain(`held: n->list_lock at word ${at[2]}, by a trylock`);
    for (const i of [2, 1]) locks.unlock(at[i]!, ListLock);
    locks.unlock(at[0]!, Zone);
    expect(arena.lockdep().edges.filter(({ held }) => held === 'zone->lock')).toEqual([]);
  });

  it('refuses everything under a leaf', () => {
    for (const leaf of LEAF_LOCK_CLASSES) {
      for (const cls of [SlabMutex, Barn, ListLock, Krcp] as LockClassId[]) {
        const { arena, at } = plant();
        const report = refused(arena, 'leaf', () => nest(arena, [at[0]!, leaf], [at[1]!, cls]));
        expect(report).toContain(`holds ${LOCK_CLASS_NAMES[leaf]} at word ${at[0]}, which is a leaf`);
      }
    }
  });
});

describe('recursion', () => {
  it('of one lock is refused instead of waited for', () => {
    const { arena, at } = plant();
    const report = refused(arena, 'recursion', () => nest(arena, [at[0]!, Barn], [at[0]!, Barn]));
    expect(report).toContain('possible recursive locking: takes barn->lock');
    expect(report).toContain('holds that very lock');
  });

  it('of a class is refused, too', () => {
    const { arena, at } = plant();
    refused(arena, 'recursion', () => nest(arena, [at[0]!, Barn], [at[1]!, Barn]));
  });

  it('is allowed in the classes that nest', () => {
    expect(NESTED_LOCK_CLASSES).toEqual([CpuSheaves]);
    const { arena, at } = plant();
    nest(arena, [at[0]!, CpuSheaves], [at[1]!, CpuSheaves]);
    refused(arena, 'recursion', () => nest(arena, [at[0]!, CpuSheaves], [at[0]!, CpuSheaves]));
  });
});

describe('a lock that is held', () => {
  it("over a turn's end is reported, with the place where it was taken", () => {
    const { arena, at } = plant();
    const lockdep = arena.cpu.lockdep as Lockdep;
    function leaks(): void {
      arena.cpu.locks.lock(at[0]!, ListLock);
    }
    leaks();
    const report = refused(arena, 'turn', () => lockdep.turnEnded());
    expect(report).toContain(`thread 0 ended its turn and holds n->list_lock at word ${at[0]}`);
    expect(report).toMatch(/taken at leaks \(sync\/lockdep\.test\.ts/);
    // Once is enough.
    expect(() => lockdep.turnEnded()).not.toThrow();
  });

  it("over a turn's end ends the thread with the report", async () => {
    const { arena, at } = plant();
    const args = { outerAt: at[0]!, outer: Barn };
    const report = runTeam('leakLock', arena.handle, [args]);
    await expect(report).rejects.toThrow(
      /ended its turn and holds barn->lock.*\n {2}taken at leakLock \(chunks\/litmus/,
    );
    expect(arena.lockdep().reports).toHaveLength(1);
  });

  it('over no end of a turn is not: sheaves go with the turn', async () => {
    const { arena } = plant();
    const cache = arena.createCache('c', { size: 64 });
    for (let turn = 0; turn < 3; turn++) {
      cache.free(cache.alloc());
      expect((arena.cpu.lockdep as Lockdep).heldClasses()).toContain(CpuSheaves);
      await new Promise((resolve) => setTimeout(resolve, 1));
      expect((arena.cpu.lockdep as Lockdep).heldClasses()).toEqual([]);
    }
    expect(arena.lockdep().reports).toEqual([]);
  });

  it.each([
    ['synchronize_rcu', 'a wait for RCU', (arena: Arena) => arena.rcu.synchronize()],
    ['rcu_barrier', 'a wait for RCU', (arena: Arena) => arena.rcu.barrier()],
    ['pages that may reclaim', 'an allocation of pages', (arena: Arena) => arena.allocPages(0, GFP_KERNEL)],
    ['a reclaim worker', 'a reclaim worker', (arena: Arena) => arena.reclaimWorker().run()],
  ])('into a wait is reported: %s', (_, what, wait) => {
    const { arena, at } = plant();
    const { locks } = arena.cpu;
    locks.lock(at[0]!, Krcp);
    expect(arena.allocPages(0, GFP_NOWAIT)).not.toBe(0);
    const report = refused(arena, 'wait', () => wait(arena));
    expect(report).toContain(`may sleep in ${what}`);
    expect(report).toContain(`and holds krcp->lock at word ${at[0]}`);
    locks.unlock(at[0]!, Krcp);
    expect(arena.validate()).toEqual([]);
  });

  it('into a request to another CPU is reported', () => {
    const { arena, at } = plant();
    const other = secondCpu(arena);
    const cache = arena.createCache('c', { size: 64 });
    other.openCache('c').free(other.openCache('c').alloc());
    const ask = (): unknown => lockRemotePcs(arena.cpu, pcsOf(arena.geometry, 1, cache.desc.slot));
    const alone = refused(arena, 'not-held', ask);
    expect(alone).toMatch(/relies on slab_mutex at word \d+, which it does not hold/);
    inside(arena).withSlabMutex(() => {
      arena.cpu.locks.lock(at[0]!, Barn);
      const report = refused(arena, 'wait', ask);
      arena.cpu.locks.unlock(at[0]!, Barn);
      expect(report).toContain('may sleep in a request for the sheaves of another CPU');
    });
  });

  it('is one that may be given up, and the innermost', () => {
    const { arena, at } = plant();
    const { locks } = arena.cpu;
    refused(arena, 'not-held', () => locks.unlock(at[0]!, Barn));
    locks.lock(at[0]!, Krcp);
    locks.lock(at[1]!, Zone);
    const report = refused(arena, 'not-held', () => locks.unlock(at[0]!, Krcp));
    expect(report).toContain(`gave up krcp->lock at word ${at[0]} before zone->lock at word ${at[1]}`);
    locks.unlock(at[1]!, Zone);
  });

  it('is what a function may rely on', () => {
    const { arena, at } = plant();
    const { locks, lockdep } = arena.cpu;
    refused(arena, 'not-held', () => lockdep.assertHeld(at[0]!, Barn));
    locks.lock(at[0]!, Barn);
    lockdep.assertHeld(at[0]!, Barn);
    locks.unlock(at[0]!, Barn);
  });
});

describe('a constructor or destructor', () => {
  const within = (arena: Arena, kind: 'ctor' | 'dtor', name: string, body: () => void): void => {
    const { lockdep } = arena.cpu;
    lockdep.enterCallback(kind, arena.openCache(name).desc);
    try {
      body();
    } finally {
      lockdep.leaveCallback();
    }
  };

  it.each(['turn', 'op'] as const)(
    'that allocates from its own cache is reported, policy %s',
    (lockPolicy) => {
      const { arena } = plant({ lockPolicy });
      const [mine, other] = ['mine', 'other'].map((name) => arena.createCache(name, { size: 64 }));
      // A fast path would serve it unseen.
      mine!.free(mine!.alloc());
      const out = new Int32Array(4);
      for (const alloc of [
        () => mine!.alloc(),
        () => mine!.allocBulk(out, 4),
        () => mine!.allocNode(0),
        () => mine!.prefill(2),
      ]) {
        const report = refused(arena, 'ctor', () => within(arena, 'ctor', 'mine', alloc));
        expect(report).toContain('allocates from mine within a ctor of mine');
      }
      within(arena, 'ctor', 'mine', () => other!.free(other!.alloc()));
      const nested = (): void => within(arena, 'ctor', 'other', () => mine!.alloc());
      refused(arena, 'ctor', () => within(arena, 'ctor', 'mine', nested));
      mine!.free(mine!.alloc());
    },
  );

  it('that runs with a lock held which an allocation may need is reported', () => {
    for (const cls of [Barn, ListLock, Krcp, Zone] as LockClassId[]) {
      const { arena, at } = plant();
      arena.createCache('mine', { size: 64 });
      arena.cpu.locks.lock(at[0]!, cls);
      const report = refused(arena, 'ctor', () => within(arena, 'ctor', 'mine', () => {}));
      expect(report).toContain(`calls the ctor of mine and holds ${LOCK_CLASS_NAMES[cls]}`);
      arena.cpu.locks.unlock(at[0]!, cls);
    }
  });

  it.each(['turn', 'op'] as const)('that frees into a cache is reported, policy %s', (lockPolicy) => {
    const { arena } = plant({ lockPolicy });
    const [mine, other] = ['mine', 'other'].map((name) => arena.createCache(name, { size: 64 }));
    const list = new Int32Array(2);
    for (const cache of [mine!, other!]) {
      const p = cache.alloc();
      cache.allocBulk(list, 2);
      refused(arena, 'dtor', () => within(arena, 'dtor', 'mine', () => cache.free(p)));
      refused(arena, 'dtor', () => within(arena, 'dtor', 'mine', () => cache.freeBulk(list, 2)));
      cache.free(p);
      cache.freeBulk(list, 2);
    }
    expect(arena.validate()).toEqual([]);
  });

  it('that waits for a lock which is no leaf is reported; leaves, and what only tries, are not', () => {
    const { arena, at } = plant();
    arena.createCache('mine', { size: 64 });
    const { locks } = arena.cpu;
    for (const cls of [SlabMutex, Barn, ListLock, Krcp] as LockClassId[]) {
      const report = refused(arena, 'dtor', () =>
        within(arena, 'dtor', 'mine', () => locks.lock(at[0]!, cls)),
      );
      expect(report).toContain('which is no leaf, within the dtor of mine');
    }
    const p = arena.kmalloc(64);
    // A leaf is last in every chain: it may be taken whatever the caller of the destructor holds.
    locks.lock(at[1]!, ListLock);
    within(arena, 'dtor', 'mine', () => {
      locks.lock(at[0]!, Zone);
      locks.unlock(at[0]!, Zone);
      arena.kfreeNolock(p);
    });
    locks.unlock(at[1]!, ListLock);
    locks.lock(at[1]!, Zone);
    refused(arena, 'dtor', () => within(arena, 'dtor', 'mine', () => {}));
    locks.unlock(at[1]!, Zone);
  });
});

describe('the table of the order', () => {
  const ids = LOCK_CLASS_NAMES.map((_, cls) => cls as LockClassId);

  it('goes downwards, so that no pair of it closes a circle', () => {
    for (const held of ids) {
      for (const taken of LOCK_CLASS_TAKES[held]) {
        expect(LOCK_CLASS_LEVEL[taken], LOCK_CLASS_NAMES[taken]).toBeGreaterThan(LOCK_CLASS_LEVEL[held]!);
      }
    }
  });

  it('has leaves that take nothing but leaves', () => {
    for (const leaf of LEAF_LOCK_CLASSES) {
      expect(LOCK_CLASS_TAKES[leaf].filter((cls) => !LEAF_LOCK_CLASSES.includes(cls))).toEqual([]);
    }
    expect(LOCK_CLASS_TAKES[Zone]).toEqual([]);
  });
});

describe('an arena without lockdep', () => {
  it('checks nothing and has no room for it', () => {
    const arena = Arena.create({ bytes: 8 << 20, cpus: 2 });
    arena.online();
    expect(arena.geometry.lockdep).toBe(0);
    expect(arena.lockdep()).toEqual({ edges: [], reports: [] });
    const page = arena.allocPages(0, GFP_KERNEL, NUMA_NO_NODE) / 4;
    arena.i32.fill(0, page, page + 64);
    nest(arena, [page as LockPtr, Zone], [(page + 8) as LockPtr, Barn]);
    expect(Object.getPrototypeOf(arena.cpu.locks).constructor.name).toBe('Locks');
    expect(Object.getPrototypeOf(arena.cpu).constructor.name).toBe('ThisCpu');
  });

  it.each([1, 'yes', {}])('refuses %j as the option', (value) => {
    const make = (): Arena => Arena.create({ bytes: 8 << 20, lockdep: value as unknown as boolean });
    expect(make).toThrow(TypeError);
    expect(make).toThrow(/^lockdep is .*; it must be a boolean$/);
  });
});
