/**
 * The race of the unused rest of a freelist. CPU A took all objects of a slab, B frees one of its objects, and C pops
 * that again: the slab word is what A left, but C has yet to take the slab off the list. Linux once returned the rest
 * without list_lock and so linked a slab twice. The same three steps are run here against that variant and ours.
 */

import { describe, expect, it } from 'vitest';
import type { KmemCache } from '#src/cache/index.js';
import type { Arena, ArenaOptions } from '#src/index.js';
import { Page, type PagePtr } from '#src/page/index.js';
import { addPartialTail, type CacheDesc, listLock, nodeOf, packSlabWord } from '#src/slab/index.js';
import { cmpxchg, LockClass } from '#src/sync/index.js';
import { boot, inside, partialList, secondCpu } from '../cache/support/arena.js';
import { fullSlabs, refill, slabAlloc, slabFree } from './support.js';

type GiveBack = (s: CacheDesc, page: PagePtr, head: number, cnt: number) => void;

/** What the race is about, which nobody but the allocator calls. */
interface Inner {
  returnFreelist: GiveBack;
  freeRest: GiveBack;
  refillFromNode(...args: unknown[]): number;
  popObject(...args: unknown[]): number;
  indexOf(s: CacheDesc, page: PagePtr, p: number): number;
}

const slabsOf = (arena: Arena): Inner => inside(arena).slabs as unknown as Inner;

/** Reopens the race: the compare-exchange without list_lock, the slab linked later with what else was not needed. */
function returnWithoutLock(arena: Arena): void {
  const slabs = slabsOf(arena);
  const { refillFromNode } = slabs;
  const { i32: m, cpu } = arena;
  const unlinked: Array<{ s: CacheDesc; page: PagePtr }> = [];
  slabs.returnFreelist = (s, page, head, cnt) => {
    const objects = m[page + Page.objects]!;
    const taken = packSlabWord(0, objects);
    const rest = packSlabWord(slabs.indexOf(s, page, head) + 1, objects - cnt);
    if (cmpxchg(m, page + Page.slabWord, taken, rest) === taken) unlinked.push({ s, page });
    else slabs.freeRest(s, page, head, cnt);
  };
  slabs.refillFromNode = (...args) => {
    const got = refillFromNode.apply(slabs, args);
    for (const { s, page } of unlinked.splice(0)) {
      const n = nodeOf(m, s, 0);
      cpu.locks.lock(listLock(n), LockClass.ListLock);
      addPartialTail(m, n, page);
      cpu.locks.unlock(listLock(n), LockClass.ListLock);
    }
    return got;
  };
}

class Blocked extends Error {}

/** Runs what a CPU does next until it is done (true) or would wait for a lock, before which it changed nothing (false). */
function runUnlessBlocked(arena: Arena, action: () => void): boolean {
  const locks = arena.cpu.locks as { lock: typeof arena.cpu.locks.lock };
  const { lock } = locks;
  locks.lock = (at, cls) => {
    if (arena.i32[at] !== 0) throw new Blocked();
    lock.call(locks, at, cls);
  };
  try {
    action();
    return true;
  } catch (error) {
    if (error instanceof Blocked) return false;
    throw error;
  } finally {
    delete (locks as Partial<typeof locks>).lock;
  }
}

interface Outcome {
  arena: Arena;
  cache: KmemCache;
  /** How far A came, at each point at which it had the CPU. */
  steps: string[];
}

/** A refills from a slab with 6 of 8 objects and needs 2; B and C cut in when it is about to return the other 4. */
function run(refinements: NonNullable<ArenaOptions['refinements']>, plant?: (arena: Arena) => void): Outcome {
  const a = boot({ cpus: 3, refinements });
  const cache = a.createCache('c', { size: 4096 });
  const [b, c] = [secondCpu(a, 1), secondCpu(a, 2)];
  const [slab] = fullSlabs(a, cache, 1);
  slabFree(a, cache, slab!.slice(0, 6));
  plant?.(a);
  const steps: string[] = [];
  const method = refinements.returnFreelist === false ? 'freeRest' : 'returnFreelist';
  const inner = slabsOf(a);
  const giveBack = inner[method];
  inner[method] = (...args) => {
    inner[method] = giveBack;
    let done = false;
    const proceed = (when: string): void => {
      if (done) return;
      done = runUnlessBlocked(a, () => giveBack.apply(inner, args));
      steps.push(`${when}: ${done ? 'returned' : 'waits for list_lock'}`);
    };
    slabFree(b, b.openCache('c'), [slab![7]!]);
    const theirs = slabsOf(c);
    const { popObject } = theirs;
    theirs.popObject = (...popArgs) => {
      theirs.popObject = popObject;
      const p = popObject.apply(theirs, popArgs);
      proceed('C has popped and not yet looked');
      return p;
    };
    expect(slabAlloc(c, c.openCache('c'))).toEqual([slab![7]]);
    proceed('C is done');
  };
  expect(refill(a, cache, 2, 2)).toHaveLength(2);
  return { arena: a, cache, steps };
}

describe('the return of an unused rest, with a free and a pop in between', () => {
  it('without list_lock links the slab twice, and validate says so', () => {
    const { arena, steps } = run({}, returnWithoutLock);
    expect(steps).toEqual(['C has popped and not yet looked: returned']);
    const findings = arena.validate();
    expect(findings.map(({ invariant, where }) => `${invariant} ${where}`)).toEqual(
      expect.arrayContaining(['I7 c, node 0', 'I11 c, node 0']),
    );
    const text = findings.map(({ what }) => what).join('\n');
    expect(text).toMatch(/the partial list has a cycle/);
    expect(text).toMatch(/nr_partial is 2, there are 1/);
  });

  it('without list_lock is sound as long as nobody cuts in: the race alone does the damage', () => {
    const arena = boot({ cpus: 3 });
    const cache = arena.createCache('c', { size: 4096 });
    returnWithoutLock(arena);
    const [slab] = fullSlabs(arena, cache, 1);
    slabFree(arena, cache, slab!.slice(0, 6));
    refill(arena, cache, 2, 2);
    expect(arena.validate()).toEqual([]);
    expect(partialList(arena, cache)).toMatchObject([{ inuse: 4 }]);
  });

  it.each<NonNullable<ArenaOptions['refinements']>>([
    {},
    { batchDetach: false },
    { returnFreelist: false },
    { returnFreelist: false, batchDetach: false },
  ])('waits for C, and links the slab once (%o)', (refinements) => {
    const { arena, cache, steps } = run(refinements);
    expect(steps).toEqual(['C has popped and not yet looked: waits for list_lock', 'C is done: returned']);
    expect(partialList(arena, cache)).toMatchObject([{ inuse: 4 }]);
    expect(arena.validate()).toEqual([]);
  });
});
